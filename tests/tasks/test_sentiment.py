from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.infer import learned as kept
from bizllm.models.classifier import Classifier
from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.sentiment import TASK, SentimentSettings

Make = Callable[..., Path]
TEXTS = ["The lamp is great!", "灯坏了，太失望了。", None, " ", "I bought it in May.", "b " * 200, "a" * 3]
SCHEMA = pa.schema([("body", pa.string()), ("n", pa.int64())])
EXAMPLES = {"input": "known", "text": "said", "label": "is"}


def make(others: dict[str, StepInput] | None = None, **settings: Any) -> TASK:
    given = SentimentSettings(**{"task": "sentiment", "input": "t", "text": "body", **settings})
    return TASK(given, StepInput("t", SCHEMA), date(2026, 1, 1), others or {})


def rows_of(texts: list[str | None]) -> pa.Table:
    return pa.table({"body": texts, "n": [1] * len(texts)}, schema=SCHEMA)


def answer(texts: list[str | None], **settings: Any) -> tuple[TASK, Any]:
    task = make(**settings)
    task.open(ModelLoader())
    outcome = task.answer(rows_of(texts))
    assert outcome.columns.schema == task.columns()
    return task, outcome


def taught(known: pa.Table, texts: list[str | None], **settings: Any) -> list[dict[str, Any]]:
    """What it answers that learned of known rows, through the file that keeps it."""
    others = {"examples": StepInput("known", known.schema)}
    task = make(others, examples=EXAMPLES, **settings)
    assert task.check() == []
    task.open(ModelLoader())
    state = task.learn({"examples": known})
    task = make(others, examples=EXAMPLES, **settings)
    task.learned = state
    task.open(ModelLoader())
    rows: list[dict[str, Any]] = task.answer(rows_of(texts)).columns.to_pylist()
    return rows


def test_labels_scores_and_rejects(broken_rules: Any) -> None:
    task, outcome = answer(TEXTS, max_input_chars=100)
    assert task_class("sentiment") is TASK and task.check() == [] and task.models() == {}
    assert outcome.subject.tolist() == [0, 1, 4, 6]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(2, "empty"), (3, "empty"), (5, "too_long")]
    rows = outcome.columns.to_pylist()
    assert [row["label"] for row in rows] == ["positive", "negative", "neutral", "neutral"]
    assert rows[0]["score"] > 0.5 and rows[1]["score"] < -0.5 and abs(rows[2]["score"]) < 0.2
    assert outcome.tokens == 0 and [row["input_tokens"] for row in rows] == [4, 7, 5, 1]
    assert broken_rules(task, outcome.columns) == {}


def test_without_neutral_the_likelier_side_is_taken() -> None:
    _, plain = answer(["I bought it in May.", "It is ok, slow."])
    _, sided = answer(["I bought it in May.", "It is ok, slow."], neutral=False)
    assert plain.columns["label"][0].as_py() == "neutral"
    assert {*sided.columns["label"].to_pylist()} <= {"positive", "negative"}
    assert (np.array(sided.columns["probability"]) >= 0.5).all()


def test_aspects_are_quoted_where_they_stand() -> None:
    text = "👍 Great battery. 快递太慢了，但是客服态度很好。"
    _, outcome = answer([text])
    (row,) = outcome.columns.to_pylist()
    assert [(a["aspect"], a["label"], a["quote"]) for a in row["aspects"]] == [
        ("battery", "positive", "👍 Great battery"),
        ("delivery", "negative", "快递太慢了"),
        ("service", "positive", "但是客服态度很好"),
    ]
    assert all(text[a["start"] : a["end"]] == a["quote"] for a in row["aspects"])
    _, own = answer([text], aspects={"speed_of_delivery": ["快递"], "great battery": []})
    assert [a["aspect"] for a in own.columns["aspects"].to_pylist()[0]] == ["great battery", "speed_of_delivery"]
    _, none = answer([text], aspects={})
    assert none.columns["aspects"].to_pylist() == [[]]


