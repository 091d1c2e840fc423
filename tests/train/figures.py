"""What a training wrote of itself."""

from __future__ import annotations

import json
from pathlib import Path


def figures(folder: Path, name: str = "loss", split: str = "train") -> list[float]:
    """A figure of every step (or validation), in the order they were written."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if line["split"] == split]
