"""How a published table's schema may change from night to night: columns are added and types widened, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from bizllm.errors import RunError
from bizllm.tables.contract import published_type

if TYPE_CHECKING:
    from pyiceberg.schema import Schema


def arrow_schema(schema: Schema) -> pa.Schema:
    """An Iceberg schema in Arrow's plain types (string rather than large_string), without field ids."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return nullable(schema_to_pyarrow(schema, include_field_ids=False))


def nullable(schema: pa.Schema) -> pa.Schema:
    """Every column optional and in a plain type.

    Tables have no required columns: one that a later version of a task drops must be able to be null from then on.
    """
    return pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", _plain(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    return published_type(kind)


def clash(old: pa.Schema, new: pa.Schema) -> tuple[str, str] | None:
    """The first column that the table can't take, and why; None where the new schema only adds and widens."""
    for field in new:
        index = old.get_field_index(field.name)
        if index >= 0 and not widens(old.field(index).type, field.type):
            why = f"is {old.field(index).type} in the table and {field.type} now: columns are only added and types only"
            return field.name, f"{why} widened; give the new column another name"
    return None


def grows(name: str, old: pa.Schema, new: pa.Schema) -> bool:
    """Whether the table must change for the new schema. Raises RunError where it must not."""
    if found := clash(old, new):
        raise RunError(f"{name}: column '{found[0]}' {found[1]}")
    return any(field.name not in old.names or old.field(field.name).type != field.type for field in new)


def widens(old: pa.DataType, new: pa.DataType) -> bool:
    """Iceberg v2's promotions (spec, "Schema Evolution"), and new fields inside structs."""
    if old.equals(new) or (old, new) in ((pa.int32(), pa.int64()), (pa.float32(), pa.float64())):
        return True
    if pa.types.is_decimal(old) and pa.types.is_decimal(new):
        return bool(old.scale == new.scale and old.precision <= new.precision)
    if pa.types.is_list(old) and pa.types.is_list(new):
        return widens(old.value_type, new.value_type)
    if pa.types.is_struct(old) and pa.types.is_struct(new):
        return all(new.get_field_index(f.name) < 0 or widens(f.type, new.field(f.name).type) for f in old)
    return False
