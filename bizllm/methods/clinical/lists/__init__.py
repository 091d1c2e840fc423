"""Words of medical notes, one pattern a line, sorted. All of them were written down for this project."""

from __future__ import annotations

from pathlib import Path


def pattern(*names: str) -> str:
    """Any of these lists' words, the longest first, so that a part never stands for the whole."""
    lines = [line for name in names for line in Path(__file__).with_name(f"{name}.txt").read_text("utf-8").splitlines()]
    return "|".join(sorted(lines, key=lambda line: (-len(line), line)))
