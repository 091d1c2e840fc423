"""Spans of personal data in a text, and one reading of those that overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a text (Unicode code points), what they are, and how certain that is, in [0, 1]."""

    start: int
    end: int
    type: str
    score: float


def resolve(found: Iterable[Span], text: str) -> list[Span]:
    """Spans in order, none over another: the longest stands, then the surest, then the earliest, then by name.

    What a shorter one has outside of those that stand remains a span of its own: it was found to be personal too.
    """
    kept: list[Span] = []
    for span in sorted(set(found), key=lambda s: (s.start - s.end, -s.score, s.start, s.type)):
        kept += _outside(span, kept, text)
    return sorted(kept, key=lambda s: s.start)


def _outside(span: Span, kept: list[Span], text: str) -> list[Span]:
    """The parts of a span that no kept one covers, without what is neither letter nor digit at their ends."""
    parts = [span]
    for other in kept:
        if other.start < span.end and span.start < other.end:
            parts = [
                piece
                for part in parts
                for piece in (
                    replace(part, end=min(part.end, other.start)),
                    replace(part, start=max(part.start, other.end)),
                )
                if piece.start < piece.end
            ]
    if parts == [span]:
        return parts
    return [trimmed for part in parts if (trimmed := _trimmed(part, text)) is not None]


def _trimmed(part: Span, text: str) -> Span | None:
    start, end = part.start, part.end
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return replace(part, start=start, end=end) if start < end else None
