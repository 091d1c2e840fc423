"""LoRA adapters that were not merged: one base in memory of a process, and beside it the few weights of each adapter.

An adapter's folder is what PEFT writes: `adapter_config.json` and `adapter_model.safetensors`, with a tokenizer of its
own or none. Which model it was made for, `bizllm.json` says where bizllm wrote it (a URI and the hash of its content),
else PEFT's own `base_model_name_or_path`. Low-rank updates are those of Hu et al. 2021 (LoRA).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

from bizllm.errors import Fault, RunError, UserError
from bizllm.models.content import content_hash
from bizllm.models.saved import read_info

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter, and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def check(folder: Path, uri: str, place: str) -> None:
    """Raise UserError where the adapter is none that can be put on a base here. Cheap: no weights are read."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(Fault(place, uri, f"the adapter's folder has no {WEIGHTS}", "save it with save_pretrained"))
    said = _config(folder)
    kind = said.get("peft_type")
    if kind != "LORA":
        raise UserError(Fault(place, uri, f"is an adapter of kind {kind}; expected LORA", "merge it into its base"))
    if said.get("megatron_config"):  # names a module to import
        raise UserError(Fault(place, uri, "is an adapter for Megatron layers", "merge it into its base"))


def base_of(folder: Path, uri: str, place: str) -> tuple[str, str]:
    """(URI of the model that the adapter was made for, hash of its content or "" where nobody wrote it down).

    A relative `path:` in it starts from the adapter's folder. Raises UserError.
    """
    info = read_info(folder)
    if info is not None and info.base:
        return info.base, info.base_hash
    said = _config(folder)
    name = str(said.get("base_model_name_or_path") or "")
    if not name:
        raise UserError(Fault(place, uri, f"its {CONFIG} does not say for which base it was made"))
    if ":" in name:
        return name, ""
    if Path(name).is_absolute() or name.startswith(".") or (folder / name).is_dir():
        return f"path:{name}", ""
    revision = said.get("revision")
    return f"hf:{name}@{revision}" if revision else f"hf:{name}", ""


def rank(folder: Path) -> int:
    """The largest rank of the adapter's updates."""
    said = _config(folder)
    return int(max([said.get("r", 0), *dict(said.get("rank_pattern") or {}).values()]))


def content_name(folder: Path) -> str:
    """A name for the adapter that follows from its content."""
    return content_hash(folder)[:32]


def joint_hash(adapter: str, base: str) -> str:
    """Of an adapter on its base: both decide the answers."""
    return hashlib.sha256(f"adapter\0{adapter}\0{base}".encode()).hexdigest()


@dataclass(eq=False)
class Base:
    """A loaded base and the adapters that were put on it. One at a time computes.

    loaded: what loading it gave. model: of transformers; PEFT puts its layers into it.
    """

    loaded: Any
    model: Any
    _peft: Any = field(default=None, repr=False)
    _names: set[str] = field(default_factory=set, repr=False)
    _active: str = field(default="", repr=False)

    def put_on(self, folder: Path, name: str) -> Callable[[], None]:
        """Load an adapter; what is returned makes it the one that computes. name: without dots; equal ones are equal.

        No pickle is read. Raises UserError, and RunError where its weights are not for this base.
        """
        try:
            from peft import PeftModel
        except ModuleNotFoundError:
            raise UserError(
                Fault(folder.name, None, "an adapter needs the package 'peft'", "pip install 'bizllm[train]'")
            ) from None
        if name not in self._names:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for what transformers renamed
                    if self._peft is None:
                        made = PeftModel.from_pretrained(self.model, str(folder), name, is_trainable=False)
                        self._peft = cast(Any, made).eval()
                    else:
                        self._peft.load_adapter(str(folder), name, is_trainable=False)
            except (RuntimeError, ValueError) as error:  # shapes, names of modules
                raise RunError(f"{folder}: its weights are not for its base ({type(error).__name__})") from error
            self._peft.eval()
            self._names.add(name)
        return lambda: self._use(name)

    def _use(self, name: str) -> None:
        if name != self._active:
            self._peft.set_adapter(name, inference_mode=True)
            self._active = name


_BASES: WeakValueDictionary[str, Base] = WeakValueDictionary()


def base(key: str, load: Callable[[], tuple[Any, Any]]) -> Base:
    """The base of that key, loaded once in a process for as long as somebody holds it.

    key: hash of its content, with all else that decides what is loaded. load: gives (what was loaded, its model).
    """
    found = _BASES.get(key)
    if found is None:
        found = _BASES[key] = Base(*load())
    return found


def _config(folder: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
        return dict(said)
    except (ValueError, TypeError) as error:
        raise RunError(f"{folder / CONFIG}: is no description of an adapter ({type(error).__name__})") from error
