"""Numbers, amounts, dates and durations in texts, held against writers of them that know nothing of the readers."""

from __future__ import annotations

import random
import time
from datetime import date, timedelta

import pytest

from bizllm.methods.values import amounts, currencies, dates, measures, numerals
from bizllm.methods.values.found import Found

WRITTEN = date(2026, 6, 30)  # a Tuesday


def said(text: str, found: list[Found]) -> list[tuple[str, object]]:
    return [(text[f.start : f.end], f.value) for f in found]


def in_chinese(n: int) -> str:
    """By the school rule: sections of four digits, 零 for gaps, 一十 shortened to 十 at the front."""
    places, digits = ["", "十", "百", "千"], "零一二三四五六七八九"

    def section(part: int) -> str:
        text, gap = "", False
        for place in (3, 2, 1, 0):
            digit = part // 10**place % 10
            if digit:
                text += ("零" if gap and text else "") + digits[digit] + places[place]
                gap = False
            else:
                gap = True
        return text

    high, low = divmod(n, 10_000)
    text = (section(high) + "万" if high else "") + (("零" if high and 0 < low < 1_000 else "") + section(low))
    return text.removeprefix("一") if text.startswith("一十") else text


def in_english(n: int) -> str:
    small = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    if n < 20:
        return small[n]
    if n < 100:
        return tens[n // 10] + (f"-{small[n % 10]}" if n % 10 else "")
    if n < 1_000:
        return f"{small[n // 100]} hundred" + (f" and {in_english(n % 100)}" if n % 100 else "")
    return f"{in_english(n // 1_000)} thousand" + (f" {in_english(n % 1_000)}" if n % 1_000 else "")


def test_numerals_are_read_as_they_are_written() -> None:
    rng = random.Random(1)
    for n in [*range(1, 300), *(rng.randrange(1, 99_999_999) for _ in range(500))]:
        assert numerals.chinese(in_chinese(n)) == n, in_chinese(n)
        if n < 1_000_000:
            assert numerals.english(in_english(n)) == n, in_english(n)
            assert numerals.value(f"{n:,}") == numerals.value(f"{n:,}.00") == numerals.value(str(n)) == n
        assert numerals.value(f"{n:,}.25".translate(str.maketrans(",.", ".,"))) == n + 0.25


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("两万五", 25_000),
        ("三百五", 350),
        ("三百零五", 305),
        ("一点五", 1.5),
        ("二〇二六", 2026),
        ("半", 0.5),
        ("壹佰贰拾", 120),
        ("一亿二千万", 120_000_000),
        ("half a dozen", 6),
        ("two dozen", 24),
        ("a hundred and five", 105),
        ("1.5万", 15_000),
        ("3万5", 35_000),
        ("3k", 3_000),
        ("39,5", 39.5),
        ("1,250", 1_250),
        ("1.250,50", 1_250.5),
        ("万", None),
        ("三四", 34),
        ("two three", None),
        ("kettle", None),
        ("", None),
    ],
)
def test_forms_that_people_use(text: str, value: float | None) -> None:
    assert numerals.value(text) == value


def test_numbers_in_sentences() -> None:
    text = "P001 and v2: take twenty-five and two dozen, -5 or 1,250.50; 我们一起买三个和二十五，十分好"
    assert said(text, numerals.numbers(text)) == [
        ("twenty-five", 25),
        ("two dozen", 24),
        ("-5", -5),
        ("1,250.50", 1250.5),
        ("三", 3),
        ("二十五", 25),
    ]


def test_amounts() -> None:
    text = "£1,250.50 or 3k USD, RMB 500, 三百块, 两万元, 12元5角, 3块5, €39,95, $1.25m, ￥88元, "
    text += "two hundred pounds, HK$ 20"
    assert [(f.value, f.unit) for f in amounts.amounts(text)] == [
        (1250.5, "GBP"),
        (3000.0, "USD"),
        (500.0, "CNY"),
        (300.0, "CNY"),
        (20_000.0, "CNY"),
        (12.5, "CNY"),
        (3.5, "CNY"),
        (39.95, "EUR"),
        (1_250_000.0, "USD"),
        (88.0, "CNY"),
        (200.0, "GBP"),
        (20.0, "HKD"),
    ]
    assert amounts.amounts("12 boxes, 一块蛋糕, room 5") == []
    assert [f.value for f in amounts.bare_amounts("39.00 and £5")] == [39.0, 5.0]
    assert currencies.currency("美元") == "USD" and currencies.currency("x") is None


