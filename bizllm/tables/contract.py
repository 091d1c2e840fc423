"""The columns that every published table has, whatever its task, and the types that may be published.

A consumer relies on these names; a task's own columns come between the keys and the contract columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from bizllm.errors import Fault

CONTRACT = pa.schema(
    [
        pa.field("run_date", pa.date32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("input_hash", pa.string(), nullable=False),
        pa.field("produced_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)

MEANINGS = {
    "run_date": "the night; the partition",
    "run_id": "the run that published the row",
    "model": "model URI as the job wrote it; null where no model took part",
    "model_version": "hash of the model's content; for a registered model its version and the start of the hash",
    "input_hash": "hash of the used input columns of the row, or of all rows of the group",
    "produced_at": "when the answer was made; a copied one keeps it",
}

_REJECT = pa.schema(
    [
        pa.field("scope", pa.string(), nullable=False),  # row | group
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),  # never row text
        pa.field("unit", pa.string(), nullable=False),
        pa.field("input_hash", pa.string()),
        pa.field("run_date", pa.date32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)

LEDGER = pa.schema(
    [
        pa.field("run_date", pa.date32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("table", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),  # done | unchanged | failed | skipped | cancelled
        pa.field("started_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("rows_in", pa.int64()),
        pa.field("rows_out", pa.int64()),
        pa.field("rows_rejected", pa.int64()),
        pa.field("rows_reused", pa.int64()),
        pa.field("records_out", pa.int64()),
        pa.field("tokens", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("cost", pa.float64()),  # of CPUs and endpoints, in the currency of their prices; null without one
        pa.field("snapshot_id", pa.int64()),
        pa.field("fingerprint", pa.string()),
        pa.field("error", pa.string()),  # never row text
        pa.field("engine", pa.string()),  # what computed the step's models, and how far it agrees with torch in float32
    ]
)


def published_type(kind: pa.DataType) -> pa.DataType:
    """The type under which a column of that type is published: what Iceberg v2 can hold without loss.

    `types.normal_type` answers another question: as what a source is read. It keeps narrow integers and time zones, for
    users' SQL sees them, and rebuilds nested types. Here narrow integers widen to int32 and zones become UTC, because
    Iceberg has no others; nested types are a task's own declaration, fields' nullability included, and stay.
    """
    if pa.types.is_dictionary(kind):
        return published_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_int8(kind) or pa.types.is_int16(kind) or pa.types.is_uint8(kind) or pa.types.is_uint16(kind):
        return pa.int32()
    if pa.types.is_uint32(kind) or pa.types.is_uint64(kind):
        return pa.int64()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_date64(kind):
        return pa.date32()
    if pa.types.is_time(kind):
        return pa.time64("us")
    return kind


def output_schema(keys: Iterable[pa.Field], columns: pa.Schema) -> pa.Schema:
    """Keys, the task's own columns, the contract columns; in that order, in publishable types."""
    own = [pa.field(f.name, published_type(f.type), f.nullable) for f in columns]
    named = {f.name for f in columns}
    front = [pa.field(f.name, published_type(f.type), nullable=False) for f in keys if f.name not in named]
    return pa.schema([*front, *own, *CONTRACT])


def reject_schema(keys: Iterable[pa.Field]) -> pa.Schema:
    """Of `<step>__rejects`: nullable keys, then why there is no result."""
    return pa.schema([*(pa.field(f.name, published_type(f.type)) for f in keys), *_REJECT])


def clashes(place: str, keys: Iterable[str], columns: Iterable[str], own_keys: Iterable[str] = ()) -> list[Fault]:
    """Key columns that would collide with contract columns or with the task's own, whatever their case."""
    taken = {name.lower(): "a column that every table has" for name in (*CONTRACT.names, *_REJECT.names)}
    taken |= {name.lower(): "a column that the task writes" for name in columns if name not in set(own_keys)}
    return [
        Fault(place, key, f"clashes with {taken[key.lower()]}", "rename it with the source's `rename`")
        for key in keys
        if key.lower() in taken
    ]
