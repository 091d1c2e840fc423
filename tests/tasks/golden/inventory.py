"""A steady seller, a rare one, and one without stock."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.inventory import TASK, InventorySettings

NIGHT = date(2026, 3, 10)


def outcome() -> Outcome:
    """Costs decide for the first, the service level for the second."""
    days = [NIGHT + timedelta(days=i + 1) for i in range(14)]
    rows = [
        {
            "sku": sku,
            "day": day,
            "mean": mean * (1 + 0.3 * (day.weekday() >= 5)),
            "q10": low,
            "q50": middle,
            "q90": high,
        }
        for sku, mean, low, middle, high in (
            ("灯", 12.0, 6.0, 12.0, 20.0),
            ("vase", 0.2, 0.0, 0.0, 0.4),
            ("x", 1, 0, 1, 2),
        )
        for day in days
    ]
    forecast = pa.Table.from_pylist(rows)
    stock = pa.table(
        {
            "sku": ["灯", "vase"],
            "there": [30, 0],
            "lead": [4.0, 5.0],
            "sd": [1.0, 0.0],
            "margin": [8.0, None],
            "pack": [6, 1],
        }
    )
    sold = [{"sku": "灯", "day": NIGHT - timedelta(days=i), "units": 8 + i * 7 % 11} for i in range(100)]
    history = pa.Table.from_pylist(sold)
    settings = InventorySettings.model_validate(
        {
            "task": "inventory",
            "input": "f",
            "item": ["sku"],
            "time": "day",
            "review_days": 3,
            "language": "zh",
            "stock": {
                "input": "stock",
                "on_hand": "there",
                "lead_time": "lead",
                "lead_time_sd": "sd",
                "holding_cost": 0.05,
                "shortage_cost": "margin",
                "order_cost": 4,
                "pack": "pack",
            },
            "history": {"input": "sales", "time": "day", "target": "units"},
        }
    )
    others = {"stock": StepInput("stock", stock.schema), "history": StepInput("sales", history.schema)}
    task = TASK(settings, StepInput("f", forecast.schema), NIGHT, others)
    task.learned = task.learn({"stock": stock, "history": history})
    keys = pa.table({"sku": ["灯", "vase", "x"]})
    return task.answer(Groups(forecast, np.array([0, 14, 28, 42]), keys))
