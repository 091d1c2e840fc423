"""Why a text got its label, and labels of texts in a company's own words."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.models.classifier import Classifier
from bizllm.tasks.base import StepInput
from bizllm.tasks.classify import TASK, ClassifySettings
from tests.tasks.classifying import (
    ASKED,
    KINDS,
    KNOWN,
    LABELS,
    SCHEMA,
    TEXTS,
    USABLE,
    Make,
    answer,
    learned,
    make,
    probabilities,
)


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
