"""Numbers and names of texts, English and Chinese, held against what a person reads in them."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.methods.claims import holds, invented_names, invented_numbers, names, numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It costs 1,299.00, 20% off, for 3-5 people.", ["3", "5", "20", "1299"]),
        ("two-year warranty, twenty-five hours, three hundred and five parts", ["2", "25", "305"]),
        ("two thousand and twelve, or a million thanks to the one who asks", ["2012"]),
        ("model X200 on 2026-03-09", ["3", "9", "200", "2026"]),
        ("３００ｍｌ，５．５寸", ["5.5", "300"]),
        ("三百二十元，打八折，第二代，两年质保", ["2", "8", "320"]),
        ("百分之五十，一百二十八个，一万二千元，二〇二六年", ["50", "128", "2026", "12000"]),
        ("一起，万一，五金，四季，一个好锅，十分好用", []),
        ("一年质保，十分钟煮好", ["1", "10"]),
        ("1.50 and 1.5 are one number; 12,34 is not", ["1.5", "12", "34"]),
        ("", []),
    ],
)
def test_numbers_are_read_as_values(text: str, found: list[str]) -> None:
    assert sorted(numbers(text)) == [Decimal(number) for number in found]


@given(st.integers(0, 10**9))
def test_every_way_to_write_a_number_is_that_number(value: int) -> None:
    for written in (str(value), f"{value:,}", f"{value}.00", f"¥{value}元", f"about {value:,}."):
        assert numbers(written) == {Decimal(value).normalize()}


def test_a_number_is_invented_where_no_source_has_it() -> None:
    assert invented_numbers("25 litres, 3 years, 99 euros", ["25 L", "three years of warranty"]) == [Decimal(99)]
    assert invented_numbers("容量25升，质保三年，只要99元", ["25升", "质保3年"]) == [Decimal(99)]
    assert invented_numbers("no number", []) == []


def test_names_are_words_with_a_capital_and_quoted_titles() -> None:
    assert names("The Acme mill works. It is loud. Ask Jane, or IBM.") == ["Acme", "Jane", "IBM"]
    assert names("IBM makes it. Acme's lid, “Silver Line”.") == ["IBM", "Line", "Silver Line"]
    assert names("这款Philips电饭煲，《红楼梦》里也有「金陵」。") == ["Philips", "红楼梦", "金陵"]
    assert invented_names("The ACME mill from Bern", ["acme mill"]) == ["Bern"]
    assert invented_names("Philips电饭煲", ["飞利浦 PHILIPS"]) == []


def test_words_are_found_whole_in_latin_and_anywhere_in_chinese() -> None:
    assert holds("A FREE lid", "free") and not holds("freedom", "free") and not holds("carefree", "free")
    assert holds("这是最好的", "最好") and holds("买Pro版", "pro") and not holds("买Promo版", "pro")
    assert holds("100% cotton.", "100% cotton") and holds("c++ book", "C++") and not holds("anything", " ")


@pytest.mark.parametrize("piece", ["一", "1", "1,", "one ", "one" + " " * 50, "A", "《", "一 ", "百分之", "1.1."])
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    began = time.perf_counter()
    numbers(text), names(text), holds(text, "best")
    assert time.perf_counter() - began < 3
