"""Both languages, every type that needs no model, a company's own names."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.extract import TASK, ExtractSettings

TEXTS = [
    "Order PO-48063: two dozen power banks at £33.99, total £815.76, by next Friday. 5% off, warranty 2 years.",
    "订单KD2026001：二十五个充电宝，￥309一个，合计七千七百二十五元，请下周五前送到，保修两年。",
    "Ring me on +44 20 7946 0958 or write to Shop@example.com before 03/07/2026.",
    "Nothing of the kind.",
    None,
]
FIELDS = {
    "order_no": {"type": "code", "near": ["order", "订单"], "required": True},
    "total": {"type": "amount", "near": ["total", "合计"]},
    "by": {"type": "date", "near": ["by", "before", "请", "前"]},
    "warranty": {"type": "duration", "near": ["warranty", "保修"]},
    "off": {"type": "percent"},
    "email": {"type": "email"},
    "phone": {"type": "phone"},
    "product": {"type": "term", "many": True},
    "prices": {"type": "amount", "many": True},
}


def outcome() -> Outcome:
    rows = pa.table({"text": TEXTS})
    names = pa.table({"alias": ["power bank", "充电宝"], "is": ["P024", "P024"]})
    knowledge = {"input": "names", "term": "alias", "means": "is"}
    settings = ExtractSettings(task="extract", input="rows", text="text", fields=FIELDS, knowledge=knowledge)
    others = {"knowledge": StepInput("names", names.schema)}
    source = StepInput("rows", rows.schema)
    learned = TASK(settings, source, date(2026, 3, 10), others).learn({"knowledge": names})
    task = TASK(settings, source, date(2026, 3, 10), others, learned=learned)
    task.open(None)  # type: ignore[arg-type]  # it loads no model
    return task.answer(task.prepare(rows))
