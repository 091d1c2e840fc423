"""Two languages, by terms alone: a model's last digits depend on the CPU."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.tasks.answer import TASK, AnswerSettings
from bizllm.tasks.base import Outcome, StepInput

ARTICLES = pa.table(
    {
        "id": ["a1", "a2", "a3", "a4"],
        "title": ["Refunds", "Delivery", "退款", "配送"],
        "text": [
            "Send the parcel back within 30 days. Refunds take five working days. Vouchers are not refunded.",
            "We deliver within three days. The courier calls before. Islands take a week.",
            "收到退货后五个工作日内退款。优惠券不予退款。",
            "下单后三天内送达。快递员会提前打电话。偏远地区需要一周。",
        ],
    }
)
ASKED = ["How long does a refund take?", "快递员会打电话吗？", None, "will the courier call", "qwxz"]


def outcome() -> Outcome:
    columns = {"input": "articles", "id": "id", "title": "title", "text": "text"}
    settings = AnswerSettings(task="answer", input="rows", text="text", passages=columns, candidates=2)
    rows = pa.table({"text": ASKED})
    others = {"passages": StepInput("articles", ARTICLES.schema)}
    source, night = StepInput("rows", rows.schema), date(2026, 3, 10)
    learned = TASK(settings, source, night, others).learn({"passages": ARTICLES})
    task = TASK(settings, source, night, others, learned=learned)
    task.open(None)  # type: ignore[arg-type]
    return task.answer(rows)
