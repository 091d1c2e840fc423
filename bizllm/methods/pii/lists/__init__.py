"""Word lists, one a file: a comment, then words between spaces or commas. All of them were written for this project."""

from __future__ import annotations

from pathlib import Path


def listed(name: str, separator: str | None = None) -> list[str]:
    """The words of a list, in its order."""
    lines = Path(__file__).with_name(f"{name}.txt").read_text("utf-8").splitlines()
    text = " ".join(line for line in lines if not line.startswith("#"))
    return [word.strip() for word in text.split(separator) if word.strip()]
