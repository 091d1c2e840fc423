"""What of a mail is the writer's own, and how its lines are laid out: tables, `Item: …` blocks, lists, sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# What tables and blocks call their columns.
_ROLES = {
    "sku": "sku|code|item code|item no|art no|article no|part no|product code|货号|编号|编码|商品编号|型号|料号",
    "item": "item|items|name|product|product name|description|article|品名|名称|商品|商品名称|产品|产品名称|描述|货品",
    "quantity": "qty|quantity|qty ordered|order qty|pcs|pieces|units|数量|件数|订货数量|订购数量",
    "unit": "unit|uom|单位",
    "price": "price|unit price|price each|rate|cost|单价|价格|售价",
    "amount": "total|amount|line total|sum|subtotal|value|小计|金额|总价|合计",
}
ROLES = {word: role for role, words in _ROLES.items() for word in words.split("|")}
_KEYS = "|".join(re.escape(word) for word in sorted(ROLES, key=len, reverse=True))
_KEY = re.compile(rf"(?<![A-Za-z])(?P<key>{_KEYS})\s*[:：]", re.I)
_BULLET = re.compile(r"\s*(?:[-*•·–—]\s+|\(?\d{1,2}[)、）]\s*|\(\d{1,2}\)\s*|\d{1,2}\.(?!\d)\s*|[①-⑳]\s*)")
_RULE = re.compile(r"[\s|:+=_-]*")

# From here on another mail is quoted.
_QUOTED = re.compile(
    r"^[ \t]*(?:-{2,} ?(?:original message|forwarded message|原始邮件|原邮件|转发的?邮件).*"
    r"|on .{4,80} wrote:\s*|.{0,60}写道[:：]\s*"
    r"|(?:from|发件人)\s*[:：].*\n[ \t]*(?:sent|to|date|发送时间|收件人|日期)\s*[:：].*)$",
    re.I | re.M,
)


@dataclass(frozen=True)
class Cell:
    """Characters [start, end) of the mail. role: what its column or key is called; "" where nothing says it."""

    start: int
    end: int
    role: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the mail. kind: table (with a header), row (cells without one), block (keys and values), list or prose.
    head: it is a header, and holds nothing itself."""

    kind: str
    cells: tuple[Cell, ...]
    head: bool = False


@dataclass
class _Table:
    """The table that the lines are in."""

    delimiter: str = ""
    roles: list[str] = field(default_factory=list)


def own_part(text: str) -> str:
    """The mail with what it quotes blanked out, as long as before."""
    quoted = _QUOTED.search(text)
    end = quoted.start() if quoted else len(text)
    lines = text[:end].split("\n")
    kept = [" " * len(line) if line.lstrip().startswith((">", "|>", "&gt;")) else line for line in lines]
    return "\n".join(kept) + re.sub(r"[^\n]", " ", text[end:])


def rows(text: str) -> Iterator[Row | None]:
    """The lines of a mail that hold something, in order; None for a blank one."""
    table, at = _Table(), 0
    for line in text.split("\n"):
        yield _row(line, at, table) if line.strip() else None
        at += len(line) + 1


def _row(line: str, at: int, table: _Table) -> Row | None:
    if _RULE.fullmatch(line):
        return Row("table", (), head=True) if table.roles else None
    for delimiter in ("|", "\t", ",", "，", ";"):
        cells = _cells(line, at, delimiter)
        roles = [ROLES.get(re.sub(r"[.\s]+", " ", line[c.start - at : c.end - at].lower()).strip(), "") for c in cells]
        if len(cells) > 1 and len({r for r in roles if r}) >= max(2, len(cells) - 2) and {"sku", "item"} & {*roles}:
            table.delimiter, table.roles = delimiter, roles
            return Row("table", tuple(cells), head=True)
    if table.roles:
        cells = _cells(line, at, table.delimiter)
        if abs(len(cells) - len(table.roles)) <= 1 and len(cells) > 1:
            return Row("table", tuple(Cell(c.start, c.end, r) for c, r in zip(cells, table.roles, strict=False)))
        table.delimiter, table.roles = "", []
    keys = [*_KEY.finditer(line)]
    if keys and not line[: keys[0].start()].strip(" \t-*•") and {ROLES[k["key"].lower()] for k in keys} != {"amount"}:
        ends = [*(k.start() for k in keys[1:]), len(line)]
        return Row(
            "block",
            tuple(
                Cell(at + key.end(), at + end, ROLES[key["key"].lower()]) for key, end in zip(keys, ends, strict=True)
            ),
        )
    for delimiter in ("|", "\t"):
        if line.count(delimiter) >= 2:
            return Row("row", tuple(_cells(line, at, delimiter)))
    bullet = _BULLET.match(line)
    if bullet:
        return Row("list", (Cell(at + bullet.end(), at + len(line)),))
    return Row("prose", (Cell(at, at + len(line)),))


def _cells(line: str, at: int, delimiter: str) -> list[Cell]:
    """The cells between delimiters; a table drawn with bars has one at both ends."""
    start, end = 0, len(line)
    if delimiter == "|":
        # The first bar alone is the edge: an empty first cell stays a cell.
        start = line.index("|") + 1 if line.lstrip().startswith("|") else 0
        end = line.rindex("|") if line.rstrip().endswith("|") and line.lstrip().startswith("|") else len(line)
    cells = []
    for part in line[start:end].split(delimiter):
        cells.append(Cell(at + start, at + start + len(part)))
        start += len(part) + len(delimiter)
    return cells
