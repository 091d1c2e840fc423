"""What `rollback`, `gc` and `recover` print."""

from __future__ import annotations

from typing import Any

from bizllm.console.terminal import count, new_console
from bizllm.plain_text import plain

_SHOWN = 20
_WHAT = {
    "file": "no snapshot needs it",
    "state": "of a run that was given up",
    "upload": "an upload that never ended",
    "engine": "an engine that was chosen long ago",
}


def print_rollback(done: dict[str, Any]) -> None:
    """Which night is current now, and whose it replaced."""
    console = new_console()
    said = f"{done['table']} of {done['run_date']} is that of run {done['run_id']} again: {count(done['rows'])} rows"
    console.print(plain(f"{said}; it was that of {done['replaced']}"), soft_wrap=True)


def print_gc(done: dict[str, Any]) -> None:
    """What went, or would go, the largest first; and what was left alone."""
    console = new_console()
    would = "would be " if done["dry_run"] else ""
    for one in sorted(done["removed"], key=lambda one: -one["bytes"])[:_SHOWN]:
        console.print(plain(f"{size(one['bytes']):>9}  {one['url']}  ({_WHAT[one['what']]})"), soft_wrap=True)
    if done["files"] > _SHOWN:
        console.print(f"… and {count(done['files'] - _SHOWN)} more; --json lists all")
    for table, snapshots in done["expired"].items():
        console.print(plain(f"{table}: {count(snapshots)} snapshots {would}expired"), soft_wrap=True)
    for folder, why in done["left"].items():
        console.print(plain(f"left alone: {folder} {why}"), soft_wrap=True)
    console.print(f"{count(done['files'])} files, {size(done['bytes'])}, {would}removed")


def print_recover(done: dict[str, Any]) -> None:
    """What the catalog was told of each table; what could not be kept, and what to do for it."""
    console = new_console()
    width = max(len(one["table"]) for one in done["tables"])
    for one in done["tables"]:
        said = one["why"] or one["metadata"].rpartition("/")[2]
        console.print(plain(f"{one['what']:<10}  {one['table']:<{width}}  {said}"), soft_wrap=True)
        for url, why in one["broken"].items():
            console.print(plain(f"  not whole: {url.rpartition('/')[2]}: {why}"), soft_wrap=True)
        for night in one["aside"]:
            console.print(plain(f"  not in its history: {night['run_date']} by {night['run_id']}; run that date again"))
    if done["dry_run"]:
        console.print("nothing was changed: --dry-run")


def size(of: int) -> str:
    """Bytes for people: `1.4 MB`."""
    value, names = float(of), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(names) > 1:
        value /= 1000
        names.pop(0)
    return f"{value:.0f} B" if names[0] == "B" else f"{value:.1f} {names[0]}"
