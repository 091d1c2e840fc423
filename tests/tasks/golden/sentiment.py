"""The built-in model and its aspects, in both languages."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.sentiment import Sentiment, SentimentSettings

TEXTS = [
    "The delivery was slow, but the battery is great. I would not return it.",
    "快递很快，包装破了。味道不错，就是分量有点少。",
    "I bought it in May.",
    "客服态度很差，再也不买了！",
    None,
]


def outcome() -> Outcome:
    rows = pa.table({"text": TEXTS})
    settings = SentimentSettings(task="sentiment", input="rows", text="text")
    task = Sentiment(settings, StepInput("rows", rows.schema), date(2026, 3, 10))
    task.open(None)  # type: ignore[arg-type]
    return task.answer(rows)
