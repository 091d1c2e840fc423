"""A model's answers: as plain transformers gives them, calibrated, and also of rows with classes it does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from transformers import AutoModel, AutoTokenizer

from bizllm.evaluate import calibration
from bizllm.models.saved import read_info
from bizllm.train import judge
from bizllm.train.objectives.base import objective_class
from bizllm.train.recipe import Recipe

Make = Callable[..., Path]
TEXTS = ["the lamp is broken", "kettle the the", "broken lamp", "the"]


def recipe(objective: str) -> Recipe:
    return Recipe.model_validate({**tiny._DEFAULTS, "objective": objective})


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bf16, so that answers can be held against fp32's."""
    monkeypatch.setattr("bizllm.models.batches.native_bfloat16", lambda device: False)


def test_answers_are_those_of_plain_transformers(fine_tuned: Make) -> None:
    from safetensors.torch import load_file

    folder = fine_tuned(objective="classification", labels=("a", "b", "c"), temperature=2.0)
    info = read_info(folder)
    assert info is not None
    rows = pa.table({"text": TEXTS, "label": ["a", "b", "c", "a"]})
    found = judge.answer(folder, info, rows, recipe("classification"))
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    head = load_file(folder / "head.safetensors")
    expected = (hidden * mask).sum(1) / mask.sum(1) @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(found.outputs["logits"], expected.numpy(), atol=1e-5)
    likely = torch.softmax(expected / 2.0, -1).numpy()
    truth = np.array([0, 1, 2, 0])
    assert found.metrics["log_loss"] == pytest.approx(-np.log(likely[range(4), truth]).mean(), rel=1e-4)
    assert found.tokens is not None and found.tokens.tolist() == batch["attention_mask"].sum(1).tolist()


def test_rows_of_unknown_classes_are_answered_like_any_other(fine_tuned: Make) -> None:
    for objective, labels, known, unknown in (
        ("classification", ("a", "b"), ["a", "b", "a", "b"], ["a", "zz", "zz", "b"]),
        ("multi_label", ("a", "b"), [["a"], [], ["b"], ["a", "b"]], [["zz"], [], ["b", "zz"], ["a"]]),
    ):
        folder = fine_tuned(objective=objective, labels=labels)
        info = read_info(folder)
        assert info is not None
        one, other = (
            judge.answer(folder, info, pa.table({"text": TEXTS, "label": label}), recipe(objective))
            for label in (known, unknown)
        )
        np.testing.assert_array_equal(one.outputs["logits"], other.outputs["logits"])


def test_tags_that_a_tagger_does_not_know(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="token_classification", labels=("B-x", "I-x"), pooling="native")
    info = read_info(folder)
    assert info is not None
    rows = pa.table({"text": [["the", "lamp"], ["kettle"]], "label": [["B-zz", "O"], ["B-x"]]})
    found = judge.answer(folder, info, rows, recipe("token_classification"))
    assert [len(tags) for tags in judge.said_tags(found, rows)] == [2, 1]


def test_temperature_and_threshold_are_fitted_on_validation(fine_tuned: Make) -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 400)
    logits = 8.0 * (rng.normal(size=(400, 3)) + 1.5 * np.eye(3)[truth])  # far too sure
    folder = fine_tuned(objective="classification", labels=("a", "b", "c"))
    info = read_info(folder)
    assert info is not None
    objective = objective_class("classification")(recipe("classification"), None, info)
    rows = pa.table({"text": ["x"] * 400, "label": [("a", "b", "c")[i] for i in truth]})
    made = judge.calibrated(objective, {"logits": logits}, rows)
    grid = np.linspace(2, 16, 141)
    losses = [-np.log(calibration.softmax(logits, t)[range(400), truth]).mean() for t in grid]
    assert made.temperature == pytest.approx(grid[int(np.argmin(losses))], abs=0.1)
    likely = calibration.softmax(logits, made.temperature)
    right = likely.argmax(1) == truth
    assert made.threshold is not None
    assert (likely.max(1)[right] < made.threshold).mean() <= 0.05
    before = judge.judged(objective, {"logits": logits, "loss": np.zeros(400), "units": np.ones(400)}, rows)
    calm = objective_class("classification")(recipe("classification"), None, made)
    after = judge.judged(calm, {"logits": logits, "loss": np.zeros(400), "units": np.ones(400)}, rows)
    assert after.metrics["ece"] < before.metrics["ece"] / 2
    assert after.metrics["accuracy"] == before.metrics["accuracy"]


def test_hidden_tokens_are_the_same_for_every_model(tmp_path: Path) -> None:
    """masked_lm draws what it hides: two models must be asked the same."""
    base = tiny.bert(tmp_path / "base")
    work = tiny.work(tmp_path / "work", base, tiny.table(16).select(["text"]), objective="masked_lm")
    network = work.network()
    one, other = (judge.ask(work.objective, network, work.rows("validation")) for _ in range(2))
    np.testing.assert_array_equal(one.outputs["loss"], other.outputs["loss"])
    state = torch.random.get_rng_state()
    judge.ask(work.objective, network, work.rows("validation"))
    assert torch.equal(state, torch.random.get_rng_state()), "asking leaves no trace in what is drawn after"


def test_every_row_of_a_language_model_is_an_example_of_its_own(tmp_path: Path) -> None:
    base = tiny.gpt2(tmp_path / "base")
    rows = tiny.table(12)
    work = tiny.work(tmp_path / "work", base, rows, objective="causal_lm", max_tokens=64)
    assert len(work.examples("validation")) < 12, "packed for training"
    found = judge.ask(work.objective, work.network(), rows)
    assert len(found.outputs["loss"]) == 12 and found.tokens is not None and len(found.tokens) == 12
    apart = replace(work.info)
    assert found.info == apart


def test_shares_below_quantiles(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="quantile", levels=(0.1, 0.9))
    info = read_info(folder)
    assert info is not None
    numbers = np.array([[3.0, 1.0], [0.0, 2.0]])  # the first row's levels are crossed: they are put in order
    found = judge.Answers(info, {"numbers": numbers}, {})
    rows = pa.table({"text": ["x", "y"], "label": [2.0, -1.0]})
    assert judge.shares_below(found, rows) == {0.1: 0.5, 0.9: 1.0}
