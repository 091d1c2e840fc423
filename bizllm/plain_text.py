"""Any value as text that can do nothing to a terminal, for people and as JSON. Row text is hostile."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from datetime import date, datetime

# Beside C0, which JSON escapes itself: C1 with its CSI, line separators, what turns the writing direction, surrogates.
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: object, width: int | None = None) -> str:
    """A value as text that can do nothing to a terminal; cut to `width` cells with an ellipsis."""
    text = _compact(value)
    if width is not None:
        from rich.cells import cell_len, set_cell_size

        text = text[: width * 4]  # a cell may hold combining marks, but not a whole document
    text = "".join(_visible(character) for character in text)
    if width is not None and cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    return text


def json_text(value: object) -> str:
    """One JSON value: dates as ISO text, NaN as null, and no character that acts on a terminal."""
    text = json.dumps(_jsonable(value), ensure_ascii=False, indent=2)
    return _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _visible(character: str) -> str:
    if character == "\n":
        return "↵"
    if character in "\t\r\u00a0":
        return " "
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\u200c\u200d":  # joiners: Persian, Hindi, emoji
        return f"\\u{ord(character):04x}"
    return character


def _compact(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_compact(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        more = f", … {len(value) - 5} more" if len(value) > 5 else ""
        return "[" + ", ".join(_compact(item) for item in value[:5]) + more + "]"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return str(value)


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {str(name): _jsonable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
