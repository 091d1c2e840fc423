"""Both languages, several layouts, most of what can be wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.orders import TASK, OrdersSettings

TEXTS = [
    "Please send us:\n- 12 x Larkfield kettle @ £38.99\n- 4 toasters\n\nTotal: £647.84\n\nPO number: PO-4711",
    "请发12个水壶和四台烤面包机，合计￥5,784.00。\n\n2026年6月3日，蕨谷 写道：\n> 20 把雨伞",
    "SKU | Item | Qty | Price\nP001 | Larkfeild kettle | 3 | £35.00\nP117 | flying carpet | 1 | £9.00",
    "We need 3 lamps, kettles and 2 boxes of toasters. Total: £10.00",
    "四台烤面包机，十二个水壶",
    "Thank you for the quick delivery.",
    None,
]


def outcome() -> Outcome:
    articles = pa.table(
        {
            "sku": ["P001", "P001", "P002", "P002", "P009", "P010"],
            "name": ["Larkfield kettle"] * 2 + ["Brackley toaster"] * 2 + ["Night light", "Desk lamp"],
            "aliases": [["kettle", "水壶"], [], ["toaster", "烤面包机"], [], ["lamp"], ["lamp"]],
            "unit": ["pcs"] * 6,
            "price": [38.99, 349.0, 44.99, 399.0, 14.99, 48.99],
            "currency": ["GBP", "CNY", "GBP", "CNY", "GBP", "GBP"],
        }
    )
    rows = pa.table(
        {
            "text": TEXTS,
            "who": ["C1", "C2", "C1", "C1", "C2", "C1", "C1"],
            "at": [datetime(2026, 3, 10, hour, tzinfo=UTC) for hour in range(len(TEXTS))],
        }
    )
    own = {column: column for column in ("sku", "name", "aliases", "unit", "price", "currency")}
    settings = OrdersSettings(
        task="orders",
        input="rows",
        text="text",
        customer="who",
        time="at",
        catalogue={"input": "articles", **own},  # type: ignore[arg-type]
        history={"input": "rows", "text": "text", "customer": "who", "time": "at"},  # type: ignore[arg-type]
    )
    others = {"catalogue": StepInput("articles", articles.schema), "history": StepInput("rows", rows.schema)}
    source, night = StepInput("rows", rows.schema), date(2026, 3, 10)
    learned = TASK(settings, source, night, others).learn({"catalogue": articles, "history": rows})
    task = TASK(settings, source, night, others, learned=learned)
    task.open(None)  # type: ignore[arg-type]  # it loads no model
    return task.answer(task.prepare(rows))
