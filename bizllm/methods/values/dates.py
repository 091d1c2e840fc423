"""Dates as people write them: 2026-07-03, 3rd July, July 3, 03/07/26, 7月3日, 二〇二六年七月三日; and those that are
told from another day: tomorrow, next Friday, in three days, 后天, 下周五, 三天后, 月底.

"Friday" and 周五 are the next such day, from the day on which it is said; "next Friday" and 下周五 that of the next
calendar week, which begins on Monday. A day without a year is the one nearest to that day.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta

from bizllm.methods.values import numerals
from bizllm.methods.values.found import Found, without_overlaps

_MONTHS = [m.lower() for m in calendar.month_name[1:]]
_MONTH = rf"(?:{'|'.join(f'{m[:3]}(?:{m[3:]})?' if len(m) > 3 else m for m in _MONTHS)}|sept)\.?"
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_LONG, _SHORT = "|".join(_DAYS), "|".join(day[:3] for day in _DAYS)
_DAY = rf"(?:{_LONG}|{_SHORT}|tues|weds?|thurs?)"
_ZH_NUMBER = "[〇零一二三四五六七八九十两]"
_ZH_DAYS = {"一": 0, "二": 1, "三": 2, "四": 3, "五": 4, "六": 5, "日": 6, "天": 6, "末": 5}
_ZH_DAYS |= {str(i + 1): i for i in range(7)}
_LEAD = rf"(?:(?:{_DAY}),? )?"  # "Fri 3 July": the weekday adds nothing
_EDGE, _STOP = r"(?<![A-Za-z0-9_./-])", r"(?![A-Za-z0-9_]|[-/.]\d)"
_SAID = rf"(?:\d{{1,3}}|an?|{numerals.ENGLISH})"

Anchor = date | None
Read = Callable[[re.Match[str], Anchor, bool], date | None]


def dates(text: str, anchor: date | None, day_first: bool = True) -> list[Found]:
    """All dates, in order. anchor: the day on which the text was written; without it dates that are told from it, or
    that lack their year, are left out. day_first: 03/07 is the third of July."""
    found = []
    for pattern, read, score in _RULES:
        for match in pattern.finditer(text):
            day = read(match, anchor, day_first)
            if day is not None:
                found.append(Found(*match.span(), day, _surely(match, score)))
    return without_overlaps(found)


def _surely(match: re.Match[str], score: float) -> float:
    """03/07/26 may be meant either way; 13/07/26 may not."""
    groups = match.groupdict()
    if groups.get("one") and int(groups["one"]) <= 12 and int(groups["two"]) <= 12 and groups["one"] != groups["two"]:
        return score - 0.25
    return score


def _made(year: int, month: int, day: int) -> date | None:
    try:
        return date(year + 2000 if year < 100 else year, month, day)
    except ValueError:
        return None


def _nearest(anchor: Anchor, month: int, day: int) -> date | None:
    """The day without a year that is nearest to the anchor."""
    if anchor is None:
        return None
    near = [found for year in (-1, 0, 1) if (found := _made(anchor.year + year, month, day)) is not None]
    return min(near, key=lambda found: (abs((found - anchor).days), found), default=None)


def _year(said: str | None, anchor: Anchor, month: int, day: int) -> date | None:
    return _made(int(said), month, day) if said else _nearest(anchor, month, day)


def _iso(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    return _made(int(m["y"]), int(m["m"]), int(m["d"]))


def _slashed(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    one, two = int(m["one"]), int(m["two"])
    for month, day in ((two, one), (one, two)) if first else ((one, two), (two, one)):
        if month <= 12 and (found := _year(m["y"], anchor, month, day)) is not None:
            return found
    return None


def _named(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    if m["month"] == "may":  # "you may 3 times"
        return None
    month = next(i for i, name in enumerate(_MONTHS, 1) if name.startswith(m["month"].lower()[:3]))
    return _year(m["y"], anchor, month, int(m["d"]))


def _zh(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    day = _zh_int(m["d"])
    if m["m"]:
        year = m["y"]
        if year and year[0] in "今明去":
            return _made(anchor.year + "去今明".index(year[0]) - 1, _zh_int(m["m"]), day) if anchor else None
        return _year(str(_zh_int(year)) if year else None, anchor, _zh_int(m["m"]), day)
    if anchor is None:
        return None
    months = {"上": -1, "下": 1}.get((m["which"] or "")[:1], 0)
    at = anchor.year * 12 + anchor.month - 1 + months
    return _made(at // 12, at % 12 + 1, day)


def _zh_int(said: str) -> int:
    return int(said) if said.isascii() else int(numerals.chinese(said) or 0)


_WORDS = {"today": 0, "tonight": 0, "tomorrow": 1, "the day after tomorrow": 2, "yesterday": -1}
_WORDS |= {
    "今天": 0,
    "今日": 0,
    "今晚": 0,
    "明天": 1,
    "明日": 1,
    "明早": 1,
    "后天": 2,
    "大后天": 3,
    "昨天": -1,
    "前天": -2,
}


def _told(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    return anchor + timedelta(_WORDS[" ".join(m[0].lower().split())]) if anchor else None


def _weekday(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    at = next(i for i, name in enumerate(_DAYS) if name.startswith(m["day"].lower()[:3]))
    which = (m["which"] or "").lower()
    weeks = 1 if which.startswith("next") else -1 if which.startswith("last") else None
    return _of_week(anchor, at, weeks)


def _zh_weekday(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    which = m["which"] or ""
    weeks = which.count("下") - which.count("上") if which else None
    return _of_week(anchor, _ZH_DAYS[m["day"]], weeks)


def _of_week(anchor: Anchor, weekday: int, weeks: int | None) -> date | None:
    """weeks: calendar weeks from this one on; None: the next such day, the anchor among them."""
    if anchor is None:
        return None
    days = weekday - anchor.weekday()
    return anchor + timedelta(days % 7 if weeks is None else days + 7 * weeks)


def _away(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    count = 1.0 if m["count"].lower() in ("a", "an") else numerals.value(m["count"])
    if anchor is None or count is None or count > 3_660:
        return None
    unit = m["unit"].lower()
    count = -count if m["ago"] else count
    if unit.startswith(("month", "个月", "月")):
        at = anchor.year * 12 + anchor.month - 1 + int(count)
        last = calendar.monthrange(at // 12, at % 12 + 1)[1] if at // 12 in range(1, 9999) else 0
        return _made(at // 12, at % 12 + 1, min(anchor.day, last)) if last else None
    return anchor + timedelta(int(count * (7 if unit.startswith(("week", "周", "星期", "个星期", "礼拜")) else 1)))


def _month_end(m: re.Match[str], anchor: Anchor, first: bool) -> date | None:
    if anchor is None:
        return None
    months = 1 if "next" in m[0].lower() or "下" in m[0] else 0
    at = anchor.year * 12 + anchor.month - 1 + months
    return date(at // 12, at % 12 + 1, calendar.monthrange(at // 12, at % 12 + 1)[1])


def _rules() -> Iterator[tuple[re.Pattern[str], Read, float]]:
    def rule(pattern: str, read: Read, score: float) -> tuple[re.Pattern[str], Read, float]:
        return re.compile(pattern, re.I), read, score

    year, month, zh = r"(?P<y>(?:19|20)\d\d)", f"(?P<month>{_MONTH})", f"{_ZH_NUMBER}{{1,3}}"
    short, day = r"(?P<y>(?:19|20)?\d\d)", r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
    yield rule(
        rf"{_EDGE}{year}(?P<s>[-/.])(?P<m>\d{{1,2}})(?P=s)(?P<d>\d{{1,2}})(?:(?=T\d)|{_STOP})",
        _iso,
        0.95,
    )
    yield rule(
        rf"{_EDGE}{_LEAD}(?P<one>\d{{1,2}})(?P<s>[-/.])(?P<two>\d{{1,2}})(?P=s){short}{_STOP}",
        _slashed,
        0.9,
    )
    yield rule(rf"{_EDGE}(?P<one>\d{{1,2}})/(?P<two>\d{{1,2}})(?P<y>){_STOP}(?!%)", _slashed, 0.65)
    yield rule(
        rf"{_EDGE}{_LEAD}{day}(?: of)?[ -]?{month}(?:,?[ -]?{year}(?!\d))?(?![A-Za-z])",
        _named,
        0.9,
    )
    yield rule(
        rf"(?<![A-Za-z]){_LEAD}{month}[ -]?{day}(?:,? ?{year})?(?![A-Za-z0-9]|[.:]\d)",
        _named,
        0.9,
    )
    yield rule(
        rf"(?:(?P<y>(?:19|20)\d\d|[〇零一二三四五六七八九]{{4}}|[今明去]年)年? ?)?"
        rf"(?P<m>\d{{1,2}}|{zh}) ?月 ?(?:份)?(?P<d>\d{{1,2}}|{zh}) ?[日号]",
        _zh,
        0.95,
    )
    yield rule(rf"(?P<m>)(?P<y>)(?P<which>这个?月|本月|下个?月|上个?月)(?P<d>\d{{1,2}}|{zh})[日号]", _zh, 0.9)
    words = "|".join(sorted((w.replace(" ", r"\s+") for w in _WORDS), key=len, reverse=True))
    yield rule(rf"(?<![A-Za-z大])(?:{words})(?![A-Za-z])", _told, 0.85)
    yield rule(
        r"(?<![A-Za-z])(?:(?P<which>next|this|coming|last|on|by|before) +)?"
        rf"(?P<day>{_LONG}|(?:(?<=next )|(?<=this ))(?:{_SHORT}))(?![A-Za-z])",
        _weekday,
        0.8,
    )
    yield rule(
        r"(?P<which>下下个?|下个?|上上个?|上个?|这个?|本)?(?:周|星期|礼拜)(?P<day>[一二三四五六日天末1-7])"
        r"(?![\d月年天])",
        _zh_weekday,
        0.85,
    )
    yield rule(
        rf"(?<![A-Za-z])in +(?P<count>{_SAID}) +(?P<unit>days?|weeks?|months?)(?P<ago>)(?![A-Za-z])",
        _away,
        0.8,
    )
    yield rule(
        rf"(?<![A-Za-z0-9])(?P<count>{_SAID}) +(?P<unit>days?|weeks?|months?) +(?:(?P<ago>ago)|from (?:now|today))"
        r"(?![A-Za-z])",
        _away,
        0.8,
    )
    yield rule(
        rf"(?P<count>\d{{1,3}}|{numerals.CHINESE}) ?(?P<unit>天|日|周|个?星期|个?礼拜|个月)"
        r"(?:(?P<ago>以?前)|之?后|以后|之内|以内|内)",
        _away,
        0.8,
    )
    yield rule(r"(?:the )?end of (?:the|this|next) month|[这本下]个?月底|月底", _month_end, 0.75)


_RULES = [*_rules()]
