"""Amounts of money with their currency: £1,250.50, 3k USD, RMB 500, 三百块, 两万元, 12元5角, 3块5."""

from __future__ import annotations

import re
from dataclasses import replace

from bizllm.methods.values import numerals
from bizllm.methods.values.currencies import CURRENCIES
from bizllm.methods.values.found import Found, without_overlaps

# These stand behind the number only.
_BEHIND = frozenset(["元", "块钱", "块", "塊", "圆", "円", "dollars", "dollar", "bucks", "pounds", "pound", "quid"])
_BEHIND |= {"euros", "yen"}


def _either(words: list[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


_LEFT = _either([w for w in CURRENCIES if w not in _BEHIND])
_RIGHT = _either([*CURRENCIES])
_SCALE = r"(?: ?[百千万亿]{1,2}|(?:[kKmM]|bn)(?![A-Za-z]))"
_NUMBER = rf"(?:{numerals.DIGITS}{_SCALE}?|{numerals.CHINESE}|{numerals.ENGLISH})"
_DIGIT = "[\\d一二三四五六七八九]"
_SMALL = rf"(?:(?P<jiao>{_DIGIT})角|(?P<tail>{_DIGIT})(?![\d一二三四五六七八九十百千万元块个%.]))?"
_AFTER = re.compile(rf"(?P<number>{_NUMBER})[ ]?(?P<currency>{_RIGHT})(?![A-Za-z]){_SMALL}", re.I)
_FRONT = re.compile(
    rf"(?<![A-Za-z])(?P<currency>{_LEFT})[ :：]?(?P<minus>-)?"
    rf"(?P<number>{numerals.BARE_DIGITS}{_SCALE}?|{numerals.CHINESE}(?=[元块圆]|[^\w]|$))(?:元|块|圆)?",
    re.I,
)


def amounts(text: str) -> list[Found]:
    """All amounts that name a currency; `unit` is its ISO code."""
    found = []
    for match in _AFTER.finditer(text):
        value = numerals.value(match["number"])
        if value is None or (match["number"] in "一半" and match["currency"] in "块"):
            continue  # "一块" is a piece of cake as often as a yuan
        cents = match["jiao"] or match["tail"]
        if cents and match["currency"] not in ("元", "块"):
            cents = None
        end = match.end() if cents else match.end("currency")
        value += (numerals.value(cents) or 0.0) / 10 if cents else 0.0
        found.append(Found(match.start(), end, value, 0.9, CURRENCIES[match["currency"].lower()]))
    for match in _FRONT.finditer(text):
        value = numerals.value(match["number"])
        if value is not None:
            signed = -value if match["minus"] else value
            found.append(Found(*match.span(), signed, 0.95, CURRENCIES[match["currency"].lower()]))
    return without_overlaps(found)


def bare_amounts(text: str) -> list[Found]:
    """Numbers that could be an amount although no currency stands there: for places where one is asked for."""
    taken = amounts(text)
    free = [f for f in numerals.numbers(text) if all(f.end <= a.start or f.start >= a.end for a in taken)]
    return sorted([*taken, *(replace(f, score=0.5) for f in free)], key=lambda f: f.start)
