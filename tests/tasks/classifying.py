"""A classify step as workers hold it: with a model, and with what it learned from examples."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.models.classifier import Classifier
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import StepInput
from bizllm.tasks.classify import TASK, ClassifySettings

Make = Callable[..., Path]


LABELS = ("refund", "delivery", "other", "invoice", "praise")


TEXTS = ["the lamp is broken", None, "水壶漏了", " ", "is the kettle ok?", "the lamp is broken", "b " * 100]


USABLE = [0, 2, 4, 5, 6]


SCHEMA = pa.schema([("body", pa.string()), ("other", pa.string()), ("n", pa.int64())])


def make(model: Path | str = "path:m", schema: pa.Schema = SCHEMA, **settings: Any) -> TASK:
    uri = f"path:{model}" if isinstance(model, Path) else model
    given = ClassifySettings(**{"task": "classify", "input": "t", "text": "body", "model": uri, **settings})
    return TASK(given, StepInput("t", schema), date(2026, 1, 1))


def answer(model: Path, texts: list[str | None] = TEXTS, **settings: Any) -> tuple[TASK, Any]:
    rows = pa.table({"body": texts, "other": ["the lamp"] * len(texts), "n": [1] * len(texts)}, schema=SCHEMA)
    task = make(model, **settings)
    task.open(ModelLoader())
    outcome = task.answer(task.prepare(rows.select(task.reads())))
    assert outcome.columns.schema == task.columns()
    return task, outcome


def probabilities(folder: Path, texts: list[str | None] = TEXTS) -> np.ndarray:
    return Classifier.load(folder).probabilities([texts[i] for i in USABLE])[0]


KINDS = {"delivery": "the parcel came late by courier", "refund": "i want my money back"}


KNOWN = pa.table(
    {
        "said": ["where is my parcel", "the courier is late", "give me my money back", "a refund please"] * 3 + [None],
        "kind": ["delivery", "delivery", "refund", "refund"] * 3 + ["refund"],
    }
)


ASKED = ["my parcel is late", None, "money back please", "the courier lost the parcel"]


def learned(
    known: pa.Table | None = KNOWN, asked: list[str | None] = ASKED, names: pa.Table | None = None, **settings: Any
) -> tuple[TASK, Any]:
    """A task that learned from `known` (and `names`), on this side as on a worker's, and what it says of `asked`."""
    tables = {"examples": known, "knowledge": names if names is not None else known}
    examples = {"input": "labelled", "text": "said", "label": "kind"}
    given = ClassifySettings(**{"task": "classify", "input": "t", "text": "body", "examples": examples, **settings})
    others = {name: StepInput("labelled", tables[name].schema) for name in given.tables()}
    task = TASK(given, StepInput("t", SCHEMA), date(2026, 1, 1), others)
    assert task.check() == []
    task.open(ModelLoader())
    if others:
        state = task.learn({name: tables[name] for name in others})
        task = TASK(given, StepInput("t", SCHEMA), date(2026, 1, 1), others, learned=state)
        task.open(ModelLoader())
    outcome = task.answer(pa.table({"body": asked}))
    assert outcome.columns.schema == task.columns()
    return task, outcome
