"""An order line, and one that is not read to its end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Protocol, TypeVar

from bizllm.methods.orders.catalogue import NOTHING, Match
from bizllm.methods.orders.layout import Cell
from bizllm.methods.orders.quantities import Quantity
from bizllm.methods.terms import Found as Mention
from bizllm.methods.values.found import Found


class Spanned(Protocol):
    """What stands at characters [start, end)."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


S = TypeVar("S", bound=Spanned)


@dataclass(frozen=True)
class OrderLine:
    """An article that is asked for, at characters [start, end). match: what its words mean. quantity, unit, price (of
    one), amount and currency: as stated; None where they are not."""

    start: int
    end: int
    match: Match
    quantity: float | None = None
    unit: str | None = None
    price: float | None = None
    amount: float | None = None
    currency: str | None = None


@dataclass
class Draft:
    """A line while it is read. sure: what it stands in says that something is ordered here."""

    start: int = -1
    end: int = -1
    words: list[str] = field(default_factory=list)
    match: Match = NOTHING
    quantity: Quantity | None = None
    unit: str | None = None
    price: Found | None = None
    amount: Found | None = None
    sure: bool = False

    def reach(self, start: int, end: int) -> None:
        self.start = start if self.start < 0 else min(self.start, start)
        self.end = max(self.end, end)


def apart(found: Sequence[Found], taken: Sequence[Mention]) -> list[Found]:
    """Those that share no character with what is taken; both in order."""
    kept = []
    for one in found:
        at = bisect_left(taken, one.start, key=lambda span: span.end - 1)
        if at == len(taken) or taken[at].start >= one.end:
            kept.append(one)
    return kept


def inside(spans: Sequence[S], part: Cell) -> list[S]:
    """Those that lie in a part of the mail; in order, none over another."""
    first = bisect_left(spans, part.start, key=lambda span: span.start)
    return list(takewhile(lambda span: span.end <= part.end, islice(spans, first, None)))
