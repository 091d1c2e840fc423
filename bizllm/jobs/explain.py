"""Pydantic's errors as faults that a data engineer reads: the place in the YAML, the value, what was expected."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bizllm.errors import nearest
from bizllm.jobs.yaml_places import Document, Key, Keys, holds, kind_of

M = TypeVar("M", bound=BaseModel)

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "date": "a date YYYY-MM-DD",
    "finite": "a finite number",
    "none": "nothing",
}
_BOUNDS = {
    "greater_than": ("gt", "a number greater than {}"),
    "greater_than_equal": ("ge", "a number of at least {}"),
    "less_than": ("lt", "a number less than {}"),
    "less_than_equal": ("le", "a number of at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
    "string_too_short": ("min_length", "text of at least {} characters"),
    "string_too_long": ("max_length", "text of at most {} characters"),
    "string_pattern_mismatch": ("pattern", "text that matches {}"),
    "literal_error": ("expected", "{}"),
    "enum": ("expected", "{}"),
}


def validate(model: type[M], value: dict[str, Any], document: Document, at: Keys = ()) -> M | None:
    """`value`, which stands at `at` in the document, as a `model`; None where it is faulty (noted in the document)."""
    try:
        valid = model.model_validate(value)
    except ValidationError as error:
        _note(error.errors(include_url=False), model, value, document, at)
        return None
    for name, given in value.items():  # pydantic takes `horizon: yes` for 1
        if isinstance(given, bool) and type(getattr(valid, name, None)) in (int, float):
            document.fault((*at, name), given, "expected a number")
            return None
    return valid


def _note(errors: list[ErrorDetails], model: type[BaseModel], value: Any, document: Document, at: Keys) -> None:
    alternatives: dict[Keys, list[str]] = {}  # one place's errors; several where a setting takes one of several types
    for error in errors:
        keys, of_union = _keys(error, value)
        if error["type"] == "extra_forbidden":
            known = _fields(model, keys[:-1])
            hint = nearest(str(keys[-1]), known) or (f"known are {', '.join(known)}" if known else "")
            document.fault((*at, *keys), None, f"unknown key '{keys[-1]}'", hint)
        elif error["type"] == "missing":
            about = _description(model, keys)
            document.fault((*at, *keys), None, f"'{keys[-1]}' is missing" + (f" ({about})" if about else ""))
        elif error["type"] == "value_error":
            document.fault((*at, *keys), _scalar(document.shown((*at, *keys))), str(error["ctx"]["error"]))
        elif not (of_union and any(_below(_keys(other, value)[0], keys) for other in errors)):
            # Where a union's list has a bad item, the item's error says it; that it is no text either says nothing.
            alternatives.setdefault(keys, []).append(_expected(error))
    for keys, expected in alternatives.items():
        shown = document.shown((*at, *keys))
        found = "" if _scalar(shown) is not None else f", not {kind_of(shown)}"
        quotes = "put it in quotes" if "text" in expected and _scalar(shown) is not None else ""
        document.fault((*at, *keys), _scalar(shown), f"expected {' or '.join(dict.fromkeys(expected))}{found}", quotes)


def _keys(error: ErrorDetails, value: Any) -> tuple[Keys, bool]:
    """The error's place in the YAML, and whether pydantic named a member of a union on the way there."""
    keys: list[Key] = []
    of_union = False
    for i, key in enumerate(error["loc"]):
        if holds(value, key):
            value = value[key]
        elif not (error["type"] == "missing" and i == len(error["loc"]) - 1):
            of_union = of_union or key != "[key]"
            continue
        keys.append(key)
    return tuple(keys), of_union


def _below(keys: Keys, ancestor: Keys) -> bool:
    return len(keys) > len(ancestor) and keys[: len(ancestor)] == ancestor


def _expected(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return words.format(error["ctx"][name])
    return _WORDS.get(kind.split("_")[0], error["msg"])


def _scalar(value: object) -> object:
    return None if isinstance(value, dict | list) else value


def _fields(model: type[BaseModel] | None, keys: Keys) -> list[str]:
    """The keys that the model at that place takes."""
    for key in keys:
        if model is not None and isinstance(key, str) and key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation)
    return list(model.model_fields) if model is not None else []


def _description(model: type[BaseModel], keys: Keys) -> str:
    for key in keys[:-1]:
        if isinstance(key, str) and key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    info = model.model_fields.get(str(keys[-1]))
    return (info.description or "").rstrip(".") if info else ""


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model in a type such as `dict[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
