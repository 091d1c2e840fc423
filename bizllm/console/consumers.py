"""What `export` and `contract` print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bizllm.console.terminal import count, duration, say
from bizllm.plain_text import plain

if TYPE_CHECKING:
    from bizllm.jobs.exporting import Copied, Exported


def print_night(night: Copied) -> None:
    """One line, as soon as the night is there."""
    say(f"{night.run_date}  {count(night.rows):>12} rows  {duration(night.seconds)}", sys.stdout)


def print_export(done: Exported) -> None:
    """Where everything went."""
    nights = "1 night" if len(done.nights) == 1 else f"{count(len(done.nights))} nights"
    rows = sum(night.rows for night in done.nights)
    say(f"{done.table}: {nights}, {count(rows)} rows → {done.to} {done.into} at {done.target}", sys.stdout)
    if done.hidden:
        say(
            f"hidden: {', '.join(done.hidden)}, since the step reads a sensitive source; --reveal copies them",
            sys.stdout,
        )


def print_contract(found: dict[str, Any], text: str, write: str | None, against: str | None) -> None:
    """The YAML itself; or what it was written to; or one line for each difference and whether the contract holds."""
    if against is None:
        said = f"wrote {write}: {count(len(found['tables']))} tables" if write else ""
        print(said or "\n".join(plain(line) for line in text.splitlines()))
        return
    for note in found["notes"]:
        say(f"note    {note['told']}", sys.stdout)
    for change in found["breaking"]:
        say(f"breaks  {change['told']}", sys.stderr)
    broken = len(found["breaking"])
    if broken:
        say(
            f"{against} does not hold: {count(broken)} {'change breaks' if broken == 1 else 'changes break'} it",
            sys.stderr,
        )
    else:
        say(f"{against} holds", sys.stdout)
