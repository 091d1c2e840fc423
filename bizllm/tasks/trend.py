"""How volume, mean score and shares of labels go over time: alerts, changes of level, a forecast, and what they tell of
another series beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bizllm.methods import documents
from bizllm.methods.series import FREQUENCIES, WEEKDAYS, Calendar, aggregate
from bizllm.tasks import _trend
from bizllm.tasks._trend import Measure
from bizllm.tasks.base import (
    Combined,
    Groups,
    Learned,
    Outcome,
    Reject,
    Shape,
    StepInput,
    TableRead,
    Task,
    TaskSettings,
)

Array = npt.NDArray[np.float64]
Faults = list[tuple[str, object, str, str]]
_SHOWN = 8
_OWN = (
    "measure", "kind", "value", "rows", "expected", "z", "alert", "level", "change", "mean", "q10", "q90",
    "lead", "lead_correlation", "lead_p",
)  # fmt: skip


class Target(TableRead):
    """A series of numbers that the trends may foretell."""

    time: str = Field(description="Date or timestamp column.")
    value: str = Field(description="Column of numbers; several of one period are averaged. Returns, say, not prices.")
    series: str | None = Field(
        default=None, description="Column that tells for which group a number is, where `per` is one column."
    )


class TrendSettings(TaskSettings):
    """What `task: trend` takes."""

    per: list[str] = Field(min_length=1, description="Group columns: trends of each brand, product, shop.")
    time: str = Field(description="Date or timestamp column.")
    value: str | None = Field(default=None, description="Column of numbers to average: the `score` of sentiment.")
    label: str | None = Field(default=None, description="Column of labels, to count shares: those of classify.")
    freq: Literal["D", "W", "M", "MS"] = Field(
        default="D", description="Days, weeks or months. A period bears the date of its first day."
    )
    week_start: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    periods: PositiveInt = Field(default=90, description="The newest so many periods are told; all are looked at.")
    horizon: Annotated[int, Field(ge=0, le=365)] = Field(default=14, description="Periods of forecast; 0 for none.")
    alert_z: Annotated[float, Field(gt=0)] = Field(
        default=3.5, description="How many robust standard deviations off its past a period must be for an alert."
    )
    min_rows: PositiveInt = Field(default=5, description="A mean or share of fewer rows is told, but raises no alert.")
    shortest_level: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Periods that a level must last to be one; by default 14 days, or 4 weeks or months. Fewer tell a "
        "change sooner, and more changes that are none.",
    )
    labels: PositiveInt = Field(default=6, description="Shares of so many labels are told, a group's most frequent.")
    target: Target | None = Field(default=None, description="A table with a series that the trends may foretell.")
    max_lag: NonNegativeInt = Field(default=5, description="Periods by which the target may come earlier or later.")

    @model_validator(mode="after")
    def _one_series_a_group(self) -> TrendSettings:
        if self.target is not None and self.target.series is not None and len(self.per) != 1:
            raise ValueError("expected one column in `per` beside `target.series`")
        return self


class Trend(Task):
    """Periods of each group and measure; see `bizllm.methods.shifts` and `bizllm.methods.lead_lag`."""

    name = "trend"
    version = 1
    Settings = TrendSettings
    summary = "Volume, mean score and shares of labels over time, with alerts, changes of level and a forecast."
    takes = "Rows with a time and the columns of a group; maybe a number and a label, such as those of sentiment."
    example = (
        "brand_trend: {task: trend, input: review_mood, per: [brand], time: day, value: score, label: label, "
        "horizon: 14}"
    )
    shapes: ClassVar[tuple[Shape, ...]] = ("group",)
    writes: ClassVar[dict[str, str]] = {
        "<time>": "date: the first day of the period, under the time column's own name",
        "measure": "string: volume, score, or share:LABEL",
        "kind": "string: history or forecast",
        "value": "double: what it was; null in a forecast, and of score and shares where no row has one",
        "rows": "long: rows of the period",
        "expected": "double: what the periods before let expect; null where they are too few",
        "z": "double: how far value is off, in robust standard deviations of the periods before",
        "alert": "string: high or low where z says so, else null",
        "level": "double: mean of the value since its last change of level",
        "change": "double: by how much the level changed with this period; null where it did not",
        "mean": "double: of a forecast",
        "q10, q90": "double: quantiles of a forecast",
        "lead": "int: periods by which the measure is ahead of the target, where most correlated",
        "lead_correlation": "double: of what their own last values don't foretell",
        "lead_p": "double: how often chance gives as much at any lag; null without a target or with too few periods",
    }
    exhibits = "samples"
    settings: TrendSettings

    @property
    def shape(self) -> Shape:
        return "group"

    def group_by(self) -> list[str]:
        return list(self.settings.per)

    def keys(self) -> list[str]:
        return [*self.settings.per, self.settings.time, "measure"]

    def reads(self) -> list[str]:
        s = self.settings
        return list(dict.fromkeys([*s.per, s.time, *(c for c in (s.value, s.label) if c)]))

    def check(self) -> Faults:
        s, named = self.settings, self.source.schema.names
        faults = _trend.time_faults("time", s.time, self.source.schema)
        if s.value is not None:
            faults += _trend.number_faults("value", s.value, self.source.schema)
        for setting, column in [*(("per", c) for c in s.per), *([("label", s.label)] if s.label else [])]:
            faults += _trend.column_faults(setting, column, self.source.schema)
        if s.label in named and not documents.is_text(self.source.schema.field(s.label).type):
            faults.append(("label", s.label, "expected a string column", "cast it in the source's `select`"))
        if len({*s.per, s.time}) < len(s.per) + 1:
            faults.append(("per", s.per, "expected other columns than the time, each once", ""))
        for setting, column in [*(("per", c) for c in s.per), ("time", s.time)]:
            if column.lower() in _OWN:
                faults.append((setting, column, "expected a name that no output column has", "rename it in the source"))
        return faults + (self._target_faults(self.others["target"]) if s.target is not None else [])

    def _target_faults(self, given: StepInput) -> Faults:
        target = self.settings.target
        assert target is not None
        faults = _trend.time_faults("target.time", target.time, given.schema)
        faults += _trend.number_faults("target.value", target.value, given.schema)
        if target.series is not None:
            faults += _trend.column_faults("target.series", target.series, given.schema)
        return faults

    def columns(self) -> pa.Schema:
        kinds = {"measure": pa.string(), "kind": pa.string(), "alert": pa.string(), "rows": pa.int64()}
        kinds["lead"] = pa.int32()
        return pa.schema([(self.settings.time, pa.date32()), *((name, kinds.get(name, pa.float64())) for name in _OWN)])

    def rules(self) -> dict[str, str]:
        return {
            "a period is history or forecast": "kind in ('history', 'forecast')",
            "volume is counted": "measure <> 'volume' or kind <> 'history' or value = rows",
            "shares lie in [0, 1]": "not starts_with(measure, 'share:') or coalesce(value, 0) between 0 and 1",
            "an alert is off": f"alert is null or abs(z) >= {self.settings.alert_z!r}",
            "a forecast is a finite number": "kind <> 'forecast' or isfinite(mean) and q10 <= q90",
            "chance lies in (0, 1]": "lead_p is null or lead_p > 0 and lead_p <= 1",
        }

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return 0, rows * 2e-5

    # -- the work -------------------------------------------------------------------------------------------------

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        """The target by series and period; up to which day is for `answer`, since it stands on later nights, too."""
        target = self.settings.target
        assert target is not None
        rows = tables["target"]
        calendar = self._calendar_of(rows.schema.field(target.time).type)
        period, known = calendar.periods(rows[target.time])
        values = pc.fill_null(rows[target.value].cast(pa.float64(), safe=False), float("nan")).to_numpy()
        series = rows[target.series].cast(pa.string()) if target.series else pa.array([""] * len(rows), pa.string())
        used = pa.table(
            {"series": series, "__period": period, "__value": values, "__weight": np.ones(len(rows), np.int64)}
        ).filter(pa.array(known & np.isfinite(values)))
        means = aggregate(used, ["series"], "mean").sort_by([("series", "ascending"), ("__period", "ascending")])
        return {"target": means.append_column("value", pc.divide(means["__value"], means["__weight"]))}

    def combine(self, rows: pa.Table) -> Combined:
        s = self.settings
        if "__period" in rows.column_names:  # combined before
            return Combined(_trend.summed(rows, s.per))
        period, timed = self._calendar.periods(rows[s.time])
        values = np.full(len(rows), np.nan)
        if s.value is not None:
            values = pc.fill_null(rows[s.value].cast(pa.float64(), safe=False), float("nan")).to_numpy()
        rejects = [Reject(int(i), "no_time", "the time is null") for i in np.flatnonzero(~timed)]
        labels = rows[s.label].cast(pa.string()) if s.label else pa.nulls(len(rows), pa.string())
        used = _trend.sums(rows.select(s.per), period, values, labels)
        return Combined(_trend.summed(used.filter(pa.array(timed & (period <= self._last))), s.per), rejects)

    def answer(self, batch: Groups) -> Outcome:
        s = self.settings
        keys = [column.cast(pa.string()).to_pylist() for column in batch.keys.columns]
        subjects, tables, rejects, shown = [], [], [], []
        for group in range(len(batch)):
            first, end = int(batch.starts[group]), int(batch.starts[group + 1])
            found = _trend.measures(batch.rows.slice(first, end - first), self._calendar.unit, self._last, s.labels)
            if not found:
                rejects.append(Reject(group, "empty", "no row up to the last complete period"))
                continue
            name = " · ".join(column[group] for column in keys)
            rows = self._rows(found, self._target(keys[0][group]))
            shown += _trend.told(name, rows, s.time)
            subjects.append(np.full(len(rows), group))
            tables.append(pa.Table.from_pylist(rows, schema=self.columns()))
        shown = sorted(shown, key=lambda row: (-row["score"], row["title"]))[:_SHOWN]
        exhibit = pa.Table.from_pylist(shown, schema=_trend.EXHIBIT)
        columns = pa.concat_tables(tables) if tables else self.columns().empty_table()
        subject = np.concatenate([np.zeros(0, np.int64), *subjects])
        return Outcome(subject, columns, rejects, exhibit=exhibit)

    def _rows(self, found: list[Measure], target: tuple[Array, Array] | None) -> list[dict[str, Any]]:
        """The rows of one group, measure after measure."""
        s, rows = self.settings, []
        forecasts = _trend.forecasts(found, self._calendar.unit, self._last, s.horizon)
        for measure, forecast in zip(found, forecasts, strict=True):
            judged = _trend.judged(measure, self._calendar.unit, s.alert_z, s.min_rows, s.shortest_level)
            lead = _trend.lead(measure, target, s.max_lag) if target is not None else None
            common: dict[str, Any] = {"measure": measure.name, "kind": "history"}
            if lead is not None:
                common |= {"lead": lead.lag, "lead_correlation": lead.correlation, "lead_p": lead.p}
            days = self._calendar.starts(measure.first + np.arange(len(measure.values))).to_pylist()
            rows += [{**common, s.time: day, **row} for day, row in [*zip(days, judged, strict=True)][-s.periods :]]
            if forecast is None:
                continue
            days = self._calendar.starts(self._last + 1 + np.arange(s.horizon)).to_pylist()
            rows += [
                {**common, s.time: day, "kind": "forecast", "mean": mean, "q10": low, "q90": high}
                for day, mean, low, high in zip(days, *forecast, strict=True)
            ]
        return rows

    def _target(self, group: str) -> tuple[Array, Array] | None:
        """(periods, values) of the target for a group, up to the last complete period."""
        if self.settings.target is None or self.learned is None:
            return None
        periods, values = self._targets.get(group if self.settings.target.series else "", (np.zeros(0), np.zeros(0)))
        kept = periods <= self._last
        return periods[kept], values[kept]

    @cached_property
    def _targets(self) -> dict[str, tuple[Array, Array]]:
        assert self.learned is not None
        table: pa.Table = self.learned["target"]
        names = np.array(table["series"].to_pylist(), object)
        periods, values = table["__period"].to_numpy(), table["value"].to_numpy()
        return {name: (periods[names == name], values[names == name]) for name in dict.fromkeys(names)}

    def _calendar_of(self, kind: pa.DataType) -> Calendar:
        return Calendar(
            FREQUENCIES[self.settings.freq], WEEKDAYS.index(self.settings.week_start), getattr(kind, "tz", None)
        )

    @cached_property
    def _calendar(self) -> Calendar:
        return self._calendar_of(self.source.schema.field(self.settings.time).type)

    @cached_property
    def _last(self) -> int:
        return self._calendar.last_complete(self.run_date)


TASK = Trend
