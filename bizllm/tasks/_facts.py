"""A row's columns as facts for a prompt: what each is called, and its value as a person would write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from bizllm.errors import nearest
from bizllm.methods import documents
from bizllm.tasks._texts import Faults

_EXHIBIT = pa.schema(
    [("title", pa.string()), ("source", pa.string()), ("result", pa.string()), ("score", pa.float64())]
)
_SAMPLES, _SAMPLE_CHARS = 8, 2_000
Facts = dict[str, str]  # value by name; columns without a value are left out


def usable(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a fact."""
    return documents.is_text(kind) or any(
        of(kind)
        for of in (
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_boolean,
            types.is_date,
            types.is_timestamp,
        )
    )


def column_faults(schema: pa.Schema, columns: Mapping[str, str]) -> Faults:
    """Faults of settings that name columns of facts: setting → column."""
    faults: Faults = []
    for setting, column in columns.items():
        if column not in schema.names:
            known = f"no such column; there are {', '.join(schema.names)}"
            faults.append((setting, column, known, nearest(column, schema.names)))
        elif not usable(schema.field(column).type):
            kind = schema.field(column).type
            faults.append((setting, column, f"expected a column of text, numbers or dates; it is {kind}", ""))
    return faults


def read(rows: pa.Table, columns: Sequence[str], max_chars: int) -> tuple[list[Facts], dict[int, tuple[str, str]]]:
    """(the facts of each row, in the order of the columns; code and message of the rows that can't be used)."""
    facts: list[Facts] = [{} for _ in range(rows.num_rows)]
    unusable: dict[int, tuple[str, str]] = {}
    for column in columns:
        if documents.is_text(rows[column].type):
            texts, faults = documents.read(rows[column], max_chars)
            values: list[str | None] = [" ".join(text[0].split()) if text else None for text in texts]
            for row, code, message in faults:
                if code != "empty":
                    unusable.setdefault(row, (code, message))
        else:
            values = [None if value is None else in_words(value) for value in rows[column].to_pylist()]
        for row, value in enumerate(values):
            if value is not None:
                facts[row][column] = value
    for row, found in enumerate(facts):
        if not found:
            unusable.setdefault(row, ("empty", "no column has a value"))
    return facts, unusable


def in_words(value: Any) -> str:
    """A number without a useless end, a date as 2026-03-09."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}" if abs(value) < 1e10 else f"{value:g}"
    return str(value)


def exhibit(facts: Sequence[Facts], told: Sequence[tuple[str, str, float | None]]) -> pa.Table:
    """For the report, a few rows of all lengths, beginning with the longest. told: title, result and score of each."""
    order = sorted(range(len(facts)), key=lambda i: -sum(map(len, facts[i].values())))
    picks = {order[int(k)] for k in np.linspace(0, len(order) - 1, min(_SAMPLES, len(order)))}
    rows = []
    for i in sorted(picks, key=order.index):
        title, result, score = told[i]
        source = "\n".join(f"{name}: {value}" for name, value in facts[i].items())[:_SAMPLE_CHARS]
        rows.append({"title": title, "source": source, "result": result, "score": score})
    return pa.Table.from_pylist(rows, schema=_EXHIBIT)


def listed(facts: Mapping[str, str]) -> list[dict[str, str]]:
    """For a template."""
    return [{"name": name, "value": value} for name, value in facts.items()]
