"""Columns in the types that other systems get: the widest of their kind, so that tables there only grow by columns."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import types


def widest(kind: pa.DataType) -> pa.DataType:
    """Any integer is a long, any float a double, any decimal has 38 digits; inside lists and structs too."""
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind):
        return pa.float64()
    if types.is_decimal(kind):
        return pa.decimal128(38, kind.scale)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(pa.field("element", widest(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, widest(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(widest(kind.key_type), widest(kind.item_type))
    return kind


def deep(kind: pa.DataType) -> bool:
    """Whether it is more than a list of plain values: a struct, a map, a list of these or of lists."""
    if types.is_list(kind):
        return bool(types.is_nested(kind.value_type))
    return bool(types.is_nested(kind))


def converted(
    rows: pa.RecordBatchReader, as_text: Callable[[pa.DataType], bool] = lambda kind: False
) -> pa.RecordBatchReader:
    """The rows in the widest types, batch by batch. as_text: which become text instead, JSON where they are nested."""
    plain = pa.schema([pa.field(f.name, widest(f.type)) for f in rows.schema])
    texts = {f.name for f in plain if as_text(f.type)}
    schema = pa.schema([pa.field(f.name, pa.string() if f.name in texts else f.type) for f in plain])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            columns = [
                _as_text(column) if field.name in texts else column.cast(field.type)
                for field, column in zip(schema, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _as_text(column: pa.Array) -> pa.Array:
    """Each value as text, a nested one as compact JSON; null stays null."""
    if not types.is_nested(column.type):
        return column.cast(pa.string())
    values = column.to_pylist(maps_as_pydicts="lossy") if _has_map(column.type) else column.to_pylist()
    return pa.array([None if value is None else _json(value) for value in values], pa.string())


def _has_map(kind: pa.DataType) -> bool:
    if types.is_map(kind):
        return True
    return types.is_nested(kind) and any(_has_map(kind.field(i).type) for i in range(kind.num_fields))


def _json(value: Any) -> str:
    """JSON that every parser takes: NaN and infinities become null, NUL characters the replacement character."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain, allow_nan=False)
    except ValueError:
        return _json(_clean(value))
    return _json(_clean(value)) if "\\u0000" in text and _clean(value) != value else text


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)


class Counted:
    """A reader of the same rows that knows how many have gone through it."""

    def __init__(self, rows: pa.RecordBatchReader) -> None:
        self.rows = 0
        self.reader = pa.RecordBatchReader.from_batches(rows.schema, self._counting(rows))

    def _counting(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in rows:
            self.rows += batch.num_rows
            yield batch
