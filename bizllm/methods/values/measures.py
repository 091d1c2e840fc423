"""Percentages, durations in days, and quantities with what is counted: 5 %, two weeks, 48小时, 3-5 days, 3箱."""

from __future__ import annotations

import re

from bizllm.methods.values import numerals
from bizllm.methods.values.found import Found, without_overlaps

_NUMBER = rf"(?:{numerals.DIGITS}|{numerals.ENGLISH}|{numerals.CHINESE})"
_PERCENT = re.compile(
    rf"(?P<number>-?{_NUMBER})(?: ?%| ?percent(?![A-Za-z])| per ?cent(?![A-Za-z])|个百分点)"
    rf"|百分之(?P<zh>{numerals.DIGITS}|{numerals.CHINESE})",
    re.I,
)

DAYS_PER_MONTH, DAYS_PER_YEAR = 30.0, 365.0
_PERIODS = {
    "seconds|second|secs|sec|秒钟|秒": 1 / 86_400,
    "minutes|minute|mins|min|分钟": 1 / 1_440,
    "hours|hour|hrs|hr|个小时|小时|个钟头|钟头": 1 / 24,
    "business days|business day|working days|working day|days|day|个工作日|工作日|天": 1.0,
    "weeks|week|wks|wk|个星期|星期|个礼拜|礼拜|周": 7.0,
    "months|month|个月": DAYS_PER_MONTH,
    "years|year|yrs|yr|年": DAYS_PER_YEAR,
}
_LENGTH = {word: days for words, days in _PERIODS.items() for word in words.split("|")}
_PERIOD = "|".join(sorted(_LENGTH, key=len, reverse=True))
_DURATION = re.compile(
    rf"(?:(?P<from>{_NUMBER})(?: ?(?:-|~|～|to|至|到) ?))?(?P<number>{_NUMBER})[ -]?"
    rf"(?P<half>个半)?(?P<unit>{_PERIOD})(?P<more>半)?"
    rf"(?![A-Za-z])(?!前|后|以前|以后|之后)",
    re.I,
)

# What things are counted in: a canonical word, and how many of its things it is.
_UNITS = {
    (
        "piece",
        1.0,
    ): "pieces|piece|pcs|pc|units|unit|each|ea|个|件|只|台|把|张|条|盏|瓶|本|块|口|床|辆|支|枝|根|部|顶|盒",
    ("set", 1.0): "sets|set|kits|kit|套",
    ("pair", 1.0): "pairs|pair|prs|pr|双|对|副",
    ("box", 1.0): "boxes|box|cartons|carton|ctns|ctn|cases|case|箱",
    ("bag", 1.0): "bags|bag|packs|pack|packets|packet|pkts|pkt|包|袋",
    ("piece", 12.0): "dozen|dozens|doz|dz|打",
    ("roll", 1.0): "rolls|roll|卷",
    ("pallet", 1.0): "pallets|pallet|托",
    ("kilogram", 1.0): "kilograms|kilogram|kilos|kilo|kg|公斤|千克",
    ("kilogram", 0.5): "斤",
    ("gram", 1.0): "grams|gram|g|克",
    ("tonne", 1.0): "tonnes|tonne|tons|ton|吨",
    ("litre", 1.0): "litres|litre|liters|liter|l|升",
    ("metre", 1.0): "metres|metre|meters|meter|m|米",
}
UNITS = {word: of for of, words in _UNITS.items() for word in words.split("|")}
UNIT = "|".join(re.escape(u) for u in sorted(UNITS, key=len, reverse=True))


def unit_of(word: str) -> tuple[str, float] | None:
    """(the canonical unit, how many of it one is); None for what is no unit."""
    return UNITS.get(word.strip().lower().rstrip("."))


def percents(text: str) -> list[Found]:
    """Percentages; 5 % is 5."""
    found = []
    for match in _PERCENT.finditer(text):
        said = match["number"] or match["zh"]
        value = numerals.value(said.lstrip("-"))
        if value is not None:
            found.append(Found(*match.span(), -value if said.startswith("-") else value, 0.95))
    return without_overlaps(found)


def durations(text: str) -> list[Found]:
    """Durations in days; of "3-5 days" the longer one. A month has 30 days, a year 365."""
    found = []
    for match in _DURATION.finditer(text):
        value = numerals.value(match["number"])
        if value is None or (match["unit"] == "年" and value > 200):
            continue  # 2026年 is a year, not so many of them
        value += 0.5 if match["half"] or match["more"] else 0.0
        found.append(Found(*match.span(), value * _LENGTH[match["unit"].lower()], 0.85))
    return without_overlaps(found)
