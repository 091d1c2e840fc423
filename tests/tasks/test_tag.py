from __future__ import annotations

from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.models.tagger import Word
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.tag import TASK, TagSettings

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SCHEMA = pa.schema([("body", pa.string()), ("n", pa.int64())])


def make(model: str = "path:m", **settings: Any) -> TASK:
    given = TagSettings(**{"task": "tag", "input": "t", "text": "body", "model": model, **settings})
    return TASK(given, StepInput("t", SCHEMA), date(2026, 1, 1))


class Given:
    """Tags as a tagger tells them: `word/TAG` by its place in the text, each with its own probability."""

    def __init__(self, told: dict[str, list[tuple[str, str, float]]]) -> None:
        self.told = told

    def tags(self, texts: list[str]) -> tuple[list[list[Word]], Any]:
        found = []
        for text in texts:
            at, words = 0, []
            for word, tag, probability in self.told[text]:
                at = text.index(word, at)
                words.append(Word(at, at + len(word), tag, probability))
                at += len(word)
            found.append(words)
        return found, np.array([len(words) + 2 for words in found])


def spans(told: dict[str, list[tuple[str, str, float]]]) -> list[Any]:
    task = make()
    task._tagger = Given(told)  # type: ignore[assignment]
    outcome = task.answer(pa.table({"body": list(told)}))
    assert outcome.columns.schema == task.columns()
    return [
        [(s["start"], s["text"], s["type"], round(s["probability"], 6)) for s in row]
        for row in outcome.columns["spans"].to_pylist()
    ]


def test_words_join_to_spans_of_the_text() -> None:
    assert spans(
        {
            "🎉 Jane  Doe flew to Paris": [
                ("🎉", "O", 0.9),
                ("Jane", "B-PER", 0.9),
                ("Doe", "I-PER", 0.7),
                ("flew", "O", 1.0),
                ("to", "O", 1.0),
                ("Paris", "B-LOC", 0.5),
            ],
            "张三在北京": [
                (c, t, 0.5) for c, t in zip("张三在北京", ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], strict=True)
            ],
            "ab cd ef": [("ab", "I-PER", 0.5), ("cd", "B-PER", 0.5), ("ef", "I-LOC", 0.5)],
            "nothing here": [("nothing", "O", 0.5), ("here", "O", 0.5)],
        }
    ) == [
        [(2, "Jane  Doe", "PER", 0.8), (20, "Paris", "LOC", 0.5)],
        [(0, "张三", "PER", 0.5), (3, "北京", "LOC", 0.5)],
        [(0, "ab", "PER", 0.5), (3, "cd", "PER", 0.5), (6, "ef", "LOC", 0.5)],  # broken sequences begin anew
        [],
    ]


def test_a_model_reads_rows_and_bad_ones_are_rejected(fine_tuned: Callable[..., Path], broken_rules: Any) -> None:
    folder = fine_tuned(objective="token_classification", labels=TAGS, pooling="native")
    task = make(f"path:{folder}", max_input_chars=500)
    assert task_class("tag") is TASK and task.check() == []
    task.open(ModelLoader())
    texts = ["the lamp is broken", None, "张三在北京买灯。", "", "x" * 501, "lamp kettle. " * 30]
    outcome = task.answer(pa.table({"body": texts}))
    assert outcome.subject.tolist() == [0, 2, 5]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty"), (3, "empty"), (4, "too_long")]
    found = outcome.columns.to_pylist()
    assert outcome.tokens == sum(row["input_tokens"] for row in found) and sum(len(row["spans"]) for row in found) > 3
    for subject, row in zip(outcome.subject.tolist(), found, strict=True):
        places = [(s["start"], s["end"]) for s in row["spans"]]
        assert places == sorted(places) and all(a[1] <= b[0] for a, b in pairwise(places))
        assert all(texts[subject][s["start"] : s["end"]] == s["text"] for s in row["spans"])
    assert broken_rules(task, outcome.columns) == {}
    empty = task.answer(pa.table({"body": pa.array([None], pa.string())}))
    assert empty.columns.schema == task.columns() and empty.columns.num_rows == 0


def test_a_tag_without_a_probability_is_a_reject() -> None:
    task = make()
    task._tagger = Given({"a b": [("a", "O", 0.5), ("b", "O", float("nan"))], "c": [("c", "O", 0.5)]})  # type: ignore[assignment]
    outcome = task.answer(pa.table({"body": ["a b", "c"]}))
    assert outcome.subject.tolist() == [1] and [(r.subject, r.code) for r in outcome.rejects] == [(0, "not_finite")]


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make()
    holds, likely = task.rules()
    good = {"start": 0, "end": 2, "type": "PER", "text": "ab", "probability": 0.5}
    for change, rule in [({"end": 1}, holds), ({"text": "", "end": 0}, holds), ({"probability": 1.5}, likely)]:
        rows = [{"spans": [good, {**good, **change}], "input_tokens": 3}, {"spans": [], "input_tokens": 3}]
        assert broken_rules(task, pa.Table.from_pylist(rows, schema=task.columns())) == {rule: 1}
    emoji = {**good, "end": 4, "text": "👩‍👩a", "probability": 1.0}  # characters as Python counts them
    assert (
        broken_rules(task, pa.Table.from_pylist([{"spans": [emoji], "input_tokens": 3}], schema=task.columns())) == {}
    )


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (ModelInfo("m", "token_classification"), []),
        (ModelInfo("m", "pair"), ["needs a model of objective token_classification; this one is pair"]),
        (None, ["this one was not fine-tuned with bizllm"]),
    ],
)
def test_which_models_fit(info: ModelInfo | None, said: list[str]) -> None:
    faults = make().check_models({"tagger": info})
    assert len(faults) == len(said) and all(words in fault[2] for words, fault in zip(said, faults, strict=True))


def test_columns_are_checked() -> None:
    assert make(text="bdy").check()[0][3] == "did you mean 'body'?"
    assert "int64" in make(text="n").check()[0][2]
