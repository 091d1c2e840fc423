"""When open orders will come, and which will be late, by what suppliers, lanes and carriers did before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from pydantic import Field, field_validator

from bizllm.errors import Fault, UserError, nearest
from bizllm.methods import documents, lead_times
from bizllm.methods.lead_times import Deliveries, LeadTimes
from bizllm.tasks._days import local_days
from bizllm.tasks._supply_words import PROMISED, WAITED, reason
from bizllm.tasks.base import Learned, Outcome, Reject, Shape, TableRead, Task, TaskSettings
from bizllm.tasks.forecast import level_column

Array = npt.NDArray[np.float64]
Faults = list[tuple[str, object, str, str]]
Level = Annotated[float, Field(gt=0.0, lt=1.0)]

LEAST = 20  # deliveries that came, under which nothing is learned
TOLD_DAYS = 0.5  # that a factor moves the arrival, under which it is not told
_FACTOR = pa.struct([("factor", pa.string()), ("value", pa.string()), ("days", pa.float64())])


class Shipments(TableRead):
    """What was ordered before; what is still out should be among it."""

    factors: list[str] = Field(default=[], description="Its factors, where they are not called as in `factors`.")
    ordered: str = Field(description="Date or timestamp of the order.")
    arrived: str = Field(description="When it came; null, or after the run date, where it had not come.")
    promised: str | None = Field(default=None, description="For when it was promised.")

    def columns(self) -> dict[str, str]:
        return {f"factors[{i}]": name for i, name in enumerate(self.factors)} | super().columns()


class SupplySettings(TaskSettings):
    """What `task: supply` takes."""

    ordered: str = Field(description="Date or timestamp of the order.")
    promised: str | None = Field(
        default=None, description="For when it is promised; without it nothing is called late."
    )
    factors: list[str] = Field(
        min_length=1,
        max_length=6,
        description="Columns that lead times depend on: supplier, lane, carrier, article group.",
    )
    shipments: Shipments = Field(description="A table of past deliveries, and of those that are still out.")
    levels: list[Level] = Field(
        default=[0.1, 0.5, 0.9], min_length=1, description="Quantiles of the arrival: 0.1 is column arrival_q10."
    )
    half_life_days: Annotated[float, Field(gt=0)] = Field(
        default=365.0, description="Days after which a delivery counts half as much as one of tonight."
    )
    at_risk: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.5, description="Probability of being late from which an order's status is at_risk."
    )
    language: Literal["en", "zh"] = Field(default="en", description="Of `reason`.")

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: list[float]) -> list[float]:
        if len({level_column(level) for level in levels}) < len(levels):
            raise ValueError("expected every level once")
        return sorted(levels)

    @field_validator("factors")
    @classmethod
    def _once(cls, factors: list[str]) -> list[str]:
        if len(set(factors)) < len(factors):
            raise ValueError("expected every column once")
        return factors

    def tables(self) -> dict[str, TableRead]:
        """The shipments, with their columns of the factors."""
        own = self.shipments
        return {"shipments": own if own.factors else own.model_copy(update={"factors": self.factors})}


class Supply(Task):
    """Answers each open order with the model of `bizllm.methods.lead_times`, given that it has not come so far."""

    name = "supply"
    version = 1
    Settings = SupplySettings
    summary = "When each open order will come, and how likely late, by what suppliers, lanes and carriers did before."
    takes = (
        "Open orders with the day of the order, maybe the promised day, and columns such as supplier and lane; and, in "
        "a table of its own, past deliveries with the same columns and the day they came."
    )
    example = (
        "order_risk:\n"
        "  task: supply\n"
        "  input: open_orders\n"
        "  ordered: ordered_on\n"
        "  promised: promised_on\n"
        "  factors: [supplier, lane, carrier]\n"
        "  shipments: {input: shipments, ordered: ordered_on, promised: promised_on, arrived: arrived_on}"
    )
    shapes: ClassVar[tuple[Shape, ...]] = ("row",)
    writes: ClassVar[dict[str, str]] = {
        "status": "string: late, where the promised day is over; at_risk; on_time; or no_promise",
        "late_probability": "double in [0, 1]: that it comes after the promised day, as it has not come yet; or null",
        "late_days": "double: expected days after the promised day, 0 for those in time; null without a promise",
        "arrival_q<level>": "date: by then it comes with that probability: arrival_q10, arrival_q50, arrival_q90",
        "lead_q<level>": "double: days from order to arrival, as one would have said on the day of the order",
        "waited_days": "int: days since the order",
        "deliveries": "int: past ones that came with the same values; of the rarest pair of factors",
        "factors": "list of {factor, value, days}: what moves the arrival's median by how many days, the most first",
        "reason": "string: why, in a sentence",
    }
    exhibits = "categories"
    category_column = "status"
    settings: SupplySettings

    _model: LeadTimes | None = None

    # -- what it reads and writes ---------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        return "row"

    def reads(self) -> list[str]:
        s = self.settings
        return list(dict.fromkeys([s.ordered, *([s.promised] if s.promised else []), *s.factors]))

    def depends_on_date(self) -> bool:
        return True

    def columns(self) -> pa.Schema:
        levels = [level_column(level) for level in self.settings.levels]
        return pa.schema(
            [
                ("status", pa.string()),
                ("late_probability", pa.float64()),
                ("late_days", pa.float64()),
                *((f"arrival_{name}", pa.date32()) for name in levels),
                *((f"lead_{name}", pa.float64()) for name in levels),
                ("waited_days", pa.int32()),
                ("deliveries", pa.int64()),
                ("factors", pa.list_(_FACTOR)),
                ("reason", pa.string()),
            ]
        )

    def rules(self) -> dict[str, str]:
        names = [level_column(level) for level in self.settings.levels]
        rules = {
            "the probability lies in [0, 1]": "late_probability is null or late_probability between 0 and 1",
            "what is late is sure to be": "status <> 'late' or late_probability = 1",
            "only promises can be broken": "(status = 'no_promise') = (late_probability is null)",
            "late days are finite": "late_days is null or (isfinite(late_days) and late_days >= 0)",
            "nothing comes before tomorrow": f"arrival_{names[0]} > date '{self.run_date}'",
            "lead times are finite": " and ".join(f"isfinite(lead_{name})" for name in names),
        }
        pairs = list(pairwise(names))
        if pairs:
            ordered = (f"{kind}_{a} <= {kind}_{b}" for kind in ("arrival", "lead") for a, b in pairs)
            rules["quantiles in order"] = " and ".join(ordered)
        return rules

    def check(self) -> Faults:
        s, schema = self.settings, self.source.schema
        past = self.others["shipments"]
        faults: Faults = []
        named = {"ordered": s.ordered} | ({"promised": s.promised} if s.promised else {})
        named |= {f"factors[{i}]": name for i, name in enumerate(s.factors)}
        for setting, column in named.items():
            if column not in schema.names:
                known = f"expected a column of the input: {', '.join(schema.names)}"
                faults.append((setting, column, known, nearest(column, schema.names)))
            else:
                faults += _kind_fault(setting, column, schema)
        given = self.settings.shipments
        for setting in ("ordered", "promised", "arrived"):
            faults += _kind_fault(f"shipments.{setting}", getattr(given, setting), past.schema)
        own = self._factors()
        if len(own) != len(s.factors):
            expected = f"expected a column for each of {', '.join(s.factors)}"
            faults.append(("shipments.factors", own, expected, ""))
        for i, column in enumerate(own):
            faults += _kind_fault(f"shipments.factors[{i}]", column, past.schema)
        return faults

    def _factors(self) -> list[str]:
        """Of the shipments."""
        return self.settings.shipments.factors or self.settings.factors

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return 0, rows * 1e-4

    # -- the work -------------------------------------------------------------------------------------------------

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s, rows = self.settings, tables["shipments"]
        today = _number(self.run_date)
        ordered, arrived = (_days(rows[name]) for name in (s.shipments.ordered, s.shipments.arrived))
        promised = _days(rows[s.shipments.promised]) if s.shipments.promised else np.full(len(rows), np.nan)
        # What nobody knew at the end of the run date: orders of later, and that something came later.
        came = arrived <= today
        days = np.where(came, arrived, today) - ordered
        known = (ordered <= today) & (days >= 0)
        if (known & came).sum() < LEAST:
            found = f"{len(rows):,} rows hold {int((known & came).sum())} deliveries that had come by the run date"
            raise UserError(Fault("shipments", s.shipments.input, f"{found}; expected {LEAST} at least"))
        weights = 0.5 ** ((today - ordered[known]) / s.half_life_days)
        values = _levels(rows, self._factors())[known]
        past = Deliveries(values, (promised - ordered)[known], days[known], came[known], weights)
        return lead_times.learn(past).state()

    def answer(self, batch: pa.Table) -> Outcome:
        if self._model is None:
            assert self.learned is not None, "learned before the first answer"
            self._model = LeadTimes.of(self.learned)
        s, today = self.settings, _number(self.run_date)
        ordered = _days(batch[s.ordered])
        rejects = [Reject(int(i), "no_time", "the day of the order is null") for i in np.flatnonzero(np.isnan(ordered))]
        late = np.flatnonzero(ordered > today)
        rejects += [Reject(int(i), "after_date", "it was ordered after the run date") for i in late]
        usable = np.flatnonzero(ordered <= today)
        rows = batch.take(pa.array(usable))
        promised = _days(rows[s.promised]) if s.promised else np.full(len(rows), np.nan)
        return Outcome(usable, self._columns(self._model, rows, ordered[usable], promised, today), rejects)

    def _columns(self, model: LeadTimes, rows: pa.Table, ordered: Array, promised: Array, today: int) -> pa.Table:
        """ordered, promised: (rows,) days since 1970; NaN for no promise."""
        s = self.settings
        values = _levels(rows, s.factors)
        promise, waited = promised - ordered, today - ordered
        parts = model.parts(values, promise)
        new = np.full(len(ordered), -1.0)  # nothing was waited yet
        given = {level: model.quantile(level, waited, parts) for level in s.levels}
        before = {level: model.quantile(level, new, parts) for level in s.levels}
        probability, beyond = model.late(promise, waited, parts)
        status = np.where(probability >= s.at_risk, "at_risk", "on_time").astype(object)
        status[promise <= waited] = "late"
        status[np.isnan(promise)] = "no_promise"
        median = model.quantile(0.5, waited, parts)
        moved = [*model.moves(parts, median), median - model.quantile(0.5, new, parts)]
        factors = self._told(model, values, promise, waited, moved)
        told = zip(waited.tolist(), promise.tolist(), probability.tolist(), factors, strict=True)
        columns: dict[str, Any] = {
            "status": status,
            "late_probability": pa.array(probability, mask=np.isnan(promise)),
            "late_days": pa.array(beyond, mask=np.isnan(promise)),
            **{f"arrival_{level_column(k)}": _dates(ordered + np.floor(days + 0.5)) for k, days in given.items()},
            **{f"lead_{level_column(k)}": days for k, days in before.items()},
            "waited_days": waited.astype(np.int32),
            "deliveries": parts.came,
            "factors": factors,
            "reason": [reason(s.language, *order) for order in told],
        }
        return pa.table([pa.array(columns[f.name], f.type) for f in self.columns()], schema=self.columns())

    def _told(
        self, model: LeadTimes, values: npt.NDArray[np.object_], promise: Array, waited: Array, moved: Sequence[Array]
    ) -> list[list[dict[str, Any]]]:
        """(rows,) what moves the median by half a day or more, the most first. moved: by group of factors, then by the
        promise and by the wait, (rows,) days each."""
        names = [" × ".join(self.settings.factors[f] for f in group) for group in model.groups]
        days = np.stack(moved, axis=1)
        order = np.argsort(-np.abs(days), axis=1, kind="stable")
        found = []
        for row, own in enumerate(order.tolist()):
            told = []
            for g in own:
                if abs(days[row, g]) < TOLD_DAYS:
                    break
                if g < len(names):
                    factor, value = names[g], " × ".join(values[row, list(model.groups[g])])
                else:
                    factor, of = (PROMISED, promise) if g == len(names) else (WAITED, waited)
                    value = f"{of[row]:.0f}"
                told.append({"factor": factor, "value": value, "days": float(days[row, g])})
            found.append(told)
        return found


def _kind_fault(setting: str, column: str | None, schema: pa.Schema) -> Faults:
    """Of a column that is there and has a type that does not fit."""
    if column not in schema.names:
        return []
    kind = schema.field(column).type
    if "factors" in setting:
        fits = types.is_integer(kind) or types.is_boolean(kind) or documents.is_text(kind)
        expected = "a column of texts, whole numbers or booleans"
    else:
        fits, expected = types.is_date(kind) or types.is_timestamp(kind), "dates or timestamps"
    return [] if fits else [(setting, column, f"expected {expected}, it is {kind}", "cast in `select`")]


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _days(times: pa.ChunkedArray) -> Array:
    """(rows,) days since 1970, NaN for null."""
    numbers = local_days(times).cast(pa.int32()).cast(pa.float64())
    return np.asarray(pc.fill_null(numbers, float("nan")).to_numpy(), np.float64)


def _dates(days: Array) -> pa.Array:
    return pa.array(days.astype(np.int32), pa.int32()).cast(pa.date32())


def _levels(rows: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.object_]:
    """(rows, columns) as texts, '' for null."""
    made = np.empty((len(rows), len(columns)), object)
    for i, name in enumerate(columns):
        made[:, i] = pc.fill_null(rows[name].cast(pa.string()), "").to_pylist()
    return made


TASK = Supply
