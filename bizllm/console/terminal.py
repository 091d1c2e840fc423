"""The terminal: Rich tables and plain lines. Row text is hostile: all text goes through `plain`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bizllm.plain_text import plain

PIPE_WIDTH = 240  # where there is no terminal to fit

_COLORS = {"done": "green", "unchanged": "cyan", "failed": "bold red", "skipped": "yellow", "cancelled": "yellow"}


def count(number: object) -> str:
    """12,345"""
    return f"{number:,}" if isinstance(number, int) else plain(number)


def duration(seconds: object) -> str:
    """4.2 s, 3 min 05 s, 2 h 04 min; empty where it is not known."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def money(cost: object) -> str:
    """12.34, and 0.0123 of small sums; empty where there is no price."""
    if not isinstance(cost, int | float):
        return ""
    return f"{cost:,.2f}" if cost >= 0.1 or not cost else f"{cost:.4f}"


def state_text(state: object) -> Text:
    """A state in its color."""
    return Text(plain(state), style=_COLORS.get(str(state), ""))


def new_console(stream: TextIO | None = None) -> Console:
    """Rich on stdout or `stream`, taking nothing for markup."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def new_table(names: Sequence[str], right: Iterable[str] = ()) -> Table:
    """An empty table with these columns; those named in `right` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    numbers = set(right)
    for name in names:
        justify = "right" if name in numbers else "left"
        table.add_column(Text(plain(name)), justify=justify, no_wrap=name in numbers, overflow="fold")  # type: ignore[arg-type]
    return table


def program() -> str:
    """What to type for bizllm here: its name, or its place where the shell would not find it (after `make demo`)."""
    beside = Path(sys.executable).with_name("bizllm")
    if shutil.which("bizllm") or not beside.exists():
        return "bizllm"
    near = os.path.relpath(beside)
    return shlex.quote(str(beside) if near.startswith("..") else near)


def say(line: str, stream: TextIO) -> None:
    """One plain line, at once."""
    with suppress(OSError, ValueError):  # a reader that went away is no reason to end the run
        print(plain(line), file=stream, flush=True)
