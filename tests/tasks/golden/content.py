"""Readers of English and Chinese articles on two topics each, and one who read nothing."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.content import Content, ContentSettings

NIGHT = date(2026, 3, 10)
TEXTS = {
    "tea": ["Green tea wants cool water.", "Oolong tea in a clay pot.", "Keep tea dry and tea will keep."],
    "roses": ["Roses after the frost.", "Water roses at the root.", "Climbing roses want a support."],
    "茶": ["绿茶的水温不能太高。", "乌龙茶用紫砂壶泡。", "茶叶要放在干燥的地方。"],
    "月季": ["霜冻之后修剪月季。", "月季要浇在根部。", "爬藤月季需要支架。"],
}


def outcome() -> Outcome:
    """By words alone: a model's last digits depend on the CPU."""
    articles = pa.Table.from_pylist(
        [
            {"id": f"{topic}{i}", "body": text, "out": NIGHT - timedelta(days=8 - 4 * i), "topic": topic}
            for topic, texts in TEXTS.items()
            for i, text in enumerate(texts)
        ]
    )
    clicks = pa.Table.from_pylist(
        [
            *({"who": f"reader of {topic}", "id": f"{topic}0", "at": NIGHT - timedelta(days=3)} for topic in TEXTS),
            {"who": "reader of both", "id": "tea0", "at": NIGHT},
            {"who": "reader of both", "id": "茶1", "at": NIGHT - timedelta(days=20)},
            {"who": "nobody", "id": None, "at": NIGHT},
            {"who": "tomorrow", "id": "tea0", "at": NIGHT + timedelta(days=1)},
        ]
    )
    settings = ContentSettings(
        task="content",
        input="clicks",
        entity="who",
        item="id",
        time="at",
        k=2,
        articles={"input": "articles", "item": "id", "text": "body", "published": "out", "topic": "topic"},
    )
    step = StepInput("clicks", clicks.schema)
    task = Content(settings, step, NIGHT, {"history": step, "articles": StepInput("articles", articles.schema)})
    task.learned = task.learn({"history": clicks, "articles": articles})
    task.open(None)  # type: ignore[arg-type]  # it loads no model
    combined = task.combine(clicks).rows.sort_by("who")
    keys = sorted(set(clicks["who"].to_pylist()))
    starts = np.append(np.searchsorted(np.array(combined["who"].to_pylist()), keys), combined.num_rows)
    return task.answer(Groups(combined, starts.astype(np.int64), pa.table({"who": keys})))
