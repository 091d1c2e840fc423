from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.models.classifier import Classifier
from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import StepInput, task_class
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


def test_labels_are_the_models(fine_tuned: Make, broken_rules: Any) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS)
    task, outcome = answer(folder)
    assert task_class("classify") is TASK and task.check() == []
    assert outcome.subject.tolist() == USABLE
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty"), (3, "empty")]
    for row, likely in zip(outcome.columns.to_pylist(), probabilities(folder), strict=True):
        told = [(row["label"], row["probability"]), *((a["label"], a["probability"]) for a in row["alternatives"])]
        assert told == sorted(zip(LABELS, likely.tolist(), strict=True), key=lambda pair: -pair[1])[:4]
        assert row["labels"] == [row["label"]] and row["out_of_scope"] is False
    rows = outcome.columns.to_pylist()
    assert rows[0] == rows[3] and len({row["label"] for row in rows}) > 1
    assert outcome.tokens == sum(row["input_tokens"] for row in rows)
    assert broken_rules(task, outcome.columns) == {}
    assert rows[-1]["input_tokens"] == 100 + 2 * 4  # four windows, nothing cut off


def test_out_of_scope_is_by_the_models_threshold_or_the_steps(fine_tuned: Make, broken_rules: Any) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS)
    highest = probabilities(folder).max(1)
    between = float(np.sort(np.unique(highest))[1])  # some under it, one of them at it
    _, plain = answer(fine_tuned(objective="classification", labels=LABELS, threshold=between))
    expected = (highest < between).tolist()
    assert 0 < sum(expected) < len(expected)
    assert plain.columns["out_of_scope"].to_pylist() == expected
    assert [len(labels) for labels in plain.columns["labels"].to_pylist()] == [1 - out for out in expected]
    assert all(plain.columns["label"].to_pylist())
    _, none = answer(fine_tuned(objective="classification", labels=LABELS, threshold=between), threshold=0.0)
    assert not any(none.columns["out_of_scope"].to_pylist())
    task, every = answer(folder, threshold=1.0)
    assert all(every.columns["out_of_scope"].to_pylist())
    assert broken_rules(task, every.columns) == {}


def test_several_labels(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="multi_label", labels=LABELS, threshold=0.4, temperature=0.5)
    _, outcome = answer(folder, alternatives=1)
    likely = probabilities(folder)
    rows = outcome.columns.to_pylist()
    for row, each in zip(rows, likely, strict=True):
        order = np.argsort(-each)
        assert row["labels"] == [LABELS[i] for i in order if each[i] >= 0.4]
        assert row["label"] == LABELS[order[0]] and len(row["alternatives"]) == 1
    assert max(len(row["labels"]) for row in rows) > 1
    _, strict = answer(folder, threshold=0.999999)
    assert all(row["out_of_scope"] == (not row["labels"]) for row in strict.columns.to_pylist())
    assert any(strict.columns["out_of_scope"].to_pylist())


def test_pairs_need_both_texts(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="pair", labels=("no", "yes"), inputs="pair")
    task = make(folder, pair="other")
    assert task.check() == [] and task.reads() == ["body", "other"]
    task.open(ModelLoader())
    rows = pa.table({"body": ["the lamp", "the lamp", None, None], "other": ["is broken", None, "is broken", " "]})
    outcome = task.answer(rows)
    assert outcome.subject.tolist() == [0]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty"), (2, "empty"), (3, "empty")]
    expected = Classifier.load(folder).probabilities(["the lamp"], ["is broken"])[0].max()
    assert outcome.columns["probability"].to_pylist() == [expected]


def test_alternatives_may_be_left_out(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS)
    assert answer(folder, alternatives=0)[1].columns["alternatives"].to_pylist() == [[]] * len(USABLE)
    assert {len(a) for a in answer(folder, alternatives=99)[1].columns["alternatives"].to_pylist()} == {4}
    assert answer(folder, [None, ""])[1].columns.num_rows == 0


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make()
    good = {
        "label": "a",
        "probability": 0.5,
        "labels": ["a"],
        "alternatives": [{"label": "b", "probability": 0.4}],
        "out_of_scope": False,
        "input_tokens": 3,
    }
    changes: list[dict[str, Any]] = [
        {"label": " "},
        {"probability": float("nan")},
        {"alternatives": [{"label": "b", "probability": 0.6}]},
        {"out_of_scope": True},
    ]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}


@pytest.mark.parametrize(
    ("info", "settings", "place", "said"),
    [
        (ModelInfo("m", "token_classification"), {}, "model", "pair; this one is token_classification"),
        (
            None,
            {},
            "model",
            "task classify needs a model of objective classification, multi_label or pair; this one was",
        ),
        (ModelInfo("m", "pair", inputs="pair"), {}, "pair", "the model reads pairs"),
        (ModelInfo("m", "classification"), {"pair": "other"}, "pair", "the model reads single texts"),
        (ModelInfo("m", "classification", inputs="numbers"), {}, "model", "histories of numbers"),
        (ModelInfo("m", "classification"), {}, None, ""),
        (ModelInfo("m", "multi_label", inputs="pair"), {"pair": "other"}, None, ""),
    ],
)
def test_which_models_fit(info: ModelInfo | None, settings: dict[str, str], place: str | None, said: str) -> None:
    faults = make(**settings).check_models({"classifier": info})
    assert [fault[0] for fault in faults] == ([place] if place else [])
    assert all(said in fault[2] for fault in faults)


def test_settings_are_checked() -> None:
    assert make(text="bdy").check()[0][3] == "did you mean 'body'?"
    assert "int64" in make(text="n").check()[0][2]
    assert make(pair="body").check()[0][0] == "pair"
    assert make(pair="nothing").check()[0][:2] == ("pair", "nothing")
    for wrong in ({"threshold": 1.2}, {"alternatives": -1}, {"model": None}):
        with pytest.raises(ValidationError):
            make(**wrong)
