"""How a customer buys, as of a day: recency, frequency, money and behaviour from order lines, by DuckDB.

Two steps, so that the first can run where the rows are read: `partials` sums lines up to one row for each (entity,
order, day), `profiles` turns all partials of an entity into its features. Amounts are summed as DECIMAL(38, 9), which
is exact: features don't depend on how the lines were split into batches, nor on their order.

Recency, frequency and monetary value: Hughes, Strategic Database Marketing (1994). Only lines with a positive amount
are purchases; negative amounts are returns, which lower money and raise the share of returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.tables.sql import sandbox

AMOUNT_LIMIT = 1e18  # 10^11 lines of it still fit DECIMAL(38, 9)
RECENT_DAYS = 90

FEATURES: dict[str, pa.DataType] = {
    "recency_days": pa.int32(),  # days from the last purchase to the run date
    "frequency": pa.int64(),  # orders with a purchase; days with one where there is no order column
    "money": pa.float64(),  # purchases less returns
    "average_order": pa.float64(),  # purchases / frequency
    "tenure_days": pa.int32(),  # days from the first purchase in the window to the run date
    "interval_days": pa.float64(),  # mean days between purchase days; null with one purchase day
    "regularity": pa.float64(),  # 1 / (1 + coefficient of variation of those gaps); null with fewer than two gaps
    "return_share": pa.float64(),  # returns / purchases, at most 1
    "recent_share": pa.float64(),  # share of purchases in the last 90 days
}

Aggregate = Literal["sum", "mean", "share", "min", "max"]


@dataclass(frozen=True)
class Extra:
    """A further feature, sum, mean, min or max of a column of numbers, or the share of lines with a value."""

    column: str
    agg: Aggregate
    equals: str | None = None


@dataclass(frozen=True)
class Columns:
    """Where the lines keep what is needed. `returned` is a boolean: such lines are returns whatever their sign."""

    entity: str
    time: str
    amount: str
    order: str | None = None
    returned: str | None = None


@dataclass(frozen=True)
class Unusable:
    """Lines that can't be used, by position in the batch."""

    no_time: npt.NDArray[np.int64]
    no_value: npt.NDArray[np.int64]


def partials(
    rows: pa.Table, columns: Columns, extras: Mapping[str, Extra], run_date: date, window_days: int
) -> tuple[pa.Table, Unusable]:
    """Order lines summed up to one row for each (entity, order, day), and the lines that can't be used.

    Days are those of UTC for timestamps with a timezone, and as they stand for the others. Lines dated after `run_date`
    or `window_days` and more before it are left out without a word: they don't belong to this night.
    """
    day = days(rows.column(columns.time))
    in_window = pc.and_(
        pc.less_equal(day, pa.scalar(run_date)),
        pc.greater(day, pa.scalar(run_date - timedelta(days=window_days))),
    )
    amount = _finite(rows.column(columns.amount))
    no_time = pc.is_null(day)
    no_value = pc.fill_null(pc.and_(in_window, pc.is_null(amount)), False)
    usable = pc.fill_null(pc.and_(in_window, pc.is_valid(amount)), False)

    amount_sql = "cast(_amount as decimal(38, 9))"  # before any sign is turned: a small integer's may not fit
    lines = {"_entity": rows.column(columns.entity), "_day": day, "_amount": amount}
    if columns.returned:
        lines["_returned"] = rows.column(columns.returned)
        amount_sql = f"(case when _returned then -abs({amount_sql}) else {amount_sql} end)"
    if columns.order:
        lines["_order"] = rows.column(columns.order)
    select = [f"greatest({amount_sql}, 0) as _sales", f"greatest(-{amount_sql}, 0) as _returns"]
    for i, extra in enumerate(extras.values()):
        lines[f"_c{i}"] = _extra_values(rows.column(extra.column), extra)
        if extra.agg in ("min", "max"):
            select.append(f"_c{i} as _x{i}")
        else:
            select += [f"cast(_c{i} as decimal(38, 9)) as _x{i}", f"(_c{i} is not null)::bigint as _n{i}"]
    order = "cast(_order as varchar)" if columns.order else "cast(null as varchar)"
    with sandbox() as con:
        con.register("lines", pa.table(lines).filter(usable))
        con.execute(
            f"create temp view parts as select _entity, {order} as _order, _day, {', '.join(select)} from lines"
        )
        summed = con.sql(_sum_parts(extras)).to_arrow_table()
    return _named(summed, columns.entity, rows), Unusable(_positions(no_time), _positions(no_value))


def combine_partials(parts: pa.Table, columns: Columns, extras: Mapping[str, Extra]) -> pa.Table:
    """Partials of several batches, summed up again; `partials` of all the batches at once gives the same rows."""
    with sandbox() as con:
        con.register("parts", parts.rename_columns(["_entity", *parts.column_names[1:]]))
        return _named(con.sql(_sum_parts(extras)).to_arrow_table(), columns.entity, parts)


def is_partial(rows: pa.Table) -> bool:
    """Whether the rows come from `partials`."""
    return {"_order", "_day", "_sales", "_returns"} <= set(rows.column_names)