def test_the_order_of_rows_and_batches_decides_nothing() -> None:
    texts = [f"{word} lamp {i}" for i in range(20) for word in ("good", "bad", "红色")]
    _, whole = answer(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    _, shuffled = answer([texts[i] for i in order])
    assert whole.columns.take(pa.array(order)).equals(shuffled.columns)
    parts = [answer(texts[i : i + 7])[1].columns for i in range(0, len(texts), 7)]
    assert pa.concat_tables(parts).to_pylist() == whole.columns.to_pylist()


def test_no_rows() -> None:
    for texts in ([], [None, ""]):
        task, outcome = answer(texts)
        assert outcome.columns.num_rows == 0 and outcome.columns.schema == task.columns()


def test_examples_teach_what_the_lexicon_does_not_know() -> None:
    known = pa.table(
        {
            "said": [f"{word} {i}" for i in range(15) for word in ("velmor lamp", "tudrix kettle")] + [None, "x"],
            "is": ["positive", "negative"] * 15 + ["positive", None],
        }
    )
    rows = taught(known, ["a velmor thing", "a tudrix thing", "it is awful", "it is excellent"])
    assert [row["label"] for row in rows] == ["positive", "negative", "negative", "positive"]
    assert [row["score"] > 0 for row in rows] == [True, False, False, True]
    backwards = known.take(list(range(len(known)))[::-1])
    assert [row["label"] for row in taught(backwards, ["a velmor thing"])] == ["positive"]


def test_what_was_learned_goes_through_a_file(tmp_path: Path) -> None:
    known = pa.table({"said": ["good", "bad", "fine", "awful", "五星", "差"], "is": [5, 1, 4, 1, 5, 2]})
    task = make({"examples": StepInput("known", known.schema)}, examples=EXAMPLES)
    task.open(ModelLoader())
    state = task.learn({"examples": known})
    (tmp_path / "f").write_bytes(kept.to_bytes(state))
    again = kept.load(str(tmp_path / "f"))
    assert again["scale"] == [-1.0, -0.5, 0.5, 1.0] and again["names"] == ["1", "2", "4", "5"]


def test_examples_with_an_encoder() -> None:
    known = pa.table({"said": ["a lovely lamp", "the lamp broke"] * 4, "is": ["good", "bad"] * 4})
    rows = taught(known, ["what a wonderful kettle", "the kettle is broken"], model="builtin:minilm")
    assert [row["label"] for row in rows] == ["good", "bad"]
    assert all(row["input_tokens"] >= 5 for row in rows)


@pytest.mark.parametrize(
    ("labels", "scale", "place"),
    [
        (["happy", "sad"], {}, "scale"),
        (["happy", "sad"], {"happy": 1.0}, "scale"),
        (["1", "1"], {}, "examples"),
        ([["good"], ["bad", "good"]], {}, "examples.label"),
        ([None, None], {}, "examples"),
    ],
)
def test_examples_that_teach_nothing(labels: list[Any], scale: dict[str, float], place: str) -> None:
    kind = pa.list_(pa.string()) if isinstance(labels[0], list) else pa.string()
    known = pa.table({"said": ["one", "two"], "is": pa.array(labels, kind)})
    task = make({"examples": StepInput("known", known.schema)}, examples=EXAMPLES, scale=scale)
    task.open(ModelLoader())
    with pytest.raises(UserError) as raised:
        task.learn({"examples": known})
    assert raised.value.faults[0].place == place


def test_a_scale_names_other_labels() -> None:
    known = pa.table({"said": ["nice", "bad", "so so"] * 3, "is": ["happy", "sad", "meh"] * 3})
    rows = taught(known, ["nice", "bad"], scale={"happy": 1, "sad": -0.5, "meh": 0})
    assert [row["label"] for row in rows] == ["happy", "sad"] and -0.5 <= rows[1]["score"] < 0


def test_a_fine_tuned_model(fine_tuned: Make, broken_rules: Any) -> None:
    folder = fine_tuned(objective="classification", labels=("差评", "中评", "好评"))
    task, outcome = answer(TEXTS, model=f"path:{folder}")
    likely = Classifier.load(folder).probabilities([t for t in TEXTS if t and t.strip()])[0]
    rows = outcome.columns.to_pylist()
    assert [row["label"] for row in rows] == [("差评", "中评", "好评")[i] for i in likely.argmax(axis=1)]
    assert [row["score"] for row in rows] == pytest.approx((likely[:, 2] - likely[:, 0]).tolist(), abs=1e-6)
    assert outcome.tokens == sum(row["input_tokens"] for row in rows) > 0
    assert broken_rules(task, outcome.columns) == {}


@pytest.mark.parametrize(
    ("info", "settings", "place", "said"),
    [
        (
            ModelInfo("m", "multi_label", labels=("good", "bad")),
            {},
            "model",
            "needs a model of objective classification",
        ),
        (None, {}, "model", "was not fine-tuned"),
        (ModelInfo("m", "classification", inputs="numbers"), {}, "model", "histories of numbers"),
        (ModelInfo("m", "classification", labels=("calm", "angry")), {}, "scale", "a number from -1 to 1 for each"),
        (ModelInfo("m", "classification", labels=("calm", "angry")), {"scale": {"calm": 0.5, "angry": -1}}, None, ""),
        (ModelInfo("m", "classification", labels=("1", "2", "5")), {}, None, ""),
    ],
)
def test_models_that_do_not_fit(info: ModelInfo | None, settings: dict[str, Any], place: str | None, said: str) -> None:
    faults = make(model="path:m", **settings).check_models({"classifier": info})
    assert [fault[0] for fault in faults] == ([place] if place else [])
    assert all(said in fault[2] for fault in faults)


def test_faults_of_columns() -> None:
    (fault,) = make(text="bodi").check()
    assert fault[0] == "text" and "body" in fault[3]
    assert make(text="n").check()[0][2].startswith("expected a string column")
    known = StepInput("known", pa.schema([("said", pa.int64()), ("is", pa.float64())]))
    assert [f[0] for f in make({"examples": known}, examples=EXAMPLES).check()] == ["examples.text", "examples.label"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"neutral": False, "model": "builtin:minilm", "examples": EXAMPLES}, "`neutral` is for the built-in model"),
        ({"scale": {"good": 1}}, "`scale` is for the labels"),
        ({"scale": {"good": 2}, "model": "path:m"}, "less than or equal to 1"),
        ({"aspects": {"a": ["box"], "b": ["box"]}}, "each word under one aspect"),
        ({"aspects": {"a": [" "]}}, "aspects with words"),
        ({"aspects": "all"}, "auto"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make(**settings)


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task, outcome = answer(["Great battery."])
    (good,) = outcome.columns.to_pylist()
    (aspect,) = good["aspects"]
    changes: list[dict[str, Any]] = [
        {"label": " "},
        {"probability": float("nan")},
        {"score": 1.5},
        {"aspects": [{**aspect, "score": -2.0}]},
        {"aspects": [{**aspect, "end": 3}]},
    ]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}
