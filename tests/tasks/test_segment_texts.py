"""Segments by what customers say: a mean of their texts, clusters of these, and words for names."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from sklearn.metrics import adjusted_rand_score

from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import Groups, Outcome, StepInput
from bizllm.tasks.segment import Segment, SegmentSettings
from tests.tasks.spoken import EN, ZH, texts

SCHEMA = pa.schema([("who", pa.string()), ("said", pa.string()), ("n", pa.int64())])


def task(**settings: Any) -> Segment:
    given = {"task": "segment", "input": "tickets", "entity": "who", "text": "said"}
    return Segment(SegmentSettings(**(given | settings)), StepInput("tickets", SCHEMA), date(2026, 1, 1))


def spoken(language: dict[str, Any], each: int = 12) -> tuple[pa.Table, list[str]]:
    """(rows, kind of each customer): so many customers a topic, three texts of it each."""
    said, of = texts(language)
    rows, kinds = [], []
    for kind in dict.fromkeys(of):
        own = [text for text, topic in zip(said, of, strict=True) if topic == kind]
        for i in range(each):
            rows += [{"who": f"c{len(kinds):03d}", "said": own[(i + 4 * j) % len(own)]} for j in range(3)]
            kinds.append(kind)
    return pa.Table.from_pylist(rows, schema=pa.schema([SCHEMA.field("who"), SCHEMA.field("said")])), kinds


def night(
    rows: pa.Table, previous: dict[str, Any] | None = None, prior: list[str] | None = None, **settings: Any
) -> tuple[pa.Table, dict[str, Any], Outcome]:
    """One night: (answers by customer, the fit, what `features` said)."""
    step = task(**settings)
    assert step.check() == []
    step.open(ModelLoader())
    half = rows.num_rows // 2
    parts = pa.concat_tables([step.combine(rows.slice(0, half)).rows, step.combine(rows.slice(half)).rows])
    parts = parts.sort_by("who")
    keys = sorted(set(rows["who"].to_pylist()))
    starts = np.append(np.searchsorted(np.array(parts["who"].to_pylist(), object), keys), parts.num_rows)
    before = None if prior is None else pa.table({"segment": prior})
    found = step.features(Groups(parts, starts.astype(np.int64), pa.table({"who": keys}), before))
    fit = json.loads(json.dumps(step.fit(found.columns, previous)))
    return replace(step, fitted=fit).answer(found.columns).columns, fit, found


@pytest.mark.parametrize(("language", "model"), [(EN, "builtin:minilm"), (EN, None), (ZH, None)])
def test_customers_who_say_the_same_are_a_segment(language: Any, model: str | None, broken_rules: Any) -> None:
    rows, kinds = spoken(language)
    answers, _, found = night(rows, k=3, model=model)
    assert adjusted_rand_score(kinds, answers["segment_id"].to_pylist()) == 1.0
    for kind, words in zip(kinds, answers["words"].to_pylist(), strict=True):
        assert any(kind in word for word in words)
    assert set(answers["texts"].to_pylist()) == {3} and answers.schema == task().columns()
    assert broken_rules(task(), answers) == {}
    assert found.tokens > 0 if model else found.tokens == 0


def test_neither_order_nor_the_batch_decides() -> None:
    rows, _ = spoken(EN)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    one, other = night(rows), night(rows.take(pa.array(order)))
    assert one[0].equals(other[0]) and one[1] == other[1]


def test_they_last() -> None:
    rows, _ = spoken(EN)
    first, fit, _ = night(rows)
    later, again, _ = night(rows.slice(6), fit, first["segment"].to_pylist()[2:])
    assert {t["id"] for t in again["topics"]} == {t["id"] for t in fit["topics"]}
    assert later["segment"].to_pylist() == later["previous_segment"].to_pylist() == first["segment"].to_pylist()[2:]


def test_a_vector_is_the_mean_of_the_texts() -> None:
    bodies = ["the parcel is late", "a refund of my money", "my login is locked"]
    rows = pa.table({"who": ["a", "a", "b"], "said": bodies})
    step = task(model="builtin:minilm")
    step.open(ModelLoader())
    found = step.features(Groups(rows, np.array([0, 2, 3]), pa.table({"who": ["a", "b"]})))
    vectors = ModelLoader().encoder("builtin:minilm").encode(bodies)[0]
    mean = vectors[:2].mean(axis=0)
    told = np.array(found.columns["vector"].to_pylist())
    assert np.allclose(told, np.stack([mean / np.linalg.norm(mean), vectors[2]]), atol=1e-4)


def test_a_customer_without_a_text_and_one_with_many() -> None:
    rows = pa.table({"who": ["a", "b", *["c"] * 9], "said": [None, "one text", *(f"text {i}" for i in range(9))]})
    answers, fit, found = night(rows, max_texts=4)
    assert [(r.subject, r.code) for r in found.rejects] == [(0, "empty")]
    assert answers["texts"].to_pylist() == [1, 4] and len(fit["topics"]) == 1


def test_settings_are_checked() -> None:
    assert task(text="sayd").check()[0][0] == "text" and "int64" in task(text="n").check()[0][2]
    wrongs: list[dict[str, Any]] = [{"amount": "n"}, {"rules": [{"name": "a", "when": "money > 1"}]}, {"text": None}]
    wrongs += [{"text": None, "time": "n", "amount": "n", "model": "builtin:minilm"}, {"explain": True}]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            task(**wrong)
    step = task(model="path:m")
    assert step.models() == {"encoder": "path:m"} and step.check_models({"encoder": None}) == []
    assert step.check_models({"encoder": ModelInfo("m", "classification", ("a",))})[0][0] == "model"


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    good = {"segment": "a", "segment_id": 1, "confidence": 0.5, "distance": 0.1, "words": ["a"], "texts": 2}
    changes: list[dict[str, Any]] = [{"segment": " "}, {"confidence": 2.0}, {"distance": -1.0}, {"texts": 0}]
    for rule, change in zip(task().rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task().columns())
        assert broken_rules(task(), columns) == {rule: 1}
