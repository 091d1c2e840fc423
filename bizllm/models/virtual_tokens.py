"""What prompt and prefix tuning leave: virtual tokens in `adapter/`, which stand before every text that a model reads.

They are no part of the model's weights, which lie beside them as they were. Other adapters in that folder are: those
are merged already, and are only kept.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

from bizllm.errors import Fault, RunError, UserError

FOLDER = "adapter"
_KINDS = ("PROMPT_TUNING", "PREFIX_TUNING")


def count(folder: Path) -> int:
    """How many virtual tokens stand before a text of the model in this folder."""
    file = folder / FOLDER / "adapter_config.json"
    if not file.is_file():
        return 0
    try:
        said: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return int(said["num_virtual_tokens"]) if said.get("peft_type") in _KINDS else 0
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: is no description of an adapter ({type(error).__name__})") from error


def put_before(model: Any, folder: Path) -> Any:
    """The model with the virtual tokens of its folder, if it has any, for inference. No pickle is read."""
    if not count(folder):
        return model
    if not (folder / FOLDER / "adapter_model.safetensors").is_file():
        raise RunError(f"{folder / FOLDER}: has no adapter_model.safetensors")
    try:
        from peft import PeftModel
    except ModuleNotFoundError:
        needs = "a model with virtual tokens needs the package 'peft'"
        raise UserError(Fault(folder.name, None, needs, "pip install 'bizllm[train]'")) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for a property of transformers by its old name
        made = PeftModel.from_pretrained(model, str(folder / FOLDER), is_trainable=False)
    return cast(Any, made).eval()
