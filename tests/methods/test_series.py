"""Periods against pandas, aggregation against any split of the rows, gaps by hand."""

from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bizllm.methods.series import Calendar, aggregate, histories

PANDAS = {"D": "D", "W": "W-SUN", "M": "M", "Q": "Q", "Y": "Y", "H": "h"}
MOMENTS = st.datetimes(datetime(1930, 1, 1), datetime(2090, 1, 1))


@settings(deadline=None)
@given(st.sampled_from(sorted(PANDAS)), st.lists(MOMENTS, min_size=1, max_size=20))
@example("D", [datetime(1969, 1, 1, 23, 59, 59, 1)])
def test_a_period_bears_its_first_day(unit: str, times: list[datetime]) -> None:
    calendar = Calendar(unit)  # type: ignore[arg-type]
    periods, known = calendar.periods(pa.chunked_array([pa.array(times, pa.timestamp("us"))]))
    starts = calendar.starts(periods).to_pylist()
    expected = [pd.Timestamp(t).to_period(PANDAS[unit]).start_time for t in times]
    assert [pd.Timestamp(s) for s in starts] == expected
    assert known.all()


@settings(deadline=None)
@given(st.sampled_from(["D", "W", "M", "Q", "Y"]), st.dates(date(1990, 1, 1), date(2090, 1, 1)))
def test_the_last_complete_period_has_ended_and_the_next_has_not(unit: str, run_date: date) -> None:
    calendar = Calendar(unit)  # type: ignore[arg-type]
    last = calendar.last_complete(run_date)
    _, end, after = calendar.starts(np.array([last, last + 1, last + 2])).to_pylist()
    assert end <= date.fromordinal(run_date.toordinal() + 1) < after


def test_the_last_complete_week_and_month() -> None:
    def start(calendar: Calendar, day: date) -> date:
        return calendar.starts(np.array([calendar.last_complete(day)]))[0].as_py()

    assert start(Calendar("W"), date(2024, 6, 9)) == date(2024, 6, 3)  # a Sunday: its week is over
    assert start(Calendar("W"), date(2024, 6, 8)) == date(2024, 5, 27)
    assert start(Calendar("W", week_start=6), date(2024, 6, 8)) == date(2024, 6, 2)  # Sunday to Saturday
    assert start(Calendar("M"), date(2024, 2, 29)) == date(2024, 2, 1)
    assert start(Calendar("M"), date(2024, 2, 28)) == date(2024, 1, 1)
    assert start(Calendar("Q"), date(2024, 12, 31)) == date(2024, 10, 1)
    assert start(Calendar("H"), date(2024, 2, 29)) == datetime(2024, 2, 29, 23)


def test_days_are_of_the_rows_own_time_zone() -> None:
    times = pa.chunked_array(
        [pa.array([datetime(2024, 6, 9, 17)], pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Asia/Shanghai"))]
    )
    calendar = Calendar("D", zone="Asia/Shanghai")
    assert calendar.starts(calendar.periods(times)[0])[0].as_py() == date(2024, 6, 10)


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(-50, 50), st.integers(0, 5)),
    min_size=1,
    max_size=40,
)


def _table(rows: list[tuple[str, int, int, int]], how: str) -> pa.Table:
    k, p, v, t = zip(*rows, strict=True)
    v = [1] * len(rows) if how == "count" else v
    weight = t if how == "last" else [1] * len(rows)
    return pa.table(
        {
            "k": k,
            "__period": pa.array(p, pa.int64()),
            "__value": pa.array(v, pa.float64()),
            "__weight": pa.array(weight, pa.int64()),
        }
    )


@settings(deadline=None)
@given(ROWS, st.integers(0, 40), st.sampled_from(["sum", "mean", "max", "min", "last", "count"]), st.randoms())
def test_any_split_and_order_of_the_rows_aggregates_the_same(rows, cut, how, random) -> None:  # type: ignore[no-untyped-def]
    whole = aggregate(_table(rows, how), ["k"], how)
    shuffled = random.sample(rows, len(rows))
    parts = [aggregate(_table(part, how), ["k"], how) for part in (shuffled[:cut], shuffled[cut:]) if part]
    again = aggregate(pa.concat_tables(parts), ["k"], how)
    order = [("k", "ascending"), ("__period", "ascending")]
    assert again.sort_by(order).to_pylist() == whole.sort_by(order).to_pylist()
    # What is merged while a group is gathered is the same again, against pandas.
    frame = pd.DataFrame(rows, columns=["k", "p", "v", "t"]).sort_values(["t", "v"])
    for key, group in frame.groupby("k"):
        part = pa.concat_tables(parts).filter(pa.array([k == key for p in parts for k in p["k"].to_pylist()]))
        (history,) = histories(part, np.array([0, len(part)]), how, "zero", "D", 3)
        grouped = group.groupby("p").v.agg(how)
        expected = grouped.reindex(range(group.p.min(), 4), fill_value=0).to_numpy()
        assert history.values == pytest.approx(expected)


def _history(fill: str, last: int = 9) -> tuple[list[float], int]:
    rows = pa.table({"__period": [3, 7, 5], "__value": [1.0, 5.0, 9.0], "__weight": [1, 1, 1]})
    (history,) = histories(rows, np.array([0, 3]), "sum", fill, "D", last)  # type: ignore[arg-type]
    return history.values.tolist(), history.last


def test_gaps() -> None:
    assert _history("zero") == ([1, 0, 9, 0, 5, 0, 0], 9)
    assert _history("forward") == ([1, 1, 9, 9, 5, 5, 5], 9)
    assert _history("missing") == ([1, 5, 9, 7, 5], 7)


def test_nothing_after_the_last_period_is_seen() -> None:
    assert _history("zero", last=5) == ([1, 0, 9], 5)
    assert _history("zero", last=2) == ([], 2)


def test_one_mistyped_year_costs_no_memory() -> None:
    rows = pa.table({"__period": [-700_000, 0], "__value": [1.0, 2.0], "__weight": [1, 1]})
    (history,) = histories(rows, np.array([0, 2]), "sum", "zero", "D", 0)
    assert history.values.tolist() == [2.0]
