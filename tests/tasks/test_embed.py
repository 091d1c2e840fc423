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
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.embed import TASK, EmbedSettings

TEXTS = ["The kettle leaks.", None, "水壶漏水了。", " \n", "The kettle is leaking.", "A" * 60, "My invoice is wrong."]


def make(schema: pa.Schema, model: str = "builtin:minilm", **settings: Any) -> TASK:
    given = EmbedSettings(task="embed", input="t", text="body", model=model, **settings)
    return TASK(given, StepInput("t", schema), date(2026, 1, 1))


def test_vectors_are_the_encoders_and_bad_texts_are_rejected(broken_rules: Any) -> None:
    rows = pa.table({"body": TEXTS})
    task, loader = make(rows.schema, max_input_chars=50), ModelLoader()
    assert task_class("embed") is TASK and task.check() == []
    task.open(loader)
    outcome = task.answer(task.prepare(rows))
    assert outcome.columns.schema == task.columns()
    assert outcome.subject.tolist() == [0, 2, 4, 6]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty"), (3, "empty"), (5, "too_long")]
    encoder = loader.encoder("builtin:minilm")
    vectors = np.array(outcome.columns["vector"].to_pylist(), np.float32)
    expected, tokens = encoder.encode([TEXTS[i] for i in (0, 2, 4, 6)])
    np.testing.assert_array_equal(vectors, expected)
    assert outcome.tokens == tokens == sum(outcome.columns["input_tokens"].to_pylist())
    near = vectors @ vectors[0]
    assert near[2] > 0.9 > 0.5 > near[3]  # a paraphrase, and another matter

    assert broken_rules(task, outcome.columns) == {}
    broken = [[2.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0], [0.0, 0.0], []]
    columns = pa.table({"vector": broken, "input_tokens": [1] * 5}, schema=task.columns())
    assert list(broken_rules(task, columns).values()) == [5]


def test_a_fine_tuned_encoder_pools_as_it_was_trained(fine_tuned: Callable[..., Path]) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = fine_tuned(objective="embedding", pooling="cls", max_tokens=16)
    rows = pa.table({"body": ["the lamp", "the kettle is broken", "lamp " * 40]})
    task = make(rows.schema, f"path:{folder}")
    assert task.check_models({"encoder": ModelInfo("m", "embedding")}) == []
    task.open(ModelLoader())
    found = task.answer(rows).columns
    hidden = AutoModel.from_pretrained(folder)(**AutoTokenizer.from_pretrained(folder)("the lamp", return_tensors="pt"))
    cls = hidden.last_hidden_state[0, 0].detach().numpy()
    np.testing.assert_allclose(
        found["vector"][0].as_py(), cls / np.linalg.norm(cls), atol=0.02
    )  # bfloat16 where native
    assert found["input_tokens"].to_pylist() == [4, 6, 46]  # three windows


def test_a_vector_that_is_no_number_is_a_reject() -> None:
    class Broken:
        def encode_counted(self, texts: list[str]) -> tuple[Any, Any]:
            return np.array([[1.0, 0.0], [np.nan, np.nan]], np.float32), np.array([3, 3])

    rows = pa.table({"body": ["a", "b"]})
    task = make(rows.schema)
    task._encoder = Broken()
    outcome = task.answer(rows)
    assert outcome.subject.tolist() == [0] and [(r.subject, r.code) for r in outcome.rejects] == [(1, "not_finite")]


def test_no_usable_row() -> None:
    rows = pa.table({"body": pa.array([None, ""], pa.string())})
    task = make(rows.schema)
    task.open(ModelLoader())
    outcome = task.answer(rows)
    assert outcome.columns.schema == task.columns() and outcome.columns.num_rows == 0 and len(outcome.rejects) == 2


@pytest.mark.parametrize(
    ("info", "said"),
    [(None, None), (ModelInfo("m", "masked_lm"), None), (ModelInfo("m", "classification"), "is classification")],
)
def test_which_models_fit(info: ModelInfo | None, said: str | None) -> None:
    faults = make(pa.schema([("body", pa.string())])).check_models({"encoder": info})
    assert [said in fault[2] for fault in faults] == ([True] if said else [])


def test_columns_are_checked() -> None:
    assert make(pa.schema([("bdy", pa.string())])).check()[0][3] == "did you mean 'bdy'?"
    assert "int64" in make(pa.schema([("body", pa.int64())])).check()[0][2]
