"""How many: "12 x", "x 12", "12 pcs", "quantity 12", "a dozen", "十二个"; and a number alone, where it may be one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bizllm.methods.values import measures, numerals

_NUMBER = rf"(?:{numerals.BARE_DIGITS}|{numerals.ENGLISH}|{numerals.CHINESE})"
_QUANTITY = re.compile(
    r"(?:(?P<mark>(?<![A-Za-z0-9])[xX]|[×*]|(?<![A-Za-z])(?:qty|quantity)|数量)[ .:：]{0,3}"
    r"|(?<![A-Za-z0-9_])(?<!\d[.,]))"
    rf"(?P<number>{_NUMBER})"
    rf"(?:[ -]?(?P<unit>{measures.UNIT})|[ ]?(?P<times>[xX×*])(?![A-Za-z0-9]))?"
    r"(?:(?<![A-Za-z0-9])|(?![A-Za-z]))(?![-/:]\d)",  # 个P088 is two words, 5km is one
    re.I,
)
_NAMED = re.compile(r"(?:no|nr|po|ref|line|road|street|unit|room|flat|suite|floor|at|after|before|[#号第])\W*$", re.I)
MOST = 1_000_000.0  # more of anything is a telephone or an account number


@dataclass(frozen=True)
class Quantity:
    """A number of things at characters [start, end). strong: something beside it says that it counts. unit: canonical;
    a dozen is twelve pieces. word: the unit as it stands."""

    start: int
    end: int
    value: float
    unit: str | None
    word: str
    strong: bool


def quantities(text: str, start: int, end: int) -> Iterator[Quantity]:
    """Those in a part of a text, in order."""
    for match in _QUANTITY.finditer(text, start, end):
        said, unit = match["number"], match["unit"]
        strong = bool(match["mark"] or match["times"] or unit)
        number = numerals.value(said)
        if number is None or number > MOST:
            continue
        if not strong:
            digits = said[0].isdigit()
            if not digits and not said.isascii():
                continue  # 一 alone is a word more often than a number
            if digits and (said[0] == "0" or _NAMED.search(text, max(start, match.start() - 12), match.start())):
                continue
        canonical, each = measures.unit_of(unit) or (None, 1.0) if unit else (None, 1.0)
        yield Quantity(*match.span(), number * each, canonical, unit or "", strong)
