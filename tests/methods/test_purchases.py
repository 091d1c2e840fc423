"""Features of customers against plain Python over the same lines, and partial sums that never depend on the split."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods.purchases import Columns, Extra, combine_partials, is_partial, partials, profiles

D = date(2024, 6, 30)
COLUMNS = Columns("who", "day", "amount", "order")
EXTRAS = {
    "units": Extra("qty", "sum"),
    "usual_units": Extra("qty", "mean"),
    "largest": Extra("amount", "max"),
    "online": Extra("channel", "share", "web"),
}

lines = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.integers(-30, 800),
        st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, 1e300, 0.0, 0.1, None])),
        st.one_of(st.none(), st.integers(0, 6)),
        st.integers(0, 9),
        st.sampled_from(["web", "shop", None]),
    ),
    max_size=60,
)


def table(rows: list[tuple]) -> pa.Table:
    who, ago, amount, order, qty, channel = zip(*rows, strict=True) if rows else ([],) * 6
    return pa.table(
        {
            "who": pa.array(who, pa.int32()),
            "day": pa.array([D - timedelta(days=a) for a in ago], pa.date32()),
            "amount": pa.array(amount, pa.float64()),
            "order": pa.array([None if o is None else f"o{o}" for o in order], pa.string()),
            "qty": pa.array(qty, pa.int64()),
            "channel": pa.array(channel, pa.string()),
        }
    )


def profile(parts: pa.Table, people: int) -> dict[int, dict[str, object]]:
    parts = parts.sort_by("who")
    starts = np.searchsorted(parts["who"].to_numpy(), np.arange(people + 1))
    found, which = profiles(parts, starts, EXTRAS, D)
    return dict(zip(which.tolist(), found.to_pylist(), strict=True))


def same(one: pa.Table, other: pa.Table) -> bool:
    order = [("who", "ascending"), ("_order", "ascending"), ("_day", "ascending")]
    return one.sort_by(order).equals(other.sort_by(order))


@settings(max_examples=12, deadline=None)
@given(lines, st.lists(st.integers(0, 60), max_size=3), st.randoms(use_true_random=False))
def test_partials_do_not_depend_on_batches_or_order(rows: list[tuple], cuts: list[int], rng: object) -> None:
    whole, _ = partials(table(rows), COLUMNS, EXTRAS, D, 730)
    mixed = list(rows)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    some = [partials(table(mixed[a:b]), COLUMNS, EXTRAS, D, 730)[0] for a, b in pairwise(edges)]
    assert all(is_partial(part) for part in some)
    joined = combine_partials(pa.concat_tables(some), COLUMNS, EXTRAS)
    assert same(whole, joined)  # to the last digit: sums are exact
    left = combine_partials(pa.concat_tables(some[:2]), COLUMNS, EXTRAS)
    assert same(joined, combine_partials(pa.concat_tables([left, *some[2:]]), COLUMNS, EXTRAS))
    assert profile(whole, 5) == profile(pa.concat_tables(some), 5)


@settings(max_examples=25, deadline=None)
@given(lines)
def test_features_equal_plain_python(rows: list[tuple]) -> None:
    got = profile(partials(table(rows), COLUMNS, EXTRAS, D, 730)[0], 5)
    for who in range(5):
        mine = [r for r in rows if r[0] == who and 0 <= r[1] < 730 and r[2] is not None and abs(r[2]) < 1e18]
        orders: dict[object, list[tuple]] = defaultdict(list)
        for r in mine:
            orders[r[3] if r[3] is not None else ("day", r[1])].append(r)
        bought = [o for o in orders.values() if any(round(Decimal(r[2]), 9) > 0 for r in o)]
        if not bought:
            assert who not in got
            continue
        sales = sum(max(r[2], 0) for r in mine)
        firsts = [max(r[1] for r in o) for o in bought]  # days ago
        days = sorted(set(firsts), reverse=True)
        gaps = [a - b for a, b in pairwise(days)]
        channels = [r[5] for r in mine if r[5] is not None]
        expected = {
            "recency_days": min(firsts),
            "frequency": len(bought),
            "money": sum(r[2] for r in mine),
            "average_order": sales / len(bought),
            "tenure_days": max(firsts),
            "interval_days": statistics.mean(gaps) if gaps else None,
            "regularity": 1 / (1 + statistics.pstdev(gaps) / statistics.mean(gaps)) if len(gaps) > 1 else None,
            "return_share": min(1, -sum(min(r[2], 0) for r in mine) / sales) if sales else None,
            "units": sum(r[4] for r in mine),
            "usual_units": statistics.mean(r[4] for r in mine),
            "largest": max(r[2] for r in mine),
            "online": channels.count("web") / len(channels) if channels else None,
        }
        for name, value in expected.items():
            if name in ("average_order", "return_share") and sales < 1e-3:
                continue  # amounts below the ninth decimal
            assert got[who][name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-6)), name


def test_an_order_over_two_days_is_one_and_counts_on_its_first() -> None:
    rows = table([(0, 5, 10.0, 1, 1, None), (0, 4, 20.0, 1, 1, None), (0, 4, -5.0, 2, 1, None)])
    got = profile(partials(rows, COLUMNS, EXTRAS, D, 730)[0], 1)[0]
    assert (got["frequency"], got["recency_days"], got["money"], got["average_order"]) == (1, 5, 25.0, 30.0)
    assert got["return_share"] == pytest.approx(5 / 30)


def test_recent_share_counts_the_last_ninety_days() -> None:
    rows = table([(0, 89, 30.0, 1, 1, None), (0, 90, 70.0, 2, 1, None)])
    assert profile(partials(rows, COLUMNS, EXTRAS, D, 730)[0], 1)[0]["recent_share"] == pytest.approx(0.3)


def test_unusable_lines_are_named_and_those_outside_the_window_pass_in_silence() -> None:
    rows = pa.table(
        {
            "who": pa.array([0] * 7, pa.int32()),
            "day": pa.array([D, None, D, D, D + timedelta(days=1), D - timedelta(days=730), D], pa.date32()),
            "amount": [1.0, 2.0, None, math.nan, None, math.nan, -math.inf],
        }
    )
    parts, unusable = partials(rows, Columns("who", "day", "amount"), {}, D, 730)
    assert unusable.no_time.tolist() == [1]
    assert unusable.no_value.tolist() == [2, 3, 6]
    assert parts.select(["_day", "_sales"]).to_pylist() == [{"_day": D, "_sales": Decimal("1.000000000")}]


def test_a_day_is_one_of_utc_and_the_run_date_counts_in_full() -> None:
    stamps = [datetime(2024, 6, 30, 23, 59, 59, tzinfo=UTC), datetime(2024, 7, 1, 0, 0, tzinfo=UTC)]
    for kind in (pa.timestamp("us", tz="Asia/Shanghai"), pa.timestamp("ns", tz="UTC")):
        rows = pa.table({"who": ["a", "b"], "day": pa.array(stamps, kind), "amount": [1.0, 1.0]})
        parts, _ = partials(rows, Columns("who", "day", "amount"), {}, D, 730)
        assert parts["who"].to_pylist() == ["a"]
        assert parts["_day"].to_pylist() == [D]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.decimal128(38, 2), pa.float32()])
def test_amounts_of_every_kind_of_number(kind: pa.DataType) -> None:
    signed = not pa.types.is_unsigned_integer(kind)
    rows = pa.table({"who": ["a", "a"], "day": [D, D], "amount": pa.array([100, -100 if signed else 7]).cast(kind)})
    parts, _ = partials(rows, Columns("who", "day", "amount"), {}, D, 730)
    assert parts.select(["_sales", "_returns"]).to_pylist() == [
        {"_sales": 100 if signed else 107, "_returns": 100 if signed else 0}
    ]


def test_the_smallest_integer_is_a_return_like_any_other() -> None:
    rows = pa.table({"who": ["a"], "day": [D], "amount": pa.array([-128], pa.int8())})
    assert partials(rows, Columns("who", "day", "amount"), {}, D, 730)[0]["_returns"].to_pylist() == [128]


def test_flagged_lines_are_returns_whatever_their_sign() -> None:
    rows = pa.table(
        {"who": ["a"] * 4, "day": [D] * 4, "amount": [10.0, 4.0, -3.0, 2.0], "back": [False, True, True, None]}
    )
    parts, _ = partials(rows, Columns("who", "day", "amount", returned="back"), {}, D, 730)
    assert parts.select(["_sales", "_returns"]).to_pylist() == [{"_sales": 12, "_returns": 7}]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.int64(), pa.dictionary(pa.int32(), pa.string())])
def test_the_entity_keeps_its_type(kind: pa.DataType) -> None:
    who = pa.array(["1", "2"]).cast(kind) if kind != pa.int64() else pa.array([1, 2])
    rows = pa.table({"who": who, "day": [D, D], "amount": [1.0, 2.0]})
    parts, _ = partials(rows, Columns("who", "day", "amount"), {}, D, 730)
    assert parts.schema.field("who").type == kind
    assert combine_partials(parts, Columns("who", "day", "amount"), {}).schema == parts.schema
