"""The files of `bizllm finetune`, `compress` and `evaluate`: read and checked as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.explain import validate
from bizllm.jobs.job import NAME, check_registry, check_secrets
from bizllm.jobs.notices import held_back
from bizllm.jobs.overrides import override
from bizllm.jobs.yaml_places import Document, Key, Keys, dotted, read_document
from bizllm.models.load import check as check_model
from bizllm.tables.settings import Closed
from bizllm.train.compression import Compression
from bizllm.train.recipe import MOST_TEACHERS, Recipe, TableSettings

_PATHS: tuple[Keys, ...] = (
    ("data", "train", "path"),
    ("data", "validation", "path"),
    ("data", "test", "path"),
    ("path",),
    ("output",),
    ("registry",),
    ("storage", "ca_bundle"),
    ("zero", "nvme_path"),
    ("augment", "synonyms_file"),
    ("continual", "path"),
    ("continual", "test"),
    ("propose", "path"),
    ("pseudo_labels", "path"),
)
_MODELS: tuple[Keys, ...] = (
    ("base",),
    ("augment", "paraphrase"),
    ("augment", "back_translate", 0),
    ("augment", "back_translate", 1),
    ("distill", "teacher"),
    *(("pseudo_labels", "teachers", i) for i in range(MOST_TEACHERS)),
)


class EvaluationFile(TableSettings):
    """A labelled table that a model is scored on."""

    text: str = Field(description="The column that the model reads.")


@dataclass(frozen=True)
class LoadedRecipe:
    """A training file that holds together. Paths in `recipe` are absolute or URLs."""

    recipe: Recipe
    path: str  # as the user typed it
    document: Document

    def place(self, *keys: Key) -> str:
        """`jobs/finetune.yaml:4 data.train.label`: where that setting stands, or would stand."""
        return self.document.place(*keys)


@dataclass(frozen=True)
class LoadedCompression:
    """A file of `compress` that holds together. Paths in `compression` are absolute or URLs."""

    compression: Compression
    path: str  # as the user typed it
    document: Document

    def place(self, *keys: Key) -> str:
        """`compress.yaml:4 data.train.path`: where that setting stands, or would stand."""
        return self.document.place(*keys)


def is_training_file(path: str) -> bool:
    """Whether the YAML file is one for `finetune`, not a job. Raises UserError."""
    keys = read_document(path).values.keys()
    return "steps" not in keys and bool(keys & {"objective", "base", "data"})


def is_compression_file(path: str) -> bool:
    """Whether the YAML file is one for `compress`: it has data, and no word of a job or of a training alone. Raises
    UserError."""
    keys = read_document(path).values.keys()
    others = {"steps"} | Recipe.model_fields.keys() - Compression.model_fields.keys()
    return "data" in keys and not keys & others


def load_recipe(path: str, sets: Sequence[str] = (), registry: str | None = None) -> LoadedRecipe:
    """Read a training file with its overrides (`optim.lr=1e-4`). Raises UserError with every fault.

    registry: takes the place of the file's.
    """
    document = _read(path, sets, registry, Recipe)
    for keys in _MODELS:
        _check_model(document, keys)
    return LoadedRecipe(_valid(Recipe, document), path, document)


def load_compression(path: str, sets: Sequence[str] = (), registry: str | None = None) -> LoadedCompression:
    """Read a file of `compress` with its overrides, as `load_recipe` does. Raises UserError with every fault."""
    document = _read(path, sets, registry, Compression)
    return LoadedCompression(_valid(Compression, document), path, document)


def _read(path: str, sets: Sequence[str], registry: str | None, model: type[Closed]) -> Document:
    """The file with its overrides and variables; faults of its name and registry are noted."""
    document = read_document(path)
    if registry is not None:
        document.override(("registry",), registry)
    override(document, sets, lambda keys: _check_place(keys, model))
    document.values.setdefault("output", model.model_fields["output"].default)  # relative to the file, as if written
    check_secrets(document)
    _settle(document)
    name = document.values.get("name")
    if isinstance(name, str) and (not re.fullmatch(NAME, name) or "__" in name):
        rule = "expected a name of a-z, 0-9 and single _, starting with a letter, at most 63 long"
        document.fault(("name",), name, rule)
    check_registry(document)
    return document


def load_evaluation(path: str) -> tuple[EvaluationFile, Document]:
    """Read the data file of `evaluate`. Raises UserError with every fault."""
    document = read_document(path)
    _settle(document)
    return _valid(EvaluationFile, document), document


def _settle(document: Document) -> None:
    """Put variables in, and make paths absolute."""
    document.expand_environment(os.environ, but=held_back(document))
    for keys in _PATHS:
        document.make_absolute(keys)
    for keys in _MODELS:
        document.make_absolute(keys, "path:")


def _valid(model: type[Any], document: Document) -> Any:
    """The document as a model. Raises UserError with every fault that was noted."""
    valid = validate(model, document.values, document)
    document.raise_faults()
    assert valid is not None, "a file that is not valid has a fault"
    return valid


def _check_place(keys: Keys, model: type[Closed]) -> None:
    """An override's first word; what is below is checked with the whole."""
    known, name = model.model_fields, str(keys[0])
    if name not in known:
        hint = nearest(name, known) or f"known are {', '.join(known)}"
        kind = "training" if model is Recipe else "compression"
        raise UserError(Fault(f"--set {dotted(keys)}", None, f"no '{name}' in a {kind} file", hint))


def _check_model(document: Document, keys: Keys) -> None:
    uri = document.at(*keys)
    if isinstance(uri, str):
        try:
            check_model(uri)
        except UserError as error:
            document.fault(keys, document.shown(keys), error.faults[0].expected, error.faults[0].suggestion)
