"""A task's columns without those that a step leaves out: `summary`, or `spans.text`, a field of a list's items."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import pyarrow as pa
from pyarrow import types


def names(columns: pa.Schema) -> list[str]:
    """Everything that can be left out: columns, and fields of a struct or of a list of structs, after a dot."""
    return [
        name for column in columns for name in (column.name, *(f"{column.name}.{f.name}" for f in _fields(column.type)))
    ]


def without(columns: pa.Schema, drop: Collection[str]) -> pa.Schema:
    """The columns that stay, with the fields that stay in them."""
    kept = []
    for column in columns:
        inner = [f for f in _fields(column.type) if f"{column.name}.{f.name}" not in drop]
        if column.name in drop or (not inner and _fields(column.type)):
            continue
        kind = column.type
        if len(inner) < len(_fields(kind)):
            kind = pa.struct(inner) if types.is_struct(kind) else pa.list_(pa.struct(inner))
        kept.append(pa.field(column.name, kind, column.nullable))
    return pa.schema(kept)


def rules_of(rules: Mapping[str, str], drop: Collection[str]) -> dict[str, str]:
    """The rules that can still be asked: those that name nothing that was left out."""
    gone = [re.compile(rf"\b{re.escape(name.rpartition('.')[2])}\b") for name in drop]
    return {name: condition for name, condition in rules.items() if not any(word.search(condition) for word in gone)}


def narrowed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column as `kind`, which may lack fields that it has."""
    if _fields(column.type) and [f.name for f in _fields(kind)] != [f.name for f in _fields(column.type)]:
        return pa.chunked_array([pa.array(column.to_pylist(), kind)], kind)
    return column.cast(kind)


def _fields(kind: pa.DataType) -> list[pa.Field]:
    if types.is_struct(kind):
        return list(kind)
    return list(kind.value_type) if types.is_list(kind) and types.is_struct(kind.value_type) else []
