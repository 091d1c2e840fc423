"""A night of fine-tuned models: through a real local Ray into tables; models that do not fit are found before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError
from bizllm.models.classifier import Classifier
from bizllm.models.encoder import Encoder

NIGHT = "2026-03-10"
Job = Callable[..., str]
Make = Callable[..., Path]
LABELS = ("refund", "delivery", "other")


@pytest.fixture
def models(fine_tuned: Make) -> dict[str, Path]:
    """A model of each kind, by the step that asks it."""
    return {
        "vectors": fine_tuned(objective="embedding"),
        "intent": fine_tuned(objective="classification", labels=LABELS, threshold=0.5),
        "names": fine_tuned(objective="token_classification", labels=("O", "B-X", "I-X"), pooling="native"),
    }


def steps(models: dict[str, Path], **changes: Any) -> dict[str, Any]:
    tasks = {"vectors": "embed", "intent": "classify", "names": "tag"}
    return {
        name: {"task": task, "input": "tickets", "text": "body", "model": f"path:{models[name]}", **changes}
        for name, task in tasks.items()
    }


@pytest.mark.usefixtures("local_ray")
def test_a_night_asks_each_model(job: Job, models: dict[str, Path], tmp_path: Path) -> None:
    path = job(steps=steps(models))
    result = api.run(path, date=NIGHT)
    assert {step.step: (step.state, step.rows_out) for step in result.steps} == {
        "vectors": ("done", 12),
        "intent": ("done", 12),
        "names": ("done", 12),
    }
    assert all(step.tokens for step in result.steps)

    tickets = pq.read_table(tmp_path / f"tickets/dt={NIGHT}").sort_by("ticket_id").to_pylist()
    texts = [row["body"] for row in tickets]

    def read(step: str) -> list[dict[str, Any]]:
        found = api.show(path, sql=f"select * from {step} order by ticket_id").to_pylist()
        assert [row["ticket_id"] for row in found] == [row["ticket_id"] for row in tickets]
        assert {row["model"] for row in found} == {f"path:{models[step]}"}
        return found

    expected, tokens = Encoder.load(models["vectors"]).encode_counted(texts)
    vectors = read("vectors")
    np.testing.assert_allclose([row["vector"] for row in vectors], expected, atol=1e-6)
    assert [row["input_tokens"] for row in vectors] == tokens.tolist()
    likely, _ = Classifier.load(models["intent"]).probabilities(texts)
    for row, each in zip(read("intent"), likely.tolist(), strict=True):
        assert (row["label"], row["probability"]) == (LABELS[int(np.argmax(each))], pytest.approx(max(each), abs=1e-6))
        assert row["out_of_scope"] == (row["probability"] < 0.5) and len(row["alternatives"]) == 2
    names = read("names")
    for row, text in zip(names, texts, strict=True):
        assert all(text[span["start"] : span["end"]] == span["text"] for span in row["spans"])
    assert sum(len(row["spans"]) for row in names) > 12

    assert api.run(path, date=NIGHT).state == "unchanged"
    assert "refund" in Path(api.report(path)).read_text()


def test_models_that_do_not_fit_are_found_before_any_work(job: Job, models: dict[str, Path], tmp_path: Path) -> None:
    turned = {"vectors": models["intent"], "intent": models["names"], "names": models["vectors"]}
    with pytest.raises(UserError) as caught:
        api.run(job(steps=steps(turned)), date=NIGHT)
    said = [str(fault) for fault in caught.value.faults]
    assert len(said) == 3 and not (tmp_path / "wh").exists()
    assert (
        "steps.vectors.model: " in said[0] and "this one is classification; task classify reads such models" in said[0]
    )
    assert "steps.intent.model: " in said[1] and "task classify needs a model of objective classification" in said[1]
    assert "steps.names.model: " in said[2] and "this one is embedding; task embed reads such models" in said[2]


def test_a_plain_encoder_is_no_classifier(job: Job) -> None:
    step = {"task": "classify", "input": "tickets", "text": "body", "model": "builtin:minilm"}
    with pytest.raises(UserError, match="this one was not fine-tuned with bizllm"):
        api.run(job(steps={"intent": step}), date=NIGHT)
    del step["model"]
    with pytest.raises(UserError, match=r"steps\.intent.*model"):
        api.run(job(steps={"intent": step}), date=NIGHT)
