"""The topics task as the engine runs it: combine, features, fit, answer, night after night."""

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
from bizllm.tasks.base import Groups, Outcome, StepInput, task_class
from bizllm.tasks.topics import TASK, Topics, TopicsSettings
from tests.tasks.spoken import EN, ZH, texts

SCHEMA = pa.schema([("id", pa.string()), ("body", pa.string()), ("n", pa.int64())])
ENDS = ["", "today", "again", "please", "thanks"]


def task(key: tuple[str, ...] = ("id",), **settings: Any) -> Topics:
    made = TopicsSettings(**{"task": "topics", "input": "tickets", "text": "body", **settings})
    return Topics(made, StepInput("tickets", SCHEMA, key), date(2026, 1, 1))


def night(
    bodies: list[str | None],
    previous: dict[str, Any] | None = None,
    order: Any = None,
    prior: list[str | None] | None = None,
    keys: list[str] | None = None,
    **settings: Any,
) -> tuple[pa.Table, dict[str, Any], Outcome]:
    """One night of texts whose keys are their numbers: (answers in that order, the fit, what `features` said)."""
    step = task(**settings)
    assert step.check() == []
    step.open(ModelLoader())
    keys = keys or [f"{i:04d}" for i in range(len(bodies))]
    rows = pa.table({"id": keys, "body": bodies}, schema=pa.schema([SCHEMA.field("id"), SCHEMA.field("body")]))
    rows = rows if order is None else rows.take(pa.array(order))
    half = rows.num_rows // 2
    parts = pa.concat_tables([step.combine(rows.slice(0, half)).rows, step.combine(rows.slice(half)).rows])
    parts = parts.sort_by("id")
    names = sorted(set(keys))
    starts = np.append(np.searchsorted(np.array(parts["id"].to_pylist(), object), names), parts.num_rows)
    before = None if prior is None else pa.table({"topic": pa.array(prior, pa.string())})
    found = step.features(Groups(parts, starts.astype(np.int64), pa.table({"id": names}), before))
    fit = json.loads(json.dumps(step.fit(found.columns, previous)))
    answered = replace(step, fitted=fit).answer(found.columns)
    assert answered.columns.schema == step.columns()
    return answered.columns, fit, found


@pytest.mark.parametrize(("model", "language"), [("builtin:minilm", EN), (None, EN), (None, ZH)])
def test_planted_topics_are_found_and_named(model: str | None, language: Any, broken_rules: Any) -> None:
    said, of = texts(language, ENDS[:1] if language is ZH or model else ENDS)
    said, of = (said * 2, of * 2) if language is ZH else (said, of)
    answers, _, found = night([*said, None, " "], model=model, k=3, outliers=0.0)
    assert found.subject.tolist() == list(range(len(said)))
    assert [(r.subject, r.code) for r in found.rejects] == [(len(said), "empty"), (len(said) + 1, "empty")]
    assert adjusted_rand_score(of, answers["topic_id"].to_pylist()) > 0.9
    names = {topic: set(words) for topic, words in zip(of, answers["words"].to_pylist(), strict=True)}
    assert all(any(topic in word for word in names[topic]) for topic in language)
    assert broken_rules(task(), answers) == {}
    assert found.tokens > 0 if model else found.tokens == 0


def test_the_order_of_the_rows_decides_nothing() -> None:
    said, _ = texts(EN, ENDS)
    order = np.random.default_rng(0).permutation(len(said))
    one, other = night(said, k=3), night(said, order=order, k=3)
    assert one[1] == other[1] and one[0].equals(other[0])


def test_the_next_night_knows_them_again() -> None:
    said, _ = texts(EN, ENDS)
    first, fit, _ = night(said, k=3, outliers=0.0)
    second, again, _ = night(said[8:], fit, prior=first["topic"].to_pylist()[8:], k=3, outliers=0.0)
    assert {t["id"] for t in again["topics"]} == {1, 2, 3}
    assert second["previous_topic"].to_pylist() == first["topic"].to_pylist()[8:]
    pairs = zip(second["topic"].to_pylist(), second["previous_topic"].to_pylist(), strict=True)
    assert np.mean([now == before for now, before in pairs]) > 0.95


def test_what_is_far_is_other() -> None:
    said, _ = texts(EN, ENDS)
    answers, fit, _ = night([*said, "quantum llamas juggle nebulae"], k=3, other="rest")
    assert answers.to_pylist()[-1]["topic"] == "rest"
    assert {row["topic_id"] for row in answers.to_pylist() if row["topic"] == "rest"} == {0}
    assert all(not row["words"] for row in answers.to_pylist() if row["topic_id"] == 0)
    few, same, _ = night(["llamas", *said[20:25]], fit)
    assert same == fit and few["topic"].to_pylist() == ["other", *answers["topic"].to_pylist()[20:25]]


def test_two_rows_of_a_key_are_rejected() -> None:
    _, _, found = night(["the parcel is late", "the lamp broke", "a refund"], keys=["a", "a", "b"])
    assert [(r.subject, r.code) for r in found.rejects] == [(0, "duplicate_key")] and found.subject.tolist() == [1]


@pytest.mark.parametrize("bodies", [[], [None], ["one text"], ["same"] * 50, ["long " * 900] * 3])
def test_odd_nights(bodies: list[str | None]) -> None:
    for model in (None, "builtin:minilm") if len(bodies) < 5 else (None,):
        answers, fit, found = night(bodies, model=model)
        assert answers.num_rows == sum(body is not None for body in bodies)
        assert answers.num_rows + len(found.rejects) == len(bodies)
        assert len(fit["topics"]) == 1


def test_settings_are_checked() -> None:
    assert task_class("topics") is TASK
    assert task(text="bdy").check()[0][3] == "did you mean 'body'?"
    assert "int64" in task(text="n").check()[0][2]
    assert task(key=()).check()[0][3] == "`key: auto` adds one"
    assert task(key=("body",)).check()[0][0] == "text"
    for wrong in ({"k": 0}, {"k": 3, "k_range": (2, 4)}, {"k_range": (9, 4)}, {"outliers": 0.9}, {"other": ""}):
        with pytest.raises(ValidationError):
            task(**wrong)
    step = task(model="path:m")
    assert step.models() == {"encoder": "path:m"} and task().models() == {}
    assert (
        "this one is classification" in step.check_models({"encoder": ModelInfo("m", "classification", ("a",))})[0][2]
    )


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    good = {"topic": "a", "topic_id": 1, "words": ["a"], "probability": 0.5, "previous_topic": None}
    changes: list[dict[str, Any]] = [{"topic": " "}, {"topic_id": 0}, {"probability": float("nan")}]
    for rule, change in zip(task().rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task().columns())
        assert broken_rules(task(), columns) == {rule: 1}
