"""Two markets: one of scores and aspects, with a planted strength, over two windows."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.compare import Compare, CompareSettings

NIGHT = date(2026, 3, 10)
TEXTS = [
    "{} has fast delivery.",
    "{} was slow, and the delivery man rude.",
    "{}的质量不错，但是快递慢。",
    "I saw {} in May.",
]


def outcome() -> Outcome:
    rows = [
        {
            "market": "m",
            "id": i,
            "day": NIGHT - timedelta(days=i),
            "body": TEXTS[i % 4 if k else i % 2 * 2].format(name),
        }
        for i in range(40)
        for k, name in enumerate(("Aldermoor", "桦线"))
    ]
    table = pa.Table.from_pylist(rows)
    settings = CompareSettings(
        task="compare", input="rows", per=["market"], text="body", document="id", time="day",
        brands={"Aldermoor": [], "Birchline": ["桦线"]}, quotes=1,
    )  # fmt: skip
    task = Compare(settings, StepInput("rows", table.schema), NIGHT)
    combined = task.combine(table).rows
    return task.answer(Groups(combined, np.array([0, len(combined)]), pa.table({"market": ["m"]})))
