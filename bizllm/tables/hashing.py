"""Content hashes of rows and groups: the same on every machine, in every process, however rows are cut into batches.

A row's hash is the MD5 of a canonical text of its columns, as two 64-bit words. A group's is the sum of its rows'
words modulo 2^64 together with their number: free of order, and partial sums add up (the multiset hash MSet-Add-Hash of
Clarke et al., ASIACRYPT 2003). They find changes; they are no defence against an adversary.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from bizllm.tables.types import normal_type

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Words = npt.NDArray[np.uint64]

N, HI, LO = "__n", "__hi", "__lo"  # what tallies hold beside the keys; no column of a user begins so

_NULL = "~"  # no number's text, and no length
_DIGEST = """
    select (digest & 18446744073709551615::uhugeint)::ubigint as first, (digest >> 64)::ubigint as last
    from (select md5_number(text) as digest from texts)
"""
_BATCH_ROWS = 65_536
_BATCH_BYTES = 2**27  # of a batch's columns; far from the 2 GiB that an Arrow string array holds


def row_hashes(table: pa.Table, columns: Sequence[str]) -> tuple[Words, Words]:
    """The high and the low word of each row's hash over these columns, in this order: (rows,) each.

    An integer's width, a string's encoding and a timestamp's unit don't matter. Null, an empty text and zero differ;
    every NaN is one value, and so are 0.0 and -0.0.
    """
    hi = np.empty(table.num_rows, np.uint64)
    lo = np.empty(table.num_rows, np.uint64)
    at = 0
    for batch in _batches(table.select(list(columns))):
        stop = at + batch.num_rows
        hi[at:stop], lo[at:stop] = _md5(_row_text(batch.columns, batch.num_rows))
        at = stop
    return hi, lo


def hex(hi: Words, lo: Words) -> pa.Array:
    """(rows,) strings of 32 hex digits."""
    words = np.stack([hi, lo], axis=1).astype(">u8")
    text = words.tobytes().hex().encode()
    offsets = np.arange(len(hi) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(hi), pa.py_buffer(offsets), pa.py_buffer(text))


def words(hexes: pa.Array | pa.ChunkedArray) -> tuple[Words, Words]:
    """What `hex` made of (rows,) hashes, without nulls, as words again."""
    if not len(hexes):
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    text = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(hexes)], pa.int32()), _one(hexes)), "")
    found = np.frombuffer(unhexlify(text[0].as_py()), ">u8").reshape(-1, 2).astype(np.uint64)
    return np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1])


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def group_tallies(table: pa.Table, keys: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """One row for each group: keys, `__n` rows, and the sums `__hi` and `__lo` of the row hashes over `columns`."""
    hi, lo = row_hashes(table, columns)
    rows = table.select(list(keys))
    for name, values in ((N, np.ones(table.num_rows, np.int64)), (HI, hi), (LO, lo)):
        rows = rows.append_column(name, pa.array(values))
    return _summed(rows, keys)


def merge_tallies(tallies: Sequence[pa.Table], keys: Sequence[str]) -> pa.Table:
    """The tallies of the whole from those of its parts."""
    return _summed(pa.concat_tables(tallies), keys)


def bucket_of(table: pa.Table, keys: Sequence[str], buckets: int) -> npt.NDArray[np.int32]:
    """(rows,) which of the buckets a row's key belongs to."""
    assert buckets > 0
    _, lo = row_hashes(table, keys)
    return (lo % np.uint64(buckets)).astype(np.int32)


# -- canonical text -----------------------------------------------------------------------------------------------


def _row_text(columns: Sequence[pa.Array], rows: int) -> pa.Array:
    """(rows,) one text for each row that no other row values give."""
    pieces = [piece for column in columns for piece in _pieces(column)]
    if not pieces:
        return pa.array([b""] * rows, pa.binary())
    return pc.binary_join_element_wise(*pieces, pa.scalar(b":"), null_handling="replace", null_replacement=_NULL)


def _pieces(column: pa.Array) -> Iterator[pa.Array]:
    """Texts that tell a column's values apart: digits, or a length and then bytes of that length."""
    column = _normal(column)
    kind = column.type
    if types.is_null(kind):
        yield pa.nulls(len(column), pa.binary())
    elif types.is_string(kind) or types.is_binary(kind):
        raw = column.cast(pa.binary())
        yield _digits(pc.binary_length(raw))
        yield raw
    elif types.is_nested(kind):
        yield _nested(column)
    else:
        yield _digits(_integers(column))