FORMATS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%d %B %Y",
    "%B %d, %Y",
    "%b %d %Y",
    "%a %d %b %Y",
    "%d-%b-%Y",
]


def test_dates_are_read_as_they_are_written() -> None:
    for step in range(0, 800, 3):
        day = date(2025, 12, 1) + timedelta(step)
        chinese = f"{in_chinese(day.month)}月{in_chinese(day.day)}日"
        forms = [day.strftime(form) for form in FORMATS]
        forms += [f"{day.year}年{day.month}月{day.day}日", f"{day.year}年{chinese}"]
        for form in forms:
            (found,) = dates.dates(f"by {form}.", None)
            assert found.value == day, form
        american = day.strftime("%m/%d/%Y")
        assert [f.value for f in dates.dates(american, None, day_first=False)] == [day]
        near = WRITTEN + timedelta(step % 180)
        assert [f.value for f in dates.dates(f"{near.month}月{near.day}号", WRITTEN)] == [near]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("tomorrow", date(2026, 7, 1)),
        ("the day after tomorrow", date(2026, 7, 2)),
        ("Friday", date(2026, 7, 3)),
        ("next Friday", date(2026, 7, 10)),
        ("last Monday", date(2026, 6, 22)),
        ("in three days", date(2026, 7, 3)),
        ("in a month", date(2026, 7, 30)),
        ("2 weeks ago", date(2026, 6, 16)),
        ("the end of next month", date(2026, 7, 31)),
        ("明天", date(2026, 7, 1)),
        ("大后天", date(2026, 7, 3)),
        ("周五", date(2026, 7, 3)),
        ("下周五", date(2026, 7, 10)),
        ("下下周一", date(2026, 7, 13)),
        ("上周日", date(2026, 6, 28)),
        ("三天后", date(2026, 7, 3)),
        ("下个月5号", date(2026, 7, 5)),
        ("月底", date(2026, 6, 30)),
        ("明年1月5日", date(2027, 1, 5)),
        ("14 May", date(2026, 5, 14)),
        ("2 January", date(2026, 1, 2)),
    ],
)
def test_dates_told_from_another_day(text: str, day: date) -> None:
    assert said(text, dates.dates(text, WRITTEN)) == [(text, day)]
    assert dates.dates(text, None) == [], "nothing is guessed without a day to count from"


@pytest.mark.parametrize(
    "text", ["2.3.1", "10.0.0.12", "you may 3 times", "31/02/2026", "13/13/2026", "SKU-2026-07", "周到"]
)
def test_what_is_no_date(text: str) -> None:
    assert dates.dates(text, WRITTEN) == []


def test_a_day_that_may_be_a_month_is_less_sure() -> None:
    (either,), (clear,) = dates.dates("03/07/2026", None), dates.dates("13/07/2026", None)
    assert either.score < clear.score


def test_percentages_and_durations() -> None:
    text = "5 %, -3.5%, 百分之二十, twenty percent"
    assert [f.value for f in measures.percents(text)] == [5, -3.5, 20, 20]
    text = "3-5 working days, two weeks, 48小时, 三个月, 一年半, 两个半小时, 2026年, 三天后"
    assert [round(f.value, 6) for f in measures.durations(text)] == [5, 14, 2, 90, 547.5, round(2.5 / 24, 6)]
    assert measures.unit_of("Dozen") == ("piece", 12.0) and measures.unit_of("箱") == ("box", 1.0)
    assert measures.unit_of("kettle") is None


@pytest.mark.parametrize(
    "text", ["1" * 20_000, "一" * 20_000, "1,111" * 4_000, "two " * 5_000, "$" * 20_000, "1/" * 10_000]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    for read in (numerals.numbers, amounts.amounts, measures.percents, measures.durations):
        read(text)
    dates.dates(text, WRITTEN)
    assert time.process_time() - began < 4
