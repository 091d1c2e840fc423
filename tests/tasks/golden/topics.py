"""Texts of both languages by their terms: a model's last digits depend on the CPU."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.topics import Topics, TopicsSettings

SAID = ["the parcel came late by courier {}", "a refund of my money {} please", "发票抬头写错{}", "密码页面打不开{}"]


def outcome() -> Outcome:
    """Four texts of four topics each, and a strange one."""
    bodies = [said.format("abcdefghij"[i]) for said in SAID for i in range(4)] + ["llamas juggle"]
    keys = [f"{i:02d}" for i in range(len(bodies))]
    rows = pa.table({"id": keys, "body": bodies})
    settings = TopicsSettings(task="topics", input="rows", text="body", k=4, min_texts=10)
    task = Topics(settings, StepInput("rows", rows.schema, ("id",)), date(2026, 3, 10))
    found = task.features(Groups(task.combine(rows).rows, np.arange(len(bodies) + 1), rows.select(["id"])))
    task.fitted = task.fit(found.columns, None)
    return task.answer(found.columns)
