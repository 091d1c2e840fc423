"""Which rows, and which row groups of a file, belong to the dates that a unit may read."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from bizllm.tables.manifest import Dates, Unit


def date_mask(column: pa.ChunkedArray, unit: Unit) -> pa.ChunkedArray | None:
    """(rows,) whether a row's day belongs to the unit's dates; a null does not. None where every row does.

    A timestamp with a time zone has the day of that zone.
    """
    if unit.dates == "all":
        return None
    if types.is_timestamp(column.type):
        column = pc.local_timestamp(column) if column.type.tz else column
        column = pc.floor_temporal(column, unit="day").cast(pa.date32())
    day = pa.scalar(date.fromisoformat(unit.run_date), pa.date32())
    return pc.fill_null(pc.equal(column, day) if unit.dates == "day" else pc.less_equal(column, day), False)


def days_of(column: Any) -> tuple[date | None, date | None]:
    """A row group's first and last day by its statistics. None where a time zone or a missing statistic hides it."""
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return None, None
    low, high = statistics.min, statistics.max
    if isinstance(low, datetime):
        return (low.date(), high.date()) if low.tzinfo is None else (None, None)
    return (low, high) if isinstance(low, date) else (None, None)


def may_hold(low: date | None, high: date | None, run_date: date, dates: Dates) -> bool:
    """Whether a row group with those days may hold rows of the wanted dates."""
    if dates == "all" or low is None or high is None:
        return True
    return low <= run_date and (dates == "to_date" or run_date <= high)
