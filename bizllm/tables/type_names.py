"""Column types under Iceberg's names, to be written into files that people read and compared again."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

_PLAIN = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
_NAMES = {kind: name for name, kind in _PLAIN.items()}
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")


def type_name(kind: pa.DataType) -> str:
    """The name of a publishable type: `list<struct<driver: string, effect: double>>`."""
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_name(field.type)}' for field in kind)}>"
    if pa.types.is_map(kind):
        return f"map<{type_name(kind.key_type)}, {type_name(kind.item_type)}>"
    return _NAMES[kind]


def type_of(name: str) -> pa.DataType | None:
    """The type of that name; None where it is none."""
    name = name.strip()
    if name in _PLAIN:
        return _PLAIN[name]
    if found := _DECIMAL.fullmatch(name):
        precision, scale = map(int, found.groups())
        return pa.decimal128(precision, scale) if 0 < precision <= 38 and scale <= precision else None
    if not (found := re.fullmatch(r"(list|struct|map)<(.*)>", name, re.S)):
        return None
    inner = list(_split(found[2]))
    if found[1] == "struct":
        named = [part.partition(":")[::2] for part in inner]
        fields = [(one.strip(), type_of(kind)) for one, kind in named]
        return None if any(not one or kind is None for one, kind in fields) else pa.struct(fields)
    kinds = [type_of(part) for part in inner]
    if None in kinds or len(kinds) != {"list": 1, "map": 2}[found[1]]:
        return None
    return pa.list_(pa.field("element", kinds[0])) if found[1] == "list" else pa.map_(*kinds)


def _split(text: str) -> Iterator[str]:
    """The parts between commas that stand in no brackets."""
    depth, start = 0, 0
    for at, character in enumerate(text):
        depth += {"<": 1, "(": 1, ">": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]
