"""What `trend` does with a group: sums by period, the measures they make, what is unusual in them, their forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.errors import nearest
from bizllm.methods import forecasters, lead_lag, shifts
from bizllm.methods.lead_lag import Lead
from bizllm.methods.series import MOST_PERIODS, SEASONS, Unit
from bizllm.tasks._texts import Faults

Array = npt.NDArray[np.float64]

EXHIBIT = pa.schema([("title", pa.string()), ("source", pa.string()), ("result", pa.string()), ("score", pa.float64())])
_SUMS = ("__rows", "__valued", "__sum", "__squares")
_LEVELS = (0.1, 0.9)
_SHORTEST = {"D": 14, "W": 4, "M": 4}  # periods of a level, where nothing is set
_NEWEST = 14  # periods of which the night's report tells


@dataclass(frozen=True)
class Measure:
    """One series of a group.

    values: (periods,) from the period `first` on, NaN where nothing is known. rows: (periods,). error: (periods,) a
    value's own standard error, by the rows that made it. low, high: what no value can pass.
    """

    name: str
    first: int
    values: Array
    rows: npt.NDArray[np.int64]
    error: Array
    low: float = -np.inf
    high: float = np.inf


def sums(keys: pa.Table, period: npt.NDArray[np.int64], values: Array, labels: Any) -> pa.Table:
    """(rows,) what `summed` adds up: a row each. values: NaN where there is none."""
    known = np.isfinite(values)
    plain = np.where(known, values, 0.0)
    columns = (np.ones(len(values), np.int64), known.astype(np.int64), plain, plain**2)
    table = keys.append_column("__period", pa.array(period)).append_column("__label", labels)
    for name, column in zip(_SUMS, columns, strict=True):
        table = table.append_column(name, pa.array(column))
    return table


def summed(rows: pa.Table, per: Sequence[str]) -> pa.Table:
    """One row for each group, period and label; doing it twice is doing it once. One thread: sums come out the same."""
    keys = [*per, "__period", "__label"]
    # In an order that follows from the rows alone, so that files decide no last bit of a sum.
    ordered = rows.sort_by([(name, "ascending") for name in [*keys, *_SUMS]])
    found = ordered.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    return found.select([*keys, *(f"{name}_sum" for name in _SUMS)]).rename_columns([*keys, *_SUMS])


def measures(rows: pa.Table, unit: Unit, last: int, labels: int) -> list[Measure]:
    """Of one group's sums: volume, score where any row has a value, and the share of each frequent label."""
    rows = summed(rows, [])
    period = rows["__period"].to_numpy()
    recent = (period <= last) & (period > last - MOST_PERIODS[unit])
    rows, period = rows.filter(pa.array(recent)), period[recent]
    if not len(period):
        return []
    first = int(period.min())
    n = last - first + 1

    def total(name: str, of: npt.NDArray[np.bool_] | None = None) -> Array:
        weights = rows[name].to_numpy().astype(np.float64)
        return np.bincount(period - first, weights if of is None else weights * of, n).astype(np.float64)

    count = total("__rows")
    whole = count.astype(np.int64)
    found = [Measure("volume", first, count, whole, np.sqrt(np.maximum(count, 1)), low=0.0)]
    valued = total("__valued")
    if valued.any():
        mean = _ratio(total("__sum"), valued)
        # Of the rows up to each period: an alert of then is an alert now.
        between = np.where(valued > 0, valued * np.nan_to_num(mean) ** 2, 0.0)
        within = np.cumsum(total("__squares") - between) / np.maximum(np.cumsum(valued), 1)
        low, high = float(np.nanmin(mean)), float(np.nanmax(mean))
        error = np.sqrt(np.maximum(within, 0) / np.maximum(valued, 1))
        found.append(Measure("score", first, mean, whole, error, low - (high - low), high + (high - low)))
    of_label = np.array(rows["__label"].to_pylist(), object)
    sizes = {name: float(rows["__rows"].to_numpy()[of_label == name].sum()) for name in {*of_label} - {None}}
    labelled = total("__rows", np.array([name is not None for name in of_label], bool))
    for name in sorted(sizes, key=lambda name: (-sizes[name], name))[:labels]:
        own = total("__rows", of_label == name)
        share, usual = _ratio(own, labelled), (np.cumsum(own) + 1) / (np.cumsum(labelled) + 2)
        # Of few rows a rare label's share is 0 or far off: as if two more rows were there, one with the label.
        likely = (labelled * usual + 1) / (labelled + 2)
        error = np.sqrt(likely * (1 - likely) / np.maximum(labelled, 1))
        found.append(Measure(f"share:{name}", first, share, whole, error, 0.0, 1.0))
    return found


