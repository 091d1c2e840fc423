from __future__ import annotations

from datetime import date
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
from tests.tasks.classifying import (
    KINDS,
    KNOWN,
    LABELS,
    SCHEMA,
    USABLE,
    Make,
    answer,
    learned,
    make,
    probabilities,
)


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


# -- from examples, and from what the labels mean -----------------------------------------------------------------


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_examples_give_labels(model: str | None, broken_rules: Any) -> None:
    task, outcome = learned(model=model)
    assert outcome.subject.tolist() == [0, 2, 3] and [r.code for r in outcome.rejects] == ["empty"]
    rows = outcome.columns.to_pylist()
    assert [row["label"] for row in rows] == ["delivery", "refund", "delivery"]
    assert all(row["probability"] > 0.5 and row["alternatives"][0]["label"] != row["label"] for row in rows)
    assert all(row["input_tokens"] > 0 for row in rows)
    assert task.models() == ({"encoder": model} if model else {})
    assert broken_rules(task, outcome.columns) == {}


def test_a_batch_without_a_usable_text() -> None:
    for model in (None, "builtin:minilm"):
        _, outcome = learned(asked=[None, " "], model=model)
        assert outcome.columns.num_rows == 0 and [r.code for r in outcome.rejects] == ["empty", "empty"]


def test_chinese_examples_need_no_encoder() -> None:
    known = pa.table(
        {
            "said": ["快递还没到", "快递晚了三天", "我要退款", "请把钱退给我", "包裹送到哪里了", "申请退款"],
            "kind": ["物流", "物流", "退款", "退款", "物流", "退款"],
        }
    )
    _, outcome = learned(known, ["快递什么时候到", "什么时候退款"])
    assert outcome.columns["label"].to_pylist() == ["物流", "退款"]


def test_examples_of_several_labels() -> None:
    said = [
        "late parcel",
        "parcel is lost",
        "my money back",
        "the parcel is late and i want my money back",
        "hello there",
    ]
    different = [f"{text} {letter}" for letter in "uvwxyz" for text in said]
    kinds: list[list[str]] = [["delivery"], ["delivery"], ["refund"], ["delivery", "refund"], []]
    _, outcome = learned(
        pa.table({"said": different, "kind": kinds * 6}), ["my money back, the parcel is late", "hello there"]
    )
    assert [sorted(labels) for labels in outcome.columns["labels"].to_pylist()] == [["delivery", "refund"], []]
    assert outcome.columns["out_of_scope"].to_pylist() == [False, True]


def test_whole_numbers_and_booleans_are_labels_too() -> None:
    for kinds in ([0, 0, 1, 1], [False, False, True, True]):
        known = pa.table({"said": ["late parcel", "lost parcel", "money back", "refund my money"], "kind": kinds})
        _, outcome = learned(known, ["where is the parcel"])
        assert outcome.columns["label"].to_pylist() == [str(kinds[0]).lower()]


def test_meanings_alone_give_the_nearest_label(broken_rules: Any) -> None:
    task, outcome = learned(examples=None, model="builtin:minilm", labels=KINDS)
    assert outcome.columns["label"].to_pylist() == ["delivery", "refund", "delivery"]
    assert not any(outcome.columns["out_of_scope"].to_pylist())
    assert broken_rules(task, outcome.columns) == {}


def test_a_meaning_is_one_more_example() -> None:
    """A label that no row has, and a row of the same words, come out the same."""
    more = {"praise": "what a lovely shop"}
    _, described = learned(asked=["a lovely shop"], labels=more)
    assert described.columns["label"].to_pylist() == ["praise"]
    one = pa.table({"said": ["what a lovely shop"], "kind": ["praise"]})
    _, told = learned(pa.concat_tables([KNOWN, one]), ["a lovely shop"])
    assert described.columns.equals(told.columns)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "a fine-tuned `model`, or `examples`"),
        ({"labels": ["a", "b"]}, "an encoder as `model`"),
        ({"labels": ["a"], "model": "builtin:minilm"}, "two `labels` at least"),
        ({"labels": ["a", "b"], "model": "builtin:minilm", "pair": "other"}, "`pair` is for a fine-tuned model"),
    ],
)
def test_settings_that_lead_nowhere(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ClassifySettings(task="classify", input="t", text="body", **settings)


def test_labels_may_be_names_alone_and_editors_know_it() -> None:
    named = {"refund": "refund", "late_parcel": "late parcel"}
    for labels in (["refund", "late_parcel"], {"refund": None, "late_parcel": None}):
        given = ClassifySettings(task="classify", input="t", text="body", model="builtin:minilm", labels=labels)
        assert given.labels == named
    ways = ClassifySettings.model_json_schema()["properties"]["labels"]["anyOf"]
    assert {way["type"] for way in ways} == {"object", "array"}


def test_columns_that_cannot_be_learned_from() -> None:
    examples = {"input": "labelled", "text": "said", "label": "kind"}
    given = ClassifySettings(task="classify", input="t", text="body", examples=examples)
    schema = pa.schema([("said", pa.int64()), ("kind", pa.float64())])
    task = TASK(given, StepInput("t", SCHEMA), date(2026, 1, 1), {"examples": StepInput("labelled", schema)})
    assert [(setting, value) for setting, value, *_ in task.check()] == [
        ("examples.text", "said"),
        ("examples.label", "kind"),
    ]


def test_an_encoder_is_what_examples_need(fine_tuned: Make) -> None:
    examples = {"input": "labelled", "text": "said", "label": "kind"}
    task = make(examples=examples)
    info = ModelInfo("m", "classification", LABELS)
    assert "this one is classification" in task.check_models({"encoder": info})[0][2]
    assert task.check_models({"encoder": None}) == []
