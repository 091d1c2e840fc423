from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.models.tagger import Word
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.mask import TASK, MaskSettings, entity_of

SCHEMA = pa.schema([("id", pa.string()), ("body", pa.string()), ("note", pa.string()), ("n", pa.int64())])


def make(**settings: Any) -> TASK:
    columns = {} if "text" in settings or "columns" in settings else {"text": "body"}
    given = MaskSettings(**{"task": "mask", "input": "t", **columns, **settings})
    return TASK(given, StepInput("t", SCHEMA, ("id",)), date(2026, 1, 1))


def test_texts_are_masked_and_entities_say_where(broken_rules: Any) -> None:
    task = make()
    assert task_class("mask") is TASK and task.check() == [] and task.models() == {}
    texts = ["Dr. Smith, call 212-555-0142", "我叫张伟，手机13812345678", "nothing here", None, " ", "x" * 50]
    outcome = task.answer(pa.table({"body": texts}))
    assert outcome.subject.tolist() == [0, 1, 2, 5]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(3, "empty"), (4, "empty")]
    assert outcome.columns.schema == task.columns()
    rows = outcome.columns.to_pylist()
    assert [row["body"] for row in rows] == [
        "Dr. <PERSON>, call <PHONE>",
        "我叫<PERSON>，手机<PHONE>",
        "nothing here",
        "x" * 50,
    ]
    found = [(e["column"], e["type"], texts[0][e["start"] : e["end"]]) for e in rows[0]["entities"]]
    assert found == [("body", "PERSON", "Smith"), ("body", "PHONE", "212-555-0142")]
    assert rows[0]["entity_count"] == 2 and rows[0]["counts"] == [
        {"type": "PERSON", "count": 1},
        {"type": "PHONE", "count": 1},
    ]
    assert rows[2]["entities"] == [] and rows[2]["counts"] == [] and rows[2]["entity_count"] == 0
    assert broken_rules(task, outcome.columns) == {}


def test_several_columns_of_which_one_may_be_null() -> None:
    task = make(columns=["body", "note"], entities=["PHONE"])
    table = pa.table({"body": ["call 212-555-0142", None, None], "note": [None, "手机13812345678", ""]})
    outcome = task.answer(table)
    assert [(r.subject, r.code) for r in outcome.rejects] == [(2, "empty")]
    assert [(row["body"], row["note"]) for row in outcome.columns.to_pylist()] == [
        ("call <PHONE>", None),
        (None, "手机<PHONE>"),
    ]
    assert [e["column"] for row in outcome.columns["entities"].to_pylist() for e in row] == ["body", "note"]


def test_too_long_and_undecodable_are_rejects() -> None:
    task = make(max_input_chars=10)
    outcome = task.answer(pa.table({"body": ["x" * 11, "\ufffd", "short"]}))
    assert [(r.subject, r.code) for r in outcome.rejects] == [(0, "too_long"), (1, "undecodable")]
    assert all("x" * 11 not in r.message for r in outcome.rejects)


def test_a_model_tells_of_more() -> None:
    class Given:
        def tags(self, texts: list[str]) -> Any:
            words = [Word(0, 5, "B-ORG", 0.9), Word(6, 10, "I-ORG", 0.9), Word(11, 15, "B-PRODUCT", 0.9)]
            return [words if text.startswith("Acme") else [] for text in texts], np.array([len(t) for t in texts])

    for threshold, masked in (
        (0.4, "<ORGANIZATION> lamp, jane@example.com"),
        (0.95, "Acme. Ltd. lamp, jane@example.com"),
    ):
        task = make(model="path:m", entities=["ORGANIZATION"], score_threshold=threshold)
        task._tagger = Given()  # type: ignore[assignment]
        outcome = task.answer(pa.table({"body": ["Acme. Ltd. lamp, jane@example.com"]}))
        assert outcome.columns["body"].to_pylist() == [masked] and outcome.tokens > 0


def test_a_fine_tuned_tagger_is_loaded(fine_tuned: Callable[..., Path]) -> None:
    folder = fine_tuned(objective="token_classification", labels=("O", "B-PER", "I-PER"), pooling="native")
    task = make(model=f"path:{folder}", score_threshold=0.0)
    task.open(ModelLoader())
    outcome = task.answer(pa.table({"body": ["the lamp of jane@example.com is broken", "张三在北京买灯。"]}))
    assert outcome.tokens > 0 and outcome.subject.tolist() == [0, 1]
    assert all("jane@" not in text for text in outcome.columns["body"].to_pylist())


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"text": "bdy"}, "text", "no such column"),
        ({"text": "n"}, "text", "expected a string column"),
        ({"columns": ["body", "nte"]}, "columns.1", "no such column"),
        ({"columns": ["body", "body"]}, "columns", "different columns"),
        ({"text": "id"}, "text", "is a key"),
        ({"entities": ["PHONE", "ORGANIZATION"]}, "entities.1", "need a `model`"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], place: str, said: str) -> None:
    (fault,) = make(**settings).check()
    assert fault[0] == place and said in fault[2]


def test_a_column_that_every_table_has() -> None:
    given = MaskSettings(task="mask", input="t", text="Model")
    task = TASK(given, StepInput("t", pa.schema([("Model", pa.string())])), date(2026, 1, 1))
    assert "another column of that name" in task.check()[0][2]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (ModelInfo("m", "token_classification", ("O", "B-PER.NAM", "I-PER.NAM")), []),
        (
            ModelInfo("m", "token_classification", ("O", "B-PRODUCT")),
            ["none of what it tags is personal data: PRODUCT"],
        ),
        (ModelInfo("m", "pair"), ["needs a model of objective token_classification; this one is pair"]),
        (None, ["was not fine-tuned with bizllm"]),
    ],
)
def test_which_models_fit(info: ModelInfo | None, said: list[str]) -> None:
    faults = make(model="path:m").check_models({"tagger": info})
    assert len(faults) == len(said) and all(words in fault[2] for words, fault in zip(said, faults, strict=True))


def test_tags_of_models() -> None:
    assert [entity_of(tag) for tag in ("PER", "person", "GPE.NAM", "ORG", "CREDIT_CARD", "PRODUCT", "")] == [
        "PERSON",
        "PERSON",
        "LOCATION",
        "ORGANIZATION",
        "CARD",
        None,
        None,
    ]


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make()
    has, counted = task.rules()
    good = {"column": "body", "type": "PHONE", "start": 0, "end": 3}
    row = {"body": "x", "entities": [good], "entity_count": 1, "counts": [{"type": "PHONE", "count": 1}]}
    for change, rule in [
        ({"entities": [{**good, "end": 0}]}, has),
        ({"entity_count": 2}, counted),
        ({"counts": []}, counted),
    ]:
        assert broken_rules(task, pa.Table.from_pylist([row, {**row, **change}], schema=task.columns())) == {rule: 1}
