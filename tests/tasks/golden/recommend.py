"""A small shop of two shelves, a new item that is reached by its text, and a customer who only looked."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.recommend import Recommend, RecommendSettings

NIGHT = date(2026, 3, 10)


def outcome() -> Outcome:
    """Of the first customers; neighbours alone, since 40 customers make no backtest."""
    shelves = [["kettle", "teapot", "cup"], ["铁锹", "水管", "花种"]]
    lines = [
        {"customer": f"c{c:02d}", "item": item, "day": NIGHT - timedelta(days=(7 * c + 11 * i) % 80), "many": 1 + i % 2}
        for c in range(18)
        for i, item in enumerate(shelves[c % 2])
        if (c // 2 + i) % 3
    ]
    lines.append({"customer": "c18", "item": None, "day": NIGHT, "many": 1})
    lines.append({"customer": "c19", "item": "cup", "day": NIGHT + timedelta(days=1), "many": 1})
    rows = pa.Table.from_pylist(lines)
    texts = {"kettle": "An electric kettle", "teapot": "A stoneware teapot for loose tea", "cup": "A thin cup"}
    texts |= {
        "铁锹": "钢制铁锹",
        "水管": "浇花用的水管",
        "花种": "野花的种子",
        "teapot_blue": "A blue stoneware teapot for tea",
    }
    items = pa.table({"item": [*texts], "about": [*texts.values()], "name": [name.title() for name in texts]})
    settings = RecommendSettings(
        task="recommend",
        input="lines",
        entity="customer",
        item="item",
        time="day",
        weight="many",
        k=3,
        items={"input": "items", "item": "item", "text": "about", "title": "name"},
    )
    step = StepInput("lines", rows.schema)
    task = Recommend(settings, step, NIGHT, {"history": step, "items": StepInput("items", items.schema)})
    task.learned = task.learn({"history": rows, "items": items})
    task.open(None)  # type: ignore[arg-type]  # it loads no model
    combined = task.combine(rows).rows.sort_by("customer")
    keys = [*(f"c{c:02d}" for c in range(4)), "c18", "c19"]
    who = np.array(combined["customer"].to_pylist())
    wanted = np.isin(who, keys)
    starts = np.append(np.searchsorted(who[wanted], keys), wanted.sum())
    return task.answer(Groups(combined.filter(pa.array(wanted)), starts.astype(np.int64), pa.table({"customer": keys})))
