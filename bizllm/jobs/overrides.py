"""`--set PLACE=VALUE`: settings from the command line, put over those of a YAML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bizllm.errors import Fault, UserError
from bizllm.jobs.yaml_places import Document, Keys, parse_value


def override(document: Document, sets: Sequence[str], check_place: Callable[[Keys], None]) -> None:
    """Put the values in. check_place raises UserError for a place that no setting has. Raises UserError with every
    fault."""
    faults: list[Fault] = []
    for text in sets:
        try:
            keys, value = parse_set(text)
            check_place(keys)
            document.override(keys, value)
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)


def parse_set(text: str) -> tuple[Keys, Any]:
    """`steps.sales.horizon=14` → (("steps", "sales", "horizon"), 14). Raises UserError."""
    where, equals, value = text.partition("=")
    parts = where.strip().split(".")
    if not equals or not all(parts):
        raise UserError(Fault("--set", text, "expected PLACE=VALUE, such as steps.sales.horizon=14"))
    if parts[:2] == ["warehouse", "properties"]:  # their names have dots: s3.endpoint
        parts[2:] = [".".join(parts[2:])] if parts[2:] else []
    keys = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
    return keys, parse_value(value, f"--set {where.strip()}")
