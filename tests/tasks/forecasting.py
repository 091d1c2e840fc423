"""A forecast step and its series, as the engine hands them over."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput, task_class

Forecast = task_class("forecast")


SCHEMA = pa.schema(
    [("store", pa.string()), ("sku", pa.int64()), ("day", pa.date32()), ("units", pa.float64()), ("note", pa.string())]
)


TODAY = date(2024, 6, 9)  # a Sunday


def new_task(schema: pa.Schema = SCHEMA, run_date: date = TODAY, **changes: Any) -> Any:
    given = {"task": "forecast", "input": "sales", "series": ["store", "sku"], "time": "day", "target": "units"}
    return Forecast(
        Forecast.Settings(**(given | {"freq": "D", "horizon": 7} | changes)), StepInput("f", schema), run_date
    )


def rows_of(series: dict[tuple[str, int], Any], end: date = TODAY) -> pa.Table:
    """One row a day for each series, the last on `end`."""
    rows = [
        (*key, end - timedelta(days=len(values) - 1 - i), value, None)
        for key, values in series.items()
        for i, value in enumerate(values)
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)], schema=SCHEMA)


def gathered(task: Any, tables: list[pa.Table]) -> Groups:
    """What the engine makes of several units' combined rows."""
    rows = pa.concat_tables([task.combine(t.select(task.reads())).rows for t in tables])
    by = task.group_by()
    rows = rows.sort_by([(name, "ascending") for name in by])
    labels = [tuple(row.values()) for row in rows.select(by).to_pylist()]
    keys = sorted(set(labels))
    starts = np.array([labels.index(key) for key in keys] + [len(labels)], np.int64)
    table = [pa.array(c, task.source.schema.field(n).type) for n, c in zip(by, zip(*keys, strict=True), strict=True)]
    return Groups(rows, starts, pa.table(table, names=by))


def answered(task: Any, *tables: pa.Table) -> Outcome:
    return task.answer(gathered(task, list(tables)))


def shop(days: int = 120, seed: int = 0) -> np.ndarray:
    week = np.tile([20, 18, 17, 19, 25, 40, 35], days // 7 + 1)[-days:]
    return np.random.default_rng(seed).poisson(week).astype(float)
