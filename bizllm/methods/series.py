"""From rows to regular series: calendar periods, aggregation that can be done early, gaps.

A period is an integer that counts from 1970: hours, days, weeks, months, quarters or years. What a period is called in
a table is its first day (or hour).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Unit = Literal["H", "D", "W", "M", "Q", "Y"]
Aggregate = Literal["sum", "mean", "max", "min", "last", "count"]
Fill = Literal["zero", "missing", "forward"]

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
FREQUENCIES: dict[str, Unit] = {
    "H": "H", "h": "H", "D": "D", "W": "W", "M": "M", "MS": "M", "Q": "Q", "QS": "Q", "Y": "Y", "YS": "Y",
}  # fmt: skip
# Periods in a season; periods of history that are kept, so that one mistyped year costs no memory; and periods of a
# longer season in whole short ones (weekdays of last year, hours of last week).
SEASONS: dict[Unit, int] = {"H": 24, "D": 7, "W": 52, "M": 12, "Q": 4, "Y": 1}
MOST_PERIODS: dict[Unit, int] = {"H": 24 * 7 * 9, "D": 1100, "W": 520, "M": 360, "Q": 160, "Y": 100}
LONG_SEASONS: dict[Unit, int] = {"H": 168, "D": 364}
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True)
class Calendar:
    """Periods of one frequency. `zone` is the time zone of the rows' timestamps, None where they have none."""

    unit: Unit
    week_start: int = 0  # 0 is Monday
    zone: str | None = None

    def periods(self, times: pa.ChunkedArray) -> tuple[Whole, npt.NDArray[np.bool_]]:
        """(period of each time, whether there is a time at all); days and longer are of the zone's wall clock."""
        known = times.is_valid().to_numpy()
        if pa.types.is_date(times.type):
            days = _integers(times.cast(pa.date32()).cast(pa.int32()))
            return (days * 24 if self.unit == "H" else self._of_days(days)), known
        if self.zone is not None and self.unit != "H":
            times = pc.local_timestamp(times)
        # Not by a cast to seconds, which takes a part of a second before 1970 to the second after it.
        seconds = _integers(times.cast(pa.int64())) // _PER_SECOND[times.type.unit]
        return (seconds // 3600 if self.unit == "H" else self._of_days(seconds // 86400)), known

    def last_complete(self, run_date: date) -> int:
        """The last period that has ended when the run date is over."""
        midnight = datetime.combine(run_date + timedelta(days=1), time(), ZoneInfo(self.zone) if self.zone else UTC)
        if self.unit == "H":
            return int(midnight.timestamp()) // 3600 - 1
        return int(self._of_days(np.array([(run_date - date(1970, 1, 1)).days + 1]))[0]) - 1

    def starts(self, periods: Whole) -> pa.Array:
        """(n,) the first day of each period, date32; for hours the hour, timestamp[us] in the rows' zone."""
        if self.unit == "H":
            return pa.array(periods * 3_600_000_000, pa.int64()).cast(pa.timestamp("us", self.zone))
        return pa.array(self._first_day(periods).astype(np.int32), pa.int32()).cast(pa.date32())

    def _of_days(self, days: Whole) -> Whole:
        if self.unit == "D":
            return days
        if self.unit == "W":
            return (days + 3 - self.week_start) // 7  # 1970-01-01 was a Thursday
        months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        return np.asarray(months // {"M": 1, "Q": 3, "Y": 12}[self.unit])

    def _first_day(self, periods: Whole) -> Whole:
        if self.unit == "D":
            return periods
        if self.unit == "W":
            return periods * 7 - 3 + self.week_start
        months = periods * {"M": 1, "Q": 3, "Y": 12}[self.unit]
        return np.asarray(months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64))


def aggregate(rows: pa.Table, by: Sequence[str], how: Aggregate) -> pa.Table:
    """Rows of `by`, `__period`, `__value` double and `__weight` int64 → one row for each series and period.

    Doing it twice is doing it once, and in any split of the rows, but for the last bits of sums. `__weight` is the
    number of rows for `mean`, and for `last` the time of the value; among values of one time the largest is last.
    One thread, so that sums come out the same every night.
    """
    keys = [*by, "__period"]
    if how == "last":
        rows = rows.sort_by([("__weight", "ascending"), ("__value", "ascending")])
    value, weight = {"last": ("last", "max"), "max": ("max", "sum"), "min": ("min", "sum")}.get(how, ("sum", "sum"))
    grouped = rows.group_by(keys, use_threads=False).aggregate([("__value", value), ("__weight", weight)])
    renamed = grouped.select([*keys, f"__value_{value}", f"__weight_{weight}"])
    return renamed.rename_columns([*keys, "__value", "__weight"])


@dataclass(frozen=True)
class History:
    """One regular series: the values of consecutive periods, the last of them `last`. May be empty."""

    values: Array
    last: int


def histories(rows: pa.Table, starts: Whole, how: Aggregate, fill: Fill, unit: Unit, last: int) -> Iterator[History]:
    """The history of each group of aggregated rows, up to the period `last`.

    A history begins with its first row, or MOST_PERIODS[unit] before `last`. Periods without a row are 0 (`zero`), or
    the value before (`forward`), or not known (`missing`): then those between two known ones are drawn on a straight
    line between them, and the history ends with its last row.
    """
    period = _integers(rows["__period"])
    value = rows["__value"].to_numpy()
    weight = rows["__weight"].to_numpy()
    for first, end in pairwise(starts):
        part = slice(int(first), int(end))
        p, v, w = period[part], value[part], weight[part]
        recent = (p <= last) & (p > last - MOST_PERIODS[unit])
        if not recent.any():
            yield History(np.zeros(0), last)
            continue
        p, v = _merged(p[recent], v[recent], w[recent], how)
        if fill == "missing":
            yield History(np.interp(np.arange(p[0], p[-1] + 1), p, v), int(p[-1]))
        elif fill == "forward":
            yield History(v[np.searchsorted(p, np.arange(p[0], last + 1), side="right") - 1], last)
        else:
            values = np.zeros(last - int(p[0]) + 1)
            values[p - p[0]] = v
            yield History(values, last)


def _merged(period: Whole, value: Array, weight: Whole, how: Aggregate) -> tuple[Whole, Array]:
    """What several units left of one period becomes one value; periods ascend."""
    if (period[1:] > period[:-1]).all():  # one unit had all of the series, in order: the usual case
        return period, value / weight if how == "mean" else value
    order = np.lexsort((value, weight, period))
    period, value, weight = period[order], value[order], weight[order]
    begin = np.flatnonzero(np.r_[True, period[1:] != period[:-1]])
    if how == "last":
        return period[begin], value[np.r_[begin[1:] - 1, len(period) - 1]]
    reduce = {"max": np.maximum, "min": np.minimum}.get(how, np.add)
    merged = reduce.reduceat(value, begin)
    if how == "mean":
        merged = merged / np.add.reduceat(weight, begin)
    return period[begin], merged


def _integers(column: pa.ChunkedArray) -> Whole:
    return np.asarray(pc.fill_null(column, 0).to_numpy(), np.int64)
