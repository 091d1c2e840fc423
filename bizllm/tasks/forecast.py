"""The next periods of every series: mean and quantiles, by a few methods combined and held against seasonal naive.

History ends with the last complete period up to the run date; rows after it change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveInt, field_validator

from bizllm.errors import nearest
from bizllm.methods import drivers, forecasters, number_text
from bizllm.methods.series import (
    FREQUENCIES,
    LONG_SEASONS,
    SEASONS,
    WEEKDAYS,
    Aggregate,
    Calendar,
    Fill,
    History,
    aggregate,
    histories,
)
from bizllm.models.classifier import NUMBERS, Classifier
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _explain, _texts
from bizllm.tasks.base import Combined, Groups, Models, Outcome, Reject, Shape, Task, TaskSettings

Array = npt.NDArray[np.float64]
Level = Annotated[float, Field(gt=0.0, lt=1.0)]
SHOWN_SERIES, SHOWN_PERIODS = 6, 120  # what the night's report may draw of a batch


class ForecastSettings(_explain.Explained):
    """What `task: forecast` takes."""

    series: list[str] = Field(min_length=1, description="Columns that tell one series from another.")
    time: str = Field(description="Date or timestamp column.")
    target: str = Field(description="Column of numbers to forecast.")
    freq: Literal["H", "h", "D", "W", "M", "MS", "Q", "QS", "Y", "YS"] = Field(
        description="Hours, days, weeks, months, quarters or years. A period bears the date of its first day."
    )
    horizon: Annotated[int, Field(ge=1, le=1000)] = Field(description="Periods ahead.")
    levels: list[Level] = Field(default=[0.1, 0.5, 0.9], min_length=1, description="Quantiles: 0.1 is column q10.")
    agg: Aggregate = Field(default="sum", description="What becomes of several rows of one period.")
    fill: Fill | None = Field(
        default=None,
        description="Periods without a row: zero, missing (interpolated; the history ends with its last row) or "
        "forward (the value before). By default zero for sum and count, missing for the others.",
    )
    week_start: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    season_length: PositiveInt | None = Field(default=None, description="Periods in a season; by default of the freq.")
    min_history: PositiveInt = Field(default=3, description="Periods under which a series is rejected as too_short.")
    non_negative: bool | None = Field(
        default=None, description="No forecast under zero; by default where the history was never negative."
    )
    model: str | None = Field(
        default=None,
        description="A model that was fine-tuned on histories of numbers (regression or quantile); it takes part where "
        "that makes a series' backtest better.",
    )
    top: PositiveInt | None = Field(
        default=None, description="Forecast only so many series, those with the largest total in the kept history."
    )

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: list[float]) -> list[float]:
        if len({level_column(level) for level in levels}) < len(levels):
            raise ValueError("expected every level once")
        return sorted(levels)


def level_column(level: float) -> str:
    """q10 for 0.1, q2_5 for 0.025."""
    return "q" + f"{100 * level:.6f}".rstrip("0").rstrip(".").replace(".", "_")


class Forecast(Task):
    name: ClassVar[str] = "forecast"
    version: ClassVar[int] = 3
    Settings: ClassVar[type[TaskSettings]] = ForecastSettings
    summary: ClassVar[str] = "Forecasts many series with quantiles; needs a time, a number and the series' columns."
    takes = "Rows with a time, a number, and the columns that tell a series."
    example = (
        "demand: {task: forecast, input: sales, series: [store, sku], time: day, target: units, freq: D, horizon: 28}"
    )
    shapes: ClassVar[tuple[Shape, ...]] = ("group", "table")  # table with `top`
    writes: ClassVar[dict[str, str]] = {
        "<time>": "date or timestamp: first moment of the period, under the time column's own name",
        "mean": "double: expected value",
        "q<level>": "double: a quantile for each of `levels`: q10, q50, q90; q2_5 for 0.025",
        "method": "string: which methods took part",
        "backtest_smape": "double: sMAPE in percent on the rolling-origin backtest; null where history is too short",
        "backtest_mase": "double: MASE on the same backtest",
        "drivers": "list of {driver, effect}, with `explain`: level, recent, season and trend, largest first; they add "
        "up to `mean`",
    }
    exhibits: ClassVar[Literal["series"]] = "series"

    _model: Classifier | None = None

    # -- what it reads and writes ---------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        return "group" if self.settings.top is None else "table"

    def group_by(self) -> list[str]:
        return list(self.settings.series)

    def keys(self) -> list[str]:
        return [*self.settings.series, self.settings.time]

    def reads(self) -> list[str]:
        return list(dict.fromkeys([*self.settings.series, self.settings.time, self.settings.target]))

    def check(self) -> list[tuple[str, object, str, str]]:
        s, schema = self.settings, self.source.schema
        faults: list[tuple[str, object, str, str]] = []
        for setting, names in (("series", s.series), ("time", [s.time]), ("target", [s.target])):
            faults += [
                (
                    setting,
                    name,
                    f"expected a column of the input: {', '.join(schema.names)}",
                    nearest(name, schema.names),
                )
                for name in names
                if name not in schema.names
            ]
        if not faults:
            time, target = schema.field(s.time).type, schema.field(s.target).type
            if not (pa.types.is_date(time) or pa.types.is_timestamp(time)):
                faults.append(
                    ("time", s.time, f"expected a date or timestamp column, it is {time}", "cast in `select`")
                )
            number = pa.types.is_integer(target) or pa.types.is_floating(target) or pa.types.is_decimal(target)
            if not number and s.agg != "count":
                faults.append(("target", s.target, f"expected a column of numbers, it is {target}", "cast in `select`"))
        if s.time in s.series or s.target in s.series or len(set(s.series)) < len(s.series):
            faults.append(("series", s.series, "expected other columns than time and target, each once", ""))
        own = {"mean", "method", "backtest_smape", "backtest_mase", *map(level_column, s.levels)}
        own |= {"drivers"} if s.explain else set()
        for setting, names in (("series", s.series), ("time", [s.time])):
            faults += [
                (setting, name, "expected a name that no output column has", "rename it in the source")
                for name in names
                if name.lower() in own
            ]
        return faults

    def columns(self) -> pa.Schema:
        calendar = self._calendar
        levels = [(level_column(level), pa.float64()) for level in self.settings.levels]
        time = pa.timestamp("us", calendar.zone) if calendar.unit == "H" else pa.date32()
        last = [("method", pa.string()), ("backtest_smape", pa.float64()), ("backtest_mase", pa.float64())]
        last += [_explain.EFFECTS] if self.settings.explain else []
        return pa.schema([(self.settings.time, time), ("mean", pa.float64()), *levels, *last])

    def rules(self) -> dict[str, str]:
        names = ["mean", *map(level_column, self.settings.levels)]
        rules = {"forecasts are finite numbers": " and ".join(f'isfinite("{name}")' for name in names)}
        pairs = list(pairwise(names[1:]))
        if pairs:
            rules["quantiles in order"] = " and ".join(f'"{low}" <= "{high}"' for low, high in pairs)
        if self.settings.non_negative:
            rules["no forecast is negative"] = " and ".join(f'"{name}" >= 0' for name in names)
        rules |= _explain.EFFECT_RULES if self.settings.explain else {}
        return rules

    def models(self) -> dict[str, str]:
        return {"model": self.settings.model} if self.settings.model else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        if not self.settings.model:
            return []
        faults = _texts.objective_faults(self.name, self.settings.model, infos["model"], NUMBERS)
        if not faults and (info := infos["model"]) is not None and info.inputs != "numbers":
            faults.append(
                ("model", self.settings.model, f"expected a model of numbers; this one reads {info.inputs}", "")
            )
        return faults

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        tokens, seconds = _texts.model_cost(0, 5 * rows) if self.settings.model else (0, 0.0)  # 13 windows of 64 values
        return tokens, seconds + rows * 2e-5  # 4 ms, and those windows, for 200 days

    # -- the work -------------------------------------------------------------------------------------------------

    def open(self, models: Models) -> None:
        self._model = models.classifier(self.settings.model) if self.settings.model else None

    def combine(self, rows: pa.Table) -> Combined:
        s = self.settings
        if "__period" in rows.column_names:  # combined before
            return Combined(aggregate(rows, s.series, s.agg))
        period, timed = self._calendar.periods(rows[s.time])
        if s.agg == "count":
            valued, values = rows[s.target].is_valid().to_numpy(), np.ones(len(rows))
        else:
            values = pc.fill_null(rows[s.target].cast(pa.float64(), safe=False), float("nan")).to_numpy()
            valued = np.isfinite(values)
        rejects = [Reject(int(i), "no_time", "the time is null") for i in np.flatnonzero(~timed)]
        rejects += [
            Reject(int(i), "no_value", "the target is null or no finite number")
            for i in np.flatnonzero(timed & ~valued)
        ]
        weight = np.ones(len(rows), np.int64)
        if s.agg == "last":
            exact = pa.timestamp("us", self._calendar.zone)
            weight = pc.fill_null(rows[s.time].cast(exact, safe=False).cast(pa.int64()), 0).to_numpy()
        used = rows.select(s.series)
        for name, column in (("__period", period), ("__value", values), ("__weight", weight)):
            used = used.append_column(name, pa.array(column))
        keep = timed & valued & (period <= self._last)
        return Combined(aggregate(used.filter(pa.array(keep)), s.series, s.agg), rejects)

    def answer(self, batch: Groups | pa.Table) -> Outcome:
        """Groups, or with `top` the features of the groups."""
        if isinstance(batch, Groups):
            return self._forecast(list(self._histories(batch)), _labels(batch.keys))
        assert self.fitted is not None, "a table task answers after its fit"
        labels, wanted = _labels(batch.select(self.settings.series)), set(self.fitted["series"])
        found = [
            History(np.asarray(values, np.float64), last) if label in wanted else None
            for label, values, last in zip(labels, batch["history"].to_pylist(), batch["last"].to_pylist(), strict=True)
        ]
        return self._forecast(found, labels)

    def features(self, groups: Groups) -> Outcome:
        found = list(self._histories(groups))
        table = pa.table(
            {
                "size": pa.array([float(h.values.sum()) for h in found], pa.float64()),
                "last": pa.array([h.last for h in found], pa.int64()),
                "history": pa.array([h.values for h in found], pa.list_(pa.float64())),
            }
        )
        return Outcome(np.arange(len(groups)), table)

    def fit(self, features: pa.Table, previous: dict[str, Any] | None) -> dict[str, Any]:
        """The largest series, exactly, among those that the fit gets to see; ties by their keys."""
        sizes = features["size"].to_pylist()
        ranked = sorted(
            zip(sizes, _labels(features.select(self.settings.series)), strict=True),
            key=lambda series: (-series[0], series[1]),
        )
        return {"series": [label for _, label in ranked[: self.settings.top]]}

    def _histories(self, groups: Groups) -> Iterator[History]:
        s, unit = self.settings, self._calendar.unit
        fill: Fill = s.fill or ("zero" if s.agg in ("sum", "count") else "missing")
        return histories(groups.rows, groups.starts, s.agg, fill, unit, self._last)

    def _forecast(self, given: Sequence[History | None], labels: Sequence[str]) -> Outcome:
        """Answer each history in turn; None is a series that was not asked for."""
        faults = {i: self._unusable(history) for i, history in enumerate(given) if history is not None}
        usable = {i: history for i, history in enumerate(given) if history is not None and faults[i] is None}
        requests = {i: self._request(history) for i, history in usable.items()}
        learned, tokens = self._learned(list(usable.values()), list(requests.values()))
        floors = [self._floor(history) for history in usable.values()]
        found = forecasters.forecast_many([h.values for h in usable.values()], list(requests.values()), floors, learned)
        answers: dict[int, forecasters.Forecast] = {}
        for (i, history), made in zip(usable.items(), found, strict=True):
            if made is None:
                faults[i] = ("failed", "no method gave finite numbers")
            else:  # of the periods after the last complete one
                gap = self._last - history.last
                answers[i] = replace(made, mean=made.mean[gap:], quantiles=made.quantiles[:, gap:]) if gap else made
        rejects = [Reject(i, *fault) for i, fault in faults.items() if fault is not None]
        skipped = [i for i, history in enumerate(given) if history is None]
        return Outcome(
            np.repeat(np.array(list(answers), np.int64), self.settings.horizon),
            self._table(answers, usable),
            rejects,
            tokens,
            exhibit=self._exhibit(given, answers, labels),
            skipped=np.array(skipped, np.int64),
        )

    def _unusable(self, history: History) -> tuple[str, str] | None:
        periods, least = len(history.values), self.settings.min_history
        if not periods:
            return "empty", "no usable row up to the last complete period"
        if periods < least:
            return "too_short", f"{periods} periods of history, at least {least} needed"
        if self._last - history.last > periods:
            return "too_short", f"the history ended {self._last - history.last} periods ago and has {periods}"
        return None

    def _request(self, history: History) -> forecasters.Request:
        """Up to the last period asked for, also where the history ended before the last complete one."""
        s, unit = self.settings, self._calendar.unit
        season = s.season_length or SEASONS[unit]
        year = LONG_SEASONS.get(unit) if s.season_length is None else None
        return forecasters.Request(season, self._last - history.last + s.horizon, tuple(s.levels), year)

    def _floor(self, history: History) -> bool:
        """Whether nothing may fall under zero."""
        asked = self.settings.non_negative
        return bool(history.values.min() >= 0) if asked is None else asked

    def _learned(
        self, given: Sequence[History], requests: Sequence[forecasters.Request]
    ) -> tuple[list[Array | None], int]:
        """(what the trained model says of each history, at every origin of its backtest and at its end; tokens read).

        All windows of all series in one call, so that the model's batches are full.
        """
        if self._model is None or not given:
            return [None] * len(given), 0
        cuts = [forecasters.cutoffs(h.values, request) for h, request in zip(given, requests, strict=True)]
        known = [h.values[:cut] for h, at in zip(given, cuts, strict=True) for cut in at]
        made, tokens = number_text.forecast(known, max(request.horizon for request in requests), self._numbers)
        of_each = np.split(made, np.cumsum([len(at) for at in cuts])[:-1])
        paths = [path[:, : r.horizon] if len(path) else None for path, r in zip(of_each, requests, strict=True)]
        return paths, tokens

    def _numbers(self, texts: Sequence[str]) -> tuple[Array, npt.NDArray[np.int64]]:
        """(the model's next numbers (texts, its horizon), of a quantile model the median; tokens (texts,))."""
        assert self._model is not None
        numbers, tokens = self._model.logits(texts)  # of a model of numbers they are the numbers
        info = self._model.info
        levels = info.levels or (0.5,)
        middle = int(np.argmin(np.abs(np.array(levels) - 0.5)))
        return numbers.astype(np.float64).reshape(len(texts), info.horizon, len(levels))[:, :, middle], tokens

    def _table(self, answered: Mapping[int, forecasters.Forecast], given: Mapping[int, History]) -> pa.Table:
        horizon, schema, answers = self.settings.horizon, self.columns(), list(answered.values())
        times = self._calendar.starts(self._last + 1 + np.tile(np.arange(horizon), len(answers)))
        paths = [np.zeros((1 + len(self.settings.levels), 0)), *(np.vstack([a.mean, a.quantiles]) for a in answers)]
        columns: list[Any] = [times, *np.hstack(paths)]
        for said in ("method", "smape", "mase"):
            columns.append([getattr(a, said) for a in answers for _ in range(horizon)])
        if self.settings.explain:
            season = self.settings.season_length or SEASONS[self._calendar.unit]
            known = ((given[i], a.mean) for i, a in answered.items())
            effects = (drivers.of_forecast(h.values, mean, season, self._last - h.last) for h, mean in known)
            columns.append([told for of_series in effects for told in _explain.effects(of_series)])
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)

    def _exhibit(
        self, given: Sequence[History | None], answers: dict[int, forecasters.Forecast], labels: Sequence[str]
    ) -> pa.Table:
        """Recent history of the batch's largest and worst-predicted series; `error` is the backtest MASE.

        Not sMAPE: it is near 200 for every intermittent series, whatever one forecasts.
        """
        size = {i: float(h.values.sum()) for i in answers if (h := given[i]) is not None}
        largest = sorted(size, key=lambda i: -size[i])[:SHOWN_SERIES]
        scored = {i: a.mase for i, a in answers.items() if a.mase is not None}
        worst = sorted(scored, key=lambda i: -scored[i])[:SHOWN_SERIES]
        rows: list[tuple[str, int, float, float, float | None]] = []
        for i in dict.fromkeys([*largest, *worst]):
            history = given[i]
            assert history is not None
            tail = history.values[-SHOWN_PERIODS:].tolist()
            first = history.last - len(tail) + 1
            rows += [(labels[i], first + k, value, size[i], scored.get(i)) for k, value in enumerate(tail)]
        names, periods, values, sizes, errors = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return pa.table(
            {
                "series": pa.array(names, pa.string()),
                "time": self._calendar.starts(np.array(periods, np.int64)),
                **{n: pa.array(c, pa.float64()) for n, c in (("value", values), ("size", sizes), ("error", errors))},
            }
        )

    @cached_property
    def _calendar(self) -> Calendar:
        s = self.settings
        zone = getattr(self.source.schema.field(s.time).type, "tz", None)
        return Calendar(FREQUENCIES[s.freq], WEEKDAYS.index(s.week_start), zone)

    @cached_property
    def _last(self) -> int:
        return self._calendar.last_complete(self.run_date)


def _labels(keys: pa.Table) -> list[str]:
    """(groups,) what a report calls each series: its keys, joined."""
    columns = [column.cast(pa.string()).to_pylist() for column in keys.columns]
    return [" · ".join(row) for row in zip(*columns, strict=True)]


TASK = Forecast
