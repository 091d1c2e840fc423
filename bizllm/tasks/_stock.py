"""The stock of each item, as `inventory` reads it: a table with columns, or one number for all items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from pydantic import Field

from bizllm.tasks._days import local_days
from bizllm.tasks.base import Reject, StepInput, TableRead

Array = npt.NDArray[np.float64]
Faults = list[tuple[str, object, str, str]]
Key = tuple[Any, ...]
Number = str | Annotated[float, Field(ge=0, allow_inf_nan=False)]  # a column, or one number for all items

_EPOCH = date(1970, 1, 1).toordinal()
NO_STOCK = Reject(-1, "no_stock", "the table of stock has no row for this item")
_SEVERAL = Reject(-1, "several_stock", "the table of stock has several rows for this item")


class Stock(TableRead):
    """What is there of each item, and on which terms more of it comes."""

    item: list[str] = Field(default=[], description="Its columns of the item, where they are not called as in `item`.")
    as_of: str | None = Field(
        default=None, description="The day that a row tells of: of each item the newest up to the run date counts."
    )
    on_hand: str = Field(description="Units there; less than nothing is owed to customers.")
    on_order: Number = Field(default=0.0, description="Units that are ordered and not there yet.")
    lead_time: Number = Field(description="Mean days from an order until it is there.")
    lead_time_sd: Number = Field(default=0.0, description="Their standard deviation.")
    holding_cost: Number | None = Field(default=None, description="Of a unit and day.")
    shortage_cost: Number | None = Field(
        default=None, description="Of a unit that a customer asks for in vain; without it `service_level` decides."
    )
    order_cost: Number = Field(default=0.0, description="Of an order, whatever its size.")
    min_order: Number = Field(default=0.0, description="The least units of an order.")
    pack: Number = Field(
        default=1.0, description="Units of a pack; orders are whole packs. Where it is a whole number, so is demand."
    )

    def columns(self) -> dict[str, str]:
        return {f"item[{i}]": name for i, name in enumerate(self.item)} | super().columns()


class Sales(TableRead):
    """What was sold, in rows of any number."""

    item: list[str] = Field(default=[], description="Its columns of the item, where they are not called as in `item`.")
    time: str = Field(description="Date or timestamp column.")
    target: str = Field(description="Column of units.")

    def columns(self) -> dict[str, str]:
        return {f"item[{i}]": name for i, name in enumerate(self.item)} | super().columns()


# What a number must be; where the column holds null it is that, None: there must be one.
_NULL: dict[str, float | None] = {
    "on_hand": None,
    "on_order": 0.0,
    "lead_time": None,
    "lead_time_sd": 0.0,
    "holding_cost": np.nan,
    "shortage_cost": np.nan,
    "order_cost": 0.0,
    "min_order": 0.0,
    "pack": 1.0,
}
_POSITIVE = {"holding_cost", "pack"}


@dataclass(frozen=True)
class Item:
    """An item's stock. holding_cost, shortage_cost: None is not known."""

    on_hand: float
    on_order: float
    lead_time: float
    lead_time_sd: float
    holding_cost: float | None
    shortage_cost: float | None
    order_cost: float
    min_order: float
    pack: float


def faults(stock: Stock, item: Sequence[str], forecast: pa.Schema, given: StepInput) -> Faults:
    """Columns of types that don't fit; the engine tells those that are missing. stock: as read, with its `item`."""
    found = _item_faults("stock", stock.item, item, forecast, given)
    found += _day_faults("stock.as_of", stock.as_of, given)
    for name in _NULL:
        column = getattr(stock, name)
        if isinstance(column, str):
            found += _number_faults(f"stock.{name}", column, given)
        elif name in _POSITIVE and column == 0:
            found.append((f"stock.{name}", column, "expected more than 0", ""))
    return found


def sales_faults(sales: Sales, item: Sequence[str], forecast: pa.Schema, given: StepInput) -> Faults:
    """The same of the history."""
    return [
        *_item_faults("history", sales.item, item, forecast, given),
        *_day_faults("history.time", sales.time, given),
        *_number_faults("history.target", sales.target, given),
    ]


def _item_faults(table: str, own: Sequence[str], item: Sequence[str], forecast: pa.Schema, given: StepInput) -> Faults:
    if len(own) != len(item):
        return [(f"{table}.item", list(own), f"expected a column for each of {', '.join(item)}", "")]
    found: Faults = []
    for i, (ours, theirs) in enumerate(zip(item, own, strict=True)):
        one, other = forecast.field(ours).type, _type(theirs, given)
        if other is not None and _kind(one) != _kind(other):
            expected = f"expected {one} as in the forecast, it is {other}"
            found.append((f"{table}.item[{i}]", theirs, expected, "cast in `select`"))
    return found


