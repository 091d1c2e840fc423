"""Two suppliers, one of them slow, and one that nobody knows."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.supply import TASK, SupplySettings

NIGHT = date(2026, 3, 10)


def outcome() -> Outcome:
    """Some are still out; one row has no day of its order."""
    past = []
    for i in range(120):
        ordered, slow = NIGHT - timedelta(days=3 * i), i % 3 == 0
        took = (24 if slow else 9) + i * 7 % 5
        arrived = ordered + timedelta(days=took)
        past.append(
            {
                "supplier": "慢工" if slow else "Swift",
                "lane": "海运" if i % 2 else "road",
                "ordered": ordered,
                "promised": ordered + timedelta(days=14),
                "arrived": arrived if arrived <= NIGHT else None,
            }
        )
    shipments = pa.Table.from_pylist(past)
    rows = pa.table(
        {
            "supplier": ["慢工", "Swift", "Nobody", "Swift", "Swift"],
            "lane": ["海运", "road", "road", None, "road"],
            "ordered": pa.array([NIGHT - timedelta(days=n) if n else None for n in (10, 3, 5, 20, 0)], pa.date32()),
            "promised": pa.array([NIGHT + timedelta(days=n) if n else None for n in (4, 11, 0, -6, 1)], pa.date32()),
        }
    )
    settings = SupplySettings.model_validate(
        {
            "task": "supply",
            "input": "open",
            "ordered": "ordered",
            "promised": "promised",
            "factors": ["supplier", "lane"],
            "shipments": {"input": "s", "ordered": "ordered", "promised": "promised", "arrived": "arrived"},
        }
    )
    task = TASK(settings, StepInput("open", rows.schema), NIGHT, {"shipments": StepInput("s", shipments.schema)})
    task.learned = task.learn({"shipments": shipments})
    return task.answer(rows)
