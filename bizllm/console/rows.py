"""Rows of a published table, as far as the terminal is wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from bizllm.console.terminal import new_console, new_table
from bizllm.plain_text import plain

if TYPE_CHECKING:
    import pyarrow as pa

CELL_WIDTH = 48  # of a table's row text, where the terminal is wide enough
GAP = 3  # cells between two columns

_CONTRACT = ("run_date", "run_id", "model", "model_version", "input_hash", "produced_at")


def print_rows(rows: pa.Table) -> None:
    """Rows of a published table. On a narrow terminal the contract columns make way first."""
    console = new_console()
    if rows.num_columns == 0:
        console.print("no columns")
        return
    numeric = {field.name for field in rows.schema if _is_number(field)}
    columns = [(name, [plain(value, CELL_WIDTH) for value in rows.column(i).to_pylist()])
               for i, name in enumerate(rows.column_names)]  # fmt: skip
    widths = [max(cell_len(text) for text in [plain(name), *cells]) + GAP for name, cells in columns]
    if not console.is_terminal:
        console.width = sum(widths)
    shown = _fitting(rows.column_names, widths, console.width + GAP)
    table = new_table([columns[i][0] for i in shown], numeric)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for row in zip(*(columns[i][1] for i in shown), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    hidden = [plain(name) for i, name in enumerate(rows.column_names) if i not in shown]
    tail = f"; not shown: {', '.join(hidden)}" if hidden else ""
    noun = "row" if rows.num_rows == 1 else "rows"
    console.print(Text(f"{rows.num_rows:,} {noun}{tail}", style="dim"), soft_wrap=True)


def _fitting(names: Sequence[str], widths: Sequence[int], room: int) -> list[int]:
    """Positions of the columns that fit, in their order: the first always, the contract's only where room is left."""
    by_worth = sorted(range(len(names)), key=lambda i: (names[i] in _CONTRACT, i))
    shown = by_worth[:1]
    room -= widths[by_worth[0]]
    for i in by_worth[1:]:
        if widths[i] > room:
            break
        shown.append(i)
        room -= widths[i]
    return sorted(shown)


def _is_number(field: pa.Field) -> bool:
    return str(field.type).startswith(("int", "uint", "float", "double", "halffloat", "decimal"))