def judged(
    measure: Measure, unit: Unit, alert_z: float, min_rows: int, shortest: int | None = None
) -> list[dict[str, Any]]:
    """(periods,) value, rows, expected, z, alert, level and change. min_rows: of a mean or share that is an alert."""
    values, counted = measure.values, measure.name == "volume"
    season = shifts.usable_season(len(values), SEASONS[unit])
    found = shifts.expect(values, season, None if counted else measure.error)
    expected = np.clip(found.expected, measure.low, measure.high)
    # Counts vary with their size: 2 sqrt(n + 3/8) has a deviation of 1 whatever the mean (Anscombe 1948).
    scaled = 2 * np.sqrt(values + 0.375) if counted else values
    known = np.flatnonzero(np.isfinite(values))
    starts = known[shifts.changes(scaled[known], season, shortest or _SHORTEST[unit])]
    level = shifts.levels(values, starts)
    change = np.full(len(values), np.nan)
    change[starts] = level[starts] - level[starts - 1]
    enough = counted | (measure.rows >= min_rows)
    alert = np.select([enough & (found.z >= alert_z), enough & (found.z <= -alert_z)], ["high", "low"], "")
    columns = {"value": values, "expected": expected, "z": found.z, "level": level, "change": change}
    return [
        {
            "rows": int(measure.rows[i]),
            "alert": str(alert[i]) or None,
            **{name: float(column[i]) if np.isfinite(column[i]) else None for name, column in columns.items()},
        }
        for i in range(len(values))
    ]


def forecasts(found: Sequence[Measure], unit: Unit, last: int, horizon: int) -> list[tuple[list[float], ...] | None]:
    """(mean, q10, q90) of each measure's next periods; None where nothing is asked or the history is too short."""
    if not horizon:
        return [None] * len(found)
    histories = [_filled(measure.values) for measure in found]
    request = forecasters.Request(SEASONS[unit], horizon, _LEVELS)
    usable = [i for i, history in enumerate(histories) if len(history) >= 3]
    made = forecasters.forecast_many(
        [histories[i] for i in usable],
        [request] * len(usable),
        [found[i].low == 0 for i in usable],
        [None] * len(usable),
    )
    told: list[tuple[list[float], ...] | None] = [None] * len(found)
    for i, forecast in zip(usable, made, strict=True):
        if forecast is not None:
            paths = [forecast.mean, *forecast.quantiles]
            told[i] = tuple(np.clip(path, found[i].low, found[i].high).tolist() for path in paths)
    return told


def lead(measure: Measure, target: tuple[Array, Array], most: int) -> Lead | None:
    """How far the measure is ahead of the target, over the periods that have both."""
    periods, values = target
    at = periods.astype(np.int64) - measure.first
    inside = (at >= 0) & (at < len(measure.values))
    own = measure.values[at[inside]]
    both = np.isfinite(own)
    return lead_lag.lead(own[both], values[inside][both], most)


def told(group: str, rows: Sequence[dict[str, Any]], time: str) -> list[dict[str, Any]]:
    """What a night's report shows of a group: alerts and changes of the newest periods."""
    history = [row for row in rows if row["kind"] == "history"]
    newest = sorted({row[time] for row in history})[-_NEWEST:]
    shown = []
    for row in history:
        if row[time] not in newest or row["value"] is None or not (row["alert"] or row["change"]):
            continue
        source = f"{row[time]}: {row['value']:.4g} from {row['rows']:,} rows"
        if row["alert"]:
            result = f"{row['alert']}: {row['expected']:.4g} was expected"
        else:
            result = f"a new level: {row['level']:.4g}, {row['change']:+.4g}"
        title = f"{group}, {row['measure']}"
        shown.append({"title": title, "source": source, "result": result, "score": abs(row["z"] or 0.0)})
    return shown


def column_faults(setting: str, column: str, schema: pa.Schema) -> Faults:
    """The fault of a column that is not there."""
    if column in schema.names:
        return []
    return [(setting, column, f"no such column; there are {', '.join(schema.names)}", nearest(column, schema.names))]


def time_faults(setting: str, column: str, schema: pa.Schema) -> Faults:
    """The fault of a column that holds no times."""
    kind = schema.field(column).type if column in schema.names else None
    if kind is None or pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return column_faults(setting, column, schema)
    return [(setting, column, f"expected a date or timestamp column, it is {kind}", "cast it in the source's `select`")]


def number_faults(setting: str, column: str, schema: pa.Schema) -> Faults:
    """The fault of a column that holds no numbers."""
    kind = schema.field(column).type if column in schema.names else None
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if kind is None or any(fits(kind) for fits in numbers):
        return column_faults(setting, column, schema)
    return [(setting, column, f"expected a column of numbers, it is {kind}", "cast it in the source's `select`")]


def _ratio(part: Array, whole: Array) -> Array:
    """NaN where there is no whole."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _filled(values: Array) -> Array:
    """Gaps on a straight line between what is known, the ends as the nearest known one."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(known[0], len(values)), known, values[known]) if len(known) else np.zeros(0)