def _day_faults(place: str, column: str | None, given: StepInput) -> Faults:
    kind = _type(column, given)
    if kind is None or types.is_date(kind) or types.is_timestamp(kind):
        return []
    return [(place, column, f"expected dates or timestamps, it is {kind}", "cast in `select`")]


def _number_faults(place: str, column: str, given: StepInput) -> Faults:
    kind = _type(column, given)
    if kind is None or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return []
    return [(place, column, f"expected a column of numbers, it is {kind}", "cast in `select`")]


def _type(column: str | None, given: StepInput) -> pa.DataType | None:
    return given.schema.field(column).type if column in given.schema.names else None


def items(rows: pa.Table, stock: Stock, run_date: date) -> Mapping[Key, Item | Reject]:
    """Each item's stock, or why it can't be used."""
    if stock.as_of is not None:
        rows = _newest(rows, stock, run_date)
    values = {name: _values(rows, getattr(stock, name), null) for name, null in _NULL.items()}
    wrong = {name: _wrong(name, of) for name, of in values.items()}
    made: dict[Key, Item | Reject] = {}
    for i, key in enumerate(zip(*(rows[name].to_pylist() for name in stock.item), strict=True)):
        bad = next((name for name in values if wrong[name][i]), None)
        if key in made:
            made[key] = _SEVERAL
        elif bad is not None:
            made[key] = Reject(-1, "bad_stock", f"{bad} is missing, negative or no finite number")
        else:
            said = {name: float(of[i]) for name, of in values.items()}
            unknown = {name: None for name in ("holding_cost", "shortage_cost") if np.isnan(said[name])}
            made[key] = Item(**(said | unknown))  # type: ignore[arg-type]
    return made


def daily(rows: pa.Table, sales: Sales, run_date: date, most_days: int) -> dict[Key, Array]:
    """Of each item the units of each day up to the run date, the newest last: from its first sale, at most so many."""
    days = local_days(rows[sales.time])
    units = rows[sales.target].cast(pa.float64(), safe=False)
    table = rows.select(sales.item).append_column("__day", days).append_column("__units", units)
    known = pc.and_(pc.less_equal(days, pa.scalar(run_date, pa.date32())), pc.is_finite(units))
    table = table.filter(pc.fill_null(known, False))
    summed = table.group_by([*sales.item, "__day"], use_threads=False).aggregate([("__units", "sum")])
    back = (run_date.toordinal() - _EPOCH) - summed["__day"].cast(pa.int32()).to_numpy()
    made: dict[Key, Array] = {}
    first: dict[Key, int] = {}
    keys = list(zip(*(summed[name].to_pylist() for name in sales.item), strict=True))
    for key, ago in zip(keys, back.tolist(), strict=True):
        first[key] = max(first.get(key, 0), ago)
    for key, ago, sold in zip(keys, back.tolist(), summed["__units_sum"].to_numpy().tolist(), strict=True):
        known_days = min(first[key] + 1, most_days)
        if ago < known_days:
            made.setdefault(key, np.zeros(known_days))[known_days - 1 - ago] = sold
    return made


def _newest(rows: pa.Table, stock: Stock, run_date: date) -> pa.Table:
    """The rows of each item's newest day up to the run date."""
    assert stock.as_of is not None
    rows = rows.set_column(rows.column_names.index(stock.as_of), stock.as_of, local_days(rows[stock.as_of]))
    rows = rows.filter(pc.fill_null(pc.less_equal(rows[stock.as_of], pa.scalar(run_date, pa.date32())), False))
    newest = rows.group_by(stock.item, use_threads=False).aggregate([(stock.as_of, "max")])
    newest = newest.rename_columns([*stock.item, stock.as_of])
    return rows.join(newest, keys=[*stock.item, stock.as_of], join_type="left semi", use_threads=False)


def _values(rows: pa.Table, given: str | float | None, null: float | None) -> Array:
    """(rows,) NaN where there is none and must be one."""
    if not isinstance(given, str):
        return np.full(rows.num_rows, np.nan if given is None else given)
    column = rows[given].cast(pa.float64(), safe=False)
    return np.asarray(pc.fill_null(column, np.nan if null is None else null).to_numpy(), np.float64)


def _wrong(name: str, values: Array) -> npt.NDArray[np.bool_]:
    if name == "on_hand":
        return ~np.isfinite(values)
    least = values > 0 if name in _POSITIVE else values >= 0
    optional = np.isnan(values) if np.isnan(_NULL[name] or 0.0) else False
    return np.asarray(~(np.isfinite(values) & least | optional))


def _kind(kind: pa.DataType) -> str:
    """Values of one kind are equal where they are the same, whatever their width."""
    if types.is_integer(kind):
        return "integer"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_dictionary(kind):
        return "string"
    return str(kind)
