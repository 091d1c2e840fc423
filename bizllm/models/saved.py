"""What a fine-tuned model's folder says of itself: `bizllm.json` beside the files that transformers reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from bizllm.errors import RunError

Pooling = Literal["mean", "cls", "last", "native"]
Inputs = Literal["text", "pair", "numbers"]

FILE = "bizllm.json"
HEAD = "head.safetensors"  # of a model whose token vectors are pooled, beside its backbone
FORMAT = 1


@dataclass(frozen=True)
class ModelInfo:
    """How a fine-tuned model is asked, and what its outputs mean.

    objective: what it was trained for; one of `bizllm.train.objectives`.
    labels: classes, or the tags of a token classifier, in the order of the outputs.
    pooling: how token vectors become one vector a row: their mean, the first, the last; `native` where the model's own
        head of transformers does it.
    max_tokens: the window it was trained on, special tokens included.
    temperature: logits are divided by it before they become probabilities (Guo et al. 2017).
    threshold: the highest probability below which a row is out of scope; for multi_label the probability from which a
        label is given. None: never out of scope, 0.5.
    levels, horizon: quantile levels and numbers a row, of models that answer with numbers.
    base, base_hash: URI of the model that it was made from, and of an adapter the hash of that model's content.
    """

    name: str
    objective: str
    labels: tuple[str, ...] = ()
    pooling: Pooling = "native"
    max_tokens: int = 512
    temperature: float = 1.0
    threshold: float | None = None
    levels: tuple[float, ...] = ()
    horizon: int = 1
    inputs: Inputs = "text"
    base: str = ""
    license: str = ""
    base_hash: str = ""

    @property
    def outputs(self) -> int:
        """Numbers that the head gives for a row (or a token)."""
        if self.labels:
            return len(self.labels)
        return self.horizon * max(1, len(self.levels))


def read_info(folder: Path) -> ModelInfo | None:
    """The folder's `bizllm.json`; None where the model was not fine-tuned by bizllm. Raises RunError."""
    file = Path(folder) / FILE
    if not file.is_file():
        return None
    try:
        said: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if int(said["format"]) > FORMAT:
            raise RunError(f"{file}: written by a newer version of bizllm (format {said['format']})")
        return info_of(said)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: is no description of a model ({type(error).__name__})") from error


def info_of(said: dict[str, Any]) -> ModelInfo:
    """What `asdict` of a ModelInfo became in JSON; keys that it doesn't know are left out."""
    known = {field.name for field in fields(ModelInfo)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items() if k in known}
    return ModelInfo(**values)


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `bizllm.json` into the folder."""
    text = json.dumps({"format": FORMAT, **asdict(info)}, ensure_ascii=False, indent=1)
    (Path(folder) / FILE).write_text(text + "\n", "utf-8")
