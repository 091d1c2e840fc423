"""Which Arrow types a source has, whoever wrote its files: one string type, microseconds, no dictionaries."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types

_UNSIGNED = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64()}  # tables have none of these
_INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())


def normal_type(given: pa.DataType) -> pa.DataType:
    """The type that a column of this type is read as: one for each meaning, however the writer encoded it.

    What may be published is less: see `contract.published_type`.
    """
    if types.is_dictionary(given):
        return normal_type(given.value_type)
    if isinstance(given, pa.BaseExtensionType):
        return normal_type(given.storage_type)
    if types.is_large_string(given) or types.is_string_view(given):
        return pa.string()
    if types.is_large_binary(given) or types.is_binary_view(given) or types.is_fixed_size_binary(given):
        return pa.binary()
    if types.is_timestamp(given):
        return pa.timestamp("us", given.tz)
    if types.is_time(given):
        return pa.time64("us")
    if types.is_date(given):
        return pa.date32()
    if types.is_float16(given):
        return pa.float32()
    if types.is_decimal(given):
        return pa.decimal128(given.precision, given.scale) if given.precision <= 38 else given
    if types.is_map(given):
        return pa.map_(normal_type(given.key_type), normal_type(given.item_type))
    if types.is_struct(given):
        return pa.struct([pa.field(f.name, normal_type(f.type)) for f in given])
    if types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given):
        return pa.list_(normal_type(given.value_type))
    return _UNSIGNED.get(given, given)


def normal_schema(given: pa.Schema) -> pa.Schema:
    """The schema with normal types, every column nullable, and no metadata (pandas leaves some)."""
    return pa.schema([pa.field(column.name, normal_type(column.type)) for column in given])


def text_or_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column; a string that is not valid UTF-8 is null. Columns of other types are as they were.

    Parquet does not check what writers call a string, and no table can be published with such a key.
    """
    if not types.is_string(column.type):
        return column
    try:
        column.validate(full=True)
        return column
    except pa.ArrowInvalid:
        raw = column.cast(pa.binary()).to_pylist()
        return pa.chunked_array([pa.array([_decoded(value) for value in raw], pa.string())])


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both normal types without loss; None where there is none."""
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    for family in (_INTEGERS, _FLOATS):
        if one in family and other in family:
            return max(one, other, key=family.index)
    if types.is_decimal128(one) and types.is_decimal128(other):
        scale = max(one.scale, other.scale)
        whole = max(one.precision - one.scale, other.precision - other.scale)
        return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else None
    if types.is_list(one) and types.is_list(other):
        inner = common_type(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner)
    if types.is_struct(one) and types.is_struct(other) and {f.name for f in one} == {f.name for f in other}:
        fields = [(f.name, common_type(f.type, other.field(f.name).type)) for f in one]
        return None if any(kind is None for _, kind in fields) else pa.struct(fields)
    return None


def first_difference(one: pa.Schema, other: pa.Schema) -> str | None:
    """The first column that keeps two normal schemas from being one, in words; None where they can be."""
    for column in one:
        at = other.get_field_index(column.name)
        if at < 0:
            return f"column '{column.name}' is missing in the second"
        kind = other.field(at).type
        if common_type(column.type, kind) is None:
            return f"column '{column.name}' is {column.type} in the first and {kind} in the second"
    for column in other:
        if one.get_field_index(column.name) < 0:
            return f"column '{column.name}' is missing in the first"
    return None


def unify(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The schema that holds both; `first_difference` of them must be None."""
    kinds = [(column.name, common_type(column.type, other.field(column.name).type)) for column in one]
    return pa.schema(kinds)
