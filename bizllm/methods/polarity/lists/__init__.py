"""Word lists in sections: comments, `[section]`, then entries between commas. All were written for this project."""

from __future__ import annotations

from pathlib import Path


def sections(name: str) -> dict[str, list[str]]:
    """The entries of each section of a list, in its order."""
    found: dict[str, list[str]] = {}
    entries: list[str] = []
    for line in Path(__file__).with_name(f"{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        if line.startswith("["):
            entries = found.setdefault(line.strip("[] "), [])
            continue
        entries += [entry.strip() for entry in line.split(",") if entry.strip()]
    return found