def profiles(
    parts: pa.Table, starts: npt.NDArray[np.int64], extras: Mapping[str, Extra], run_date: date
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """(entities with a purchase, features) of entities whose partials lie side by side, and which of them these are."""
    group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    with sandbox() as con:
        con.register("parts", parts.append_column("_group", pa.array(group)))
        found = con.sql(_profile_sql(extras, run_date)).to_arrow_table()
    which = found.column("_group").to_numpy()
    schema = pa.schema([*FEATURES.items(), *((name, pa.float64()) for name in extras)])
    return found.drop_columns(["_group"]).rename_columns(schema.names).cast(schema), which


def days(time: pa.ChunkedArray) -> pa.ChunkedArray:
    """date32 of dates and timestamps; a timestamp with a timezone is taken in UTC."""
    if pa.types.is_timestamp(time.type) and time.type.tz is not None:
        time = time.cast(pa.timestamp(time.type.unit))  # without a timezone Arrow's instants are UTC
    return time.cast(pa.date32(), safe=False)


def _finite(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers DuckDB can take into DECIMAL(38, 9); null for NaN, infinities and what is too large."""
    numbers = values.cast(pa.float64(), safe=False)
    fits = pc.less(pc.abs(numbers), AMOUNT_LIMIT)  # false for NaN
    exact = values if pa.types.is_decimal128(values.type) or pa.types.is_integer(values.type) else numbers
    return pc.if_else(fits, exact, pa.scalar(None, exact.type))


def _extra_values(values: pa.ChunkedArray, extra: Extra) -> pa.ChunkedArray:
    if extra.agg == "share":
        return pc.equal(values.cast(pa.string()), pa.scalar(extra.equals)).cast(pa.float64())
    return _finite(values).cast(pa.float64(), safe=False)


def _sum_parts(extras: Mapping[str, Extra]) -> str:
    sums = ["_sales", "_returns"]
    select = []
    for i, extra in enumerate(extras.values()):
        if extra.agg in ("min", "max"):
            select.append(f"{extra.agg}(_x{i}) as _x{i}")
        else:
            select += [f"cast(sum(_x{i}) as decimal(38, 9)) as _x{i}", f"sum(_n{i})::bigint as _n{i}"]
    select = [f"cast(sum({c}) as decimal(38, 9)) as {c}" for c in sums] + select
    return f"select _entity, _order, _day, {', '.join(select)} from parts group by _entity, _order, _day"


def _profile_sql(extras: Mapping[str, Extra], run_date: date) -> str:
    """One row for each group with a purchase, columns as FEATURES, then extras, then _group; sorted by group."""
    more, totals = [], []
    for i, extra in enumerate(extras.values()):
        if extra.agg in ("min", "max"):
            more.append(f"{extra.agg}(_x{i})::double as _e{i}")
        else:
            divisor = "1" if extra.agg == "sum" else f"nullif(sum(_n{i}), 0)"
            more.append(f"sum(_x{i})::double / {divisor} as _e{i}")
        totals.append(f"_e{i}")
    today = f"date '{run_date.isoformat()}'"
    return f"""
    with orders as (  -- the lines of an order count on its first day; without an order a day is one
        select _group, coalesce(_order, 'day ' || _day) as id, min(_day) as day, sum(_sales) as sales
        from parts group by _group, id having sum(_sales) > 0
    ), bought as (
        select _group, count(*) as frequency, sum(sales) as sales, min(day) as first, max(day) as last,
            sum(case when day > {today} - {RECENT_DAYS} then sales else 0 end) as recent
        from orders group by _group
    ), gaps as (
        select _group, day - lag(day) over (partition by _group order by day) as gap
        from (select distinct _group, day from orders)
    ), rhythm as (
        -- from whole sums rather than stddev_pop, whose last digits depend on the order of the rows
        select _group, avg(gap) as mean, count(gap) as n,
            sqrt(greatest(sum(gap * gap) / count(gap) - (sum(gap) / count(gap)) ^ 2, 0)) as spread
        from gaps group by _group
    ), totals as (
        select _group, sum(_sales - _returns) as money, sum(_returns) as returns{"".join(f", {m}" for m in more)}
        from parts group by _group
    )
    select {today} - last as recency_days, frequency, money::double as money,
        sales::double / frequency as average_order, {today} - first as tenure_days, mean as interval_days,
        case when n >= 2 then 1 / (1 + spread / mean) end as regularity,
        least(returns::double / sales::double, 1) as return_share, recent::double / sales::double as recent_share,
        {"".join(f"{t}, " for t in totals)}_group
    from bought join rhythm using (_group) join totals using (_group) order by _group
    """


def _named(summed: pa.Table, entity: str, rows: pa.Table) -> pa.Table:
    """Give the entity back its name and its Arrow type, which DuckDB may have changed."""
    column = summed.column("_entity").cast(rows.schema.field(entity).type)
    return summed.set_column(0, rows.schema.field(entity), column)


def _positions(mask: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False)).astype(np.int64)
