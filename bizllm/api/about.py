"""What a file may say, and texts turned back."""

from __future__ import annotations

from typing import Any


def tasks(name: str | None = None) -> list[dict[str, Any]]:
    """Every task (or one): name, summary, shape, version, settings as JSON Schema, output columns."""
    from bizllm.tasks.base import task_class, task_names

    return [task_class(n, "TASK").describe() for n in ([name] if name else task_names())]


def schema(kind: str = "job") -> dict[str, Any]:
    """JSON Schema of a YAML file, for editors."""
    from bizllm.jobs.schema import json_schema

    return json_schema(kind)


def unmask(text: str, key: str, *, strict: bool = True) -> str:
    """A text with its pseudonyms (`mask` with `mode: pseudonym`) turned back to the normalised values.

    strict: a pseudonym of another key is an error; else it stays as it is.
    """
    from bizllm.methods.pii.pseudonyms import unmask as turn_back

    return turn_back(text, key, strict=strict)
