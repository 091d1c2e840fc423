"""What a reader of values finds."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Found:
    """A value at characters [start, end). unit: a currency's code, say. score: how sure its form alone is, 0 to 1."""

    start: int
    end: int
    value: Any
    score: float
    unit: str | None = None


def without_overlaps(found: Iterable[Found]) -> list[Found]:
    """In order; of two that share characters the longer, then the surer, then the first."""
    taken: list[tuple[int, int]] = []
    kept = []
    for one in sorted(found, key=lambda f: (f.start - f.end, -f.score, f.start)):
        at = bisect(taken, (one.start, one.end))
        before = at > 0 and taken[at - 1][1] > one.start
        if not before and (at == len(taken) or taken[at][0] >= one.end):
            insort(taken, (one.start, one.end))
            kept.append(one)
    return sorted(kept, key=lambda f: f.start)
