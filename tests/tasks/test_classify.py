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


# -- from examples, and from what the labels mean -----------------------------------------------------------------

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


# -- explain ------------------------------------------------------------------------------------------------------


def named(text: str | None, why: list[dict[str, Any]]) -> list[str]:
    assert text is not None
    return [text[span["start"] : span["end"]] for span in why]


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_the_words_that_carried_a_label(model: str | None, broken_rules: Any) -> None:
    task, outcome = learned(model=model, explain=True)
    _, plain = learned(model=model)
    assert outcome.columns.drop_columns(["why"]).equals(plain.columns), "the answers are the same"
    words = [named(ASKED[i], why) for i, why in zip(outcome.subject, outcome.columns["why"].to_pylist(), strict=True)]
    assert words[0][0] in ("parcel", "late") and words[1][0] in ("money", "back", "please")
    assert words[2][0] == "courier"
    weights = [[span["weight"] for span in why] for why in outcome.columns["why"].to_pylist()]
    assert all(of == pytest.approx(sorted(of, reverse=True), abs=1e-3 * of[0]) and min(of) > 0 for of in weights)
    assert broken_rules(task, outcome.columns) == {}
    assert (outcome.tokens > plain.tokens) == (model is not None), "texts without a word are read, too"
    assert outcome.exhibit is not None and sorted(outcome.exhibit["result"].to_pylist()) == ["delivery", "refund"]


def test_chinese_characters_are_told_as_words() -> None:
    known = pa.table(
        {
            "said": ["快递还没到", "快递晚了三天", "我要退款", "请把钱退给我", "包裹送到哪里了", "申请退款"],
            "kind": ["物流", "物流", "退款", "退款", "物流", "退款"],
        }
    )
    asked: list[str | None] = ["快递什么时候到", "什么时候退款"]
    _, outcome = learned(known, asked, explain=True)
    words = [named(text, why) for text, why in zip(asked, outcome.columns["why"].to_pylist(), strict=True)]
    assert words[0][0] == "快递" and words[1][0] == "退款"


def test_neither_order_nor_company_changes_why() -> None:
    _, outcome = learned(model="builtin:minilm", explain=True, asked=[*ASKED, *ASKED[::-1]])
    rows = outcome.columns.to_pylist()
    for row, other in zip(rows[:3], rows[:2:-1], strict=True):
        assert [(s["start"], s["end"]) for s in row["why"]] == [(s["start"], s["end"]) for s in other["why"]]
        assert row["why"] == other["why"]
    _, alone = learned(model="builtin:minilm", explain=True, asked=ASKED[:1])
    for span, other in zip(alone.columns["why"].to_pylist()[0], rows[0]["why"], strict=True):
        assert (span["start"], span["end"]) == (other["start"], other["end"])
        assert span["weight"] == pytest.approx(other["weight"], abs=2e-3)


@pytest.mark.parametrize("pooling", ["mean", "native"])
@pytest.mark.parametrize("objective", ["classification", "multi_label"])
def test_fine_tuned_models_tell_why(fine_tuned: Make, objective: str, pooling: str, broken_rules: Any) -> None:
    folder = fine_tuned(objective=objective, labels=LABELS, pooling=pooling, temperature=2.0)
    task, outcome = answer(folder, explain=True)
    _, plain = answer(folder)
    assert outcome.columns.drop_columns(["why"]).equals(plain.columns) and outcome.tokens > 40 * plain.tokens
    assert broken_rules(task, outcome.columns) == {}
    likely = probabilities(folder)
    gradients = Classifier.load(folder).gradients
    for i, why in enumerate(outcome.columns["why"].to_pylist()):
        text = TEXTS[USABLE[i]]
        assert text is not None
        order = np.argsort(-likely[i])
        towards = np.zeros((1, len(LABELS)), np.float32)
        towards[0, order[0]] = 1 / 2.0
        if objective == "classification":
            towards[0, order[1]] = -1 / 2.0
        (characters,) = gradients.added([text], towards).characters
        for span in why:
            assert span["weight"] == pytest.approx(characters[span["start"] : span["end"]].sum(), abs=2e-3)
    assert any(outcome.columns["why"].to_pylist())


def test_meanings_tell_why_too() -> None:
    _, outcome = learned(examples=None, model="builtin:minilm", labels=KINDS, explain=True)
    words = [named(ASKED[i], why) for i, why in zip(outcome.subject, outcome.columns["why"].to_pylist(), strict=True)]
    assert words[0][0] == "parcel" and words[1][0] in ("money", "back")


def test_long_texts_and_hostile_ones_are_explained_within_bounds(fine_tuned: Make) -> None:
    asked: list[str | None] = ["parcel " * 5_000, "<script>late</script> parcel\u0000", "😀😀 parcel 😀", "x"]
    _, outcome = learned(asked=asked, explain=True)
    assert outcome.columns.num_rows == 4
    for i, why in enumerate(outcome.columns["why"].to_pylist()):
        assert len(why) <= 8 and all(0 <= s["start"] < s["end"] <= 4_000 for s in why)
        assert i != 2 or named(asked[2], why)[0] == "parcel", "characters are code points"
    assert outcome.exhibit is not None and max(map(len, outcome.exhibit["source"].to_pylist())) <= 1_500
    _, long = answer(fine_tuned(objective="classification", labels=LABELS), ["b " * 3_000], explain=True)
    assert all(s["end"] <= 4_000 for s in long.columns["why"].to_pylist()[0])


