"""Two groups: one with a spike of volume, one whose score falls for good; a target that follows the score."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.trend import Trend, TrendSettings

NIGHT = date(2026, 3, 10)


def outcome() -> Outcome:
    days = [NIGHT - timedelta(days=89 - i) for i in range(90)]
    rows = [
        {"brand": brand, "day": day, "score": 0.4 - 0.7 * (brand == "b" and i >= 60) + 0.2 * math.sin(i * 1.7 + k)}
        for brand in "ab"
        for i, day in enumerate(days)
        for k in range(4 + 3 * (day.weekday() >= 5) + 30 * (brand == "a" and i == 88))
    ]
    table = pa.Table.from_pylist([{**row, "label": "good" if row["score"] > 0 else "bad"} for row in rows])
    prices = pa.table({"day": days, "change": [math.sin((i - 2) * 1.7) for i in range(90)]})
    target = {"input": "prices", "time": "day", "value": "change"}
    settings = TrendSettings(
        task="trend", input="rows", per=["brand"], time="day", value="score", label="label", periods=8, horizon=2,
        target=target,
    )  # fmt: skip
    task = Trend(settings, StepInput("rows", table.schema), NIGHT, {"target": StepInput("prices", prices.schema)})
    task.learned = task.learn({"target": prices})
    combined = task.combine(table).rows.sort_by("brand")
    second = combined["brand"].to_pylist().index("b")
    return task.answer(Groups(combined, np.array([0, second, len(combined)]), pa.table({"brand": ["a", "b"]})))