def _normal(column: pa.Array) -> pa.Array:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = column.type
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_nested(kind):
        return column  # nanoseconds may not fit microseconds, and a nested value's parts come one by one
    wanted = normal_type(kind)
    return column if wanted == kind else column.cast(wanted)


def _integers(column: pa.Array) -> pa.Array:
    """Numbers, times and booleans as integers or exact decimals: equal values give equal numbers."""
    kind = column.type
    if types.is_floating(kind):
        values = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        values = np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, and no -0.0
        return pc.if_else(column.is_valid(), pa.array(values.view(np.int64)), pa.scalar(None, pa.int64()))
    if types.is_timestamp(kind):
        return _scaled(column.cast(pa.int64()), kind.unit)
    if types.is_time(kind):
        return _scaled(column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64()), kind.unit)
    if types.is_duration(kind):
        return _scaled(column.cast(pa.int64()), kind.unit)
    if types.is_date(kind):
        return column.cast(pa.int32())
    return column.cast(pa.int8()) if types.is_boolean(kind) else column


def _scaled(count: pa.Array, unit: str) -> pa.Array:
    """Counts of a unit as nanoseconds; as a decimal, since the year 9999 in nanoseconds passes 64 bits."""
    zeros = {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    return pc.multiply(count.cast(pa.decimal128(20, 0)), pa.scalar(10**zeros, pa.decimal128(10, 0)))


def _digits(numbers: pa.Array) -> pa.Array:
    return numbers.cast(pa.string()).cast(pa.binary())


def _nested(column: pa.Array) -> pa.Array:
    """(rows,) of fixed-length hashes joined: a list's elements, a struct's fields; null where the value is null."""
    kind = column.type
    if types.is_struct(kind):
        text = _row_text(column.flatten(), len(column))
        inner = hex(*_md5(text)).cast(pa.binary())
        return pc.if_else(column.is_valid(), inner, pa.scalar(None, pa.binary()))
    if types.is_map(kind):
        column = column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    elif not types.is_list(kind):
        column = column.cast(pa.list_(kind.value_type))
    # `flatten` leaves out what lies under nulls and beyond a slice, so the offsets are counted anew.
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = column.flatten()
    elements = hex(*_md5(_row_text([values], len(values))))
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), elements.cast(pa.binary())), b"")
    return pc.if_else(column.is_valid(), joined, pa.scalar(None, pa.binary()))


# -- sums and digests ---------------------------------------------------------------------------------------------


def _summed(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Sums of n, hi and lo. Arrow adds unsigned words modulo 2^64."""
    options = [(name, "sum", pc.ScalarAggregateOptions(min_count=0)) for name in (N, HI, LO)]
    summed = rows.group_by(list(keys), use_threads=False).aggregate(options)
    wanted = pa.schema([*(rows.schema.field(k) for k in keys), (N, pa.int64()), (HI, pa.uint64()), (LO, pa.uint64())])
    return (
        summed.select([*keys, *(f"{name}_sum" for name in (N, HI, LO))]).rename_columns([*keys, N, HI, LO]).cast(wanted)
    )


def _md5(text: pa.Array) -> tuple[Words, Words]:
    """The digest's first and last eight bytes, big-endian."""
    cursor = _connection().cursor()
    try:
        cursor.register("texts", pa.table({"text": text}))
        words = cursor.sql(_DIGEST).to_arrow_table()
    finally:
        cursor.close()
    # DuckDB reads the digest as a little-endian number; its bytes in order are two big-endian words.
    hi, lo = (words.column(name).to_numpy().byteswap() for name in ("first", "last"))
    return hi, lo


@lru_cache(maxsize=1)
def _connection() -> DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:", config={"threads": "1", "autoload_known_extensions": "false"})


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Slices of bounded rows and bytes. How a table is cut changes no hash."""
    weight = max(1, table.nbytes) / max(1, table.num_rows)
    return iter(table.to_batches(max_chunksize=max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / weight)))))