def test_of_nothing_there_is_nothing_to_explain(fine_tuned: Make) -> None:
    task, outcome = answer(fine_tuned(objective="classification", labels=LABELS), [None, ""], explain=True)
    assert outcome.columns.num_rows == 0 and outcome.columns.schema == task.columns()


def test_explain_costs_what_the_plan_says() -> None:
    plain, explained = make().estimate(1_000, 100_000), make(explain=True).estimate(1_000, 100_000)
    assert explained[0] > 40 * plain[0] and explained[1] > 40 * plain[1]
    examples = {"input": "labelled", "text": "said", "label": "kind"}
    few = make(examples=examples, explain=True).estimate(1_000, 100_000)
    assert 10 * plain[0] < few[0] < 33 * plain[0], "about 17 words a text"
    assert make(examples=examples, explain=True).estimate(10, 10**6)[0] == 33 * make().estimate(10, 10**6)[0]
    assert make(explain=True).estimate(0, 0)[0] == 0
    words, plain = ({"model": None, "examples": examples, "explain": explain} for explain in (True, False))
    assert make(**words).estimate(9, 900)[0] == make(**plain).estimate(9, 900)[0], "n-grams ask no model"
    assert make(**words).estimate(9, 900)[1] > make(**plain).estimate(9, 900)[1]


def test_explain_is_for_single_texts() -> None:
    with pytest.raises(ValidationError, match="single texts"):
        make(pair="other", explain=True)


def test_rules_see_spans_that_are_none(broken_rules: Any) -> None:
    task, outcome = learned(explain=True)
    rows = outcome.columns.to_pylist()
    for wrong in ({"start": 4, "end": 4, "weight": 1.0}, {"start": 0, "end": 2, "weight": -1.0}):
        columns = pa.Table.from_pylist([rows[0], {**rows[1], "why": [wrong]}], schema=task.columns())
        assert broken_rules(task, columns) == {"what carried the label stands in the text": 1}


NAMES = pa.table({"alias": ["Zephyr 3000", "Brisa", "西风"], "thing": ["kettle", "lamp", "水壶"]})
CALLED = {"input": "names", "term": "alias", "means": "thing"}


def test_a_company_s_own_words_are_read_as_what_they_mean() -> None:
    """No example has the aliases: without the table they say nothing."""
    kitchen = ["the kettle leaks", "a kettle please", "水壶漏水", "一个水壶"]
    light = ["the lamp flickers", "a lamp please", "台灯不亮", "一盏台灯"]
    known = pa.table({"said": kitchen + light, "kind": ["kitchen"] * 4 + ["light"] * 4})
    asked: list[str | None] = ["zephyr 3000", "brisa", "西风"]
    _, knowing = learned(known, asked, NAMES, knowledge=CALLED)
    _, plain = learned(known, asked)
    assert knowing.columns["label"].to_pylist() == ["kitchen", "light", "kitchen"]
    assert len(set(plain.columns["probability"].to_pylist())) == 1 < len(set(knowing.columns["label"].to_pylist()))


def test_what_carried_a_label_stands_in_the_text_itself() -> None:
    _, outcome = learned(asked=["where is it", "the brisa is late"], names=NAMES, knowledge=CALLED, explain=True)
    for text, why in zip(["where is it", "the brisa is late"], outcome.columns["why"].to_pylist(), strict=True):
        assert all(0 <= span["start"] < span["end"] <= len(text) for span in why)


def test_meanings_alone_may_be_read_with_knowledge() -> None:
    labels = {"kitchen": "about a kettle", "light": "about a lamp"}
    _, outcome = learned(
        None,
        ["my Zephyr 3000", "my Brisa"],
        NAMES,
        examples=None,
        model="builtin:minilm",
        labels=labels,
        knowledge=CALLED,
    )
    assert outcome.columns["label"].to_pylist() == ["kitchen", "light"]


def test_knowledge_is_not_for_a_fine_tuned_model() -> None:
    with pytest.raises(ValidationError, match="`knowledge` is for `examples` or `labels`"):
        make(knowledge=CALLED)
    given = ClassifySettings(
        task="classify",
        input="t",
        text="body",
        knowledge=CALLED,
        examples={"input": "labelled", "text": "said", "label": "kind"},
    )
    names = pa.table({"alias": ["a"], "thing": [1]})
    others = {"examples": StepInput("labelled", KNOWN.schema), "knowledge": StepInput("names", names.schema)}
    (fault,) = TASK(given, StepInput("t", SCHEMA), date(2026, 1, 1), others).check()
    assert fault[:2] == ("knowledge.means", "thing") and "expected a string column" in fault[2]
