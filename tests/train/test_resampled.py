"""Metrics that rows can be drawn for: equal to the objective's own on all rows; models of other classes and thresholds
held against the same truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
from sklearn import metrics as sk

from bizllm.evaluate.objective_metrics import METRICS, default_metric
from bizllm.models.saved import ModelInfo
from bizllm.train import judge, written
from bizllm.train.judge import Answers
from bizllm.train.objectives.base import objective_class, objective_names
from bizllm.train.recipe import Recipe
from bizllm.train.resampled import DRAWN, compare, incomparable, intervals, resampled

ROWS = 60
CLASSES = ("a", "b", "c")


def answers(objective: str, seed: int = 0, skill: float = 1.0, **changes: Any) -> tuple[Answers, pa.Table]:
    """Made-up answers of some skill, and their rows, which do not depend on seed and skill."""
    truth, rng = np.random.default_rng(7), np.random.default_rng(seed)
    said: dict[str, Any] = {"loss": rng.random(ROWS), "units": np.ones(ROWS)}
    info: dict[str, Any] = {}
    rows: dict[str, Any] = {"text": [f"row {i}" for i in range(ROWS)]}
    if objective in ("classification", "pair"):
        label = truth.integers(0, 3, ROWS)
        said["logits"] = rng.normal(size=(ROWS, 3)) + skill * np.eye(3)[label]
        rows["label"], info["labels"] = [CLASSES[i] for i in label], CLASSES
    elif objective == "multi_label":
        given = truth.random((ROWS, 3)) < 0.4
        said["logits"] = rng.normal(size=(ROWS, 3)) + skill * (2.0 * given - 1)
        rows["label"], info["labels"] = [[c for c, g in zip(CLASSES, r, strict=True) if g] for r in given], CLASSES
    elif objective in ("regression", "quantile"):
        info["horizon"], levels = 2, (0.1, 0.5, 0.9) if objective == "quantile" else ()
        info["levels"] = levels
        label = truth.normal(10, 3, (ROWS, 2))
        points = label + rng.normal(size=label.shape) / max(skill, 0.1)
        spread = points[..., None] + np.array([-1.0, 0.0, 1.0]) if levels else points
        said["numbers"], rows["label"] = spread.reshape(ROWS, -1), label.tolist()
    elif objective == "token_classification":
        info["labels"] = ("O", "B-x", "B-y")
        label = [truth.integers(0, 3, 5) for _ in range(ROWS)]
        noisy = [np.where(rng.random(5) < 0.2 * skill + 0.3, one, rng.integers(0, 3, 5)) for one in label]
        made = np.empty(ROWS, object)
        made[:] = [one.tolist() for one in noisy]
        said["tags"], rows["label"] = made, [[info["labels"][i] for i in one] for one in label]
        rows["text"] = [["w"] * 5] * ROWS
    elif objective == "embedding":
        anchors = truth.normal(size=(ROWS, 8))
        said["anchors"] = anchors
        said["positives"] = skill * anchors + rng.normal(size=anchors.shape)
    else:
        said["units"] = truth.integers(1, 9, ROWS).astype(float)
        said["loss"] = said["units"] * (2.0 - skill + rng.random(ROWS))
        said["right"] = np.minimum(said["units"], rng.integers(0, 5, ROWS))
        rows["label"] = [f"word {i}" for i in truth.integers(0, 5, ROWS)]
    table = pa.table(rows)
    recipe = Recipe.model_validate({**tiny._DEFAULTS, "objective": objective})
    made_info = ModelInfo("tiny", objective, **{**info, **changes})
    found = judge.judged(objective_class(objective)(recipe, None, made_info), said, table)
    if objective in ("causal_lm", "seq2seq"):
        texts = [x if rng.random() < skill / 2 else "nothing" for x in rows["label"]]
        scores = written.scores(table, texts)
        found = replace(found, written=scores, metrics={**found.metrics, **written.means(scores)})
    return found, table


@pytest.mark.parametrize("objective", objective_names())
def test_on_all_rows_they_are_the_objective_s_own(objective: str) -> None:
    found, rows = answers(objective, threshold=0.4)
    for metric in DRAWN[objective]:
        drawn = resampled(metric, found, rows, found.info.labels)
        assert drawn is not None and len(drawn.given) == ROWS
        assert drawn.score == pytest.approx(found.metrics[metric], rel=1e-6), metric
        assert drawn.higher_is_better == METRICS[objective].get(metric, True)
    assert resampled("nonsense", found, rows, found.info.labels) is None


@pytest.mark.parametrize("objective", objective_names())
def test_intervals_are_around_the_scores(objective: str) -> None:
    found, rows = answers(objective)
    bounds = intervals(found, rows, found.info.labels)
    assert default_metric(objective) in bounds
    for metric, (low, high) in bounds.items():
        assert np.isfinite([low, high]).all() and low - 1e-9 <= found.metrics[metric] <= high + 1e-9


@pytest.mark.parametrize("objective", objective_names())
def test_the_better_model_wins_by_the_objective_s_own_metric(objective: str) -> None:
    weak, rows = answers(objective, seed=1, skill=0.2)
    strong, _ = answers(objective, seed=2, skill=1.9)
    metric = default_metric(objective)
    assert incomparable(metric, strong, weak) == ""
    found = compare(metric, strong, weak, rows, strong.info.labels, 0.95)
    assert found.gain > 0 and found.low > 0 and found.p_value < 0.05
    back = compare(metric, weak, strong, rows, weak.info.labels, 0.95)
    assert back.gain == pytest.approx(-found.gain) and back.p_value > 0.5
    same = compare(metric, strong, strong, rows, strong.info.labels, 0.95)
    assert (same.gain, same.low, same.high) == (0.0, 0.0, 0.0)


def test_a_model_of_fewer_classes_is_wrong_where_they_are_missing() -> None:
    found, rows = answers("classification", skill=9.0)
    fewer = Answers(
        replace(found.info, labels=("a", "b")), {**found.outputs, "logits": found.outputs["logits"][:, :2]}, {}
    )
    truth = np.array(rows["label"].to_pylist())
    said = np.array(["a", "b"])[fewer.outputs["logits"].argmax(1)]
    for metric, expected in (
        ("accuracy", sk.accuracy_score(truth, said)),
        ("macro_f1", sk.f1_score(truth, said, average="macro", labels=list(CLASSES), zero_division=0)),
    ):
        drawn = resampled(metric, fewer, rows, CLASSES)
        assert drawn is not None and drawn.score == pytest.approx(expected)
    assert compare("macro_f1", found, fewer, rows, CLASSES, 0.95).low > 0


def test_a_model_of_other_classes_is_wrong_where_it_names_them() -> None:
    """More classes, in another order: no index of one may be taken for one of the other."""
    found, rows = answers("classification", skill=9.0)
    logits = found.outputs["logits"]
    mixed = np.stack([np.full(ROWS, -9.0), logits[:, 2], logits[:, 0], np.full(ROWS, -9.0), logits[:, 1]], 1)
    mixed[:10, 3] = 99.0  # ten rows are given a class that the new model does not have
    other = Answers(replace(found.info, labels=("x", "c", "a", "y", "b")), {"logits": mixed}, {})
    drawn = resampled("accuracy", other, rows, CLASSES)
    assert drawn is not None and drawn.score == pytest.approx(50 / 60)
    assert compare("accuracy", found, other, rows, CLASSES, 0.95).gain == pytest.approx(10 / 60)
    losses = [resampled(m, other, rows, CLASSES) for m in ("macro_f1", "log_loss", "mcc", "roc_auc", "ece")]
    assert all(drawn is not None and np.isfinite(drawn.score) for drawn in losses)


def test_each_model_of_several_labels_has_its_own_threshold() -> None:
    found, rows = answers("multi_label", skill=2.0, threshold=0.5)
    strict = replace(found, info=replace(found.info, threshold=0.999))
    drawn = [resampled("micro_f1", one, rows, CLASSES) for one in (found, strict)]
    truth = np.array([[c in row for c in CLASSES] for row in rows["label"].to_pylist()])
    likely = 1 / (1 + np.exp(-found.outputs["logits"]))
    for one, threshold in zip(drawn, (0.5, 0.999), strict=True):
        assert one is not None
        assert one.score == pytest.approx(sk.f1_score(truth, likely >= threshold, average="micro", zero_division=0))
    assert compare("micro_f1", found, strict, rows, CLASSES, 0.95).champion == pytest.approx(drawn[1].score)


def test_what_can_not_be_compared_says_why() -> None:
    ours, _ = answers("quantile")
    theirs = replace(ours, info=replace(ours.info, levels=(0.2, 0.5, 0.8)))
    assert "other quantile levels" in incomparable("pinball", ours, theirs)
    assert incomparable("mae", ours, theirs) == ""
    assert "3 numbers a row" in incomparable("mae", ours, replace(ours, info=replace(ours.info, horizon=3)))
    ours, _ = answers("causal_lm")
    units = ours.outputs["units"]
    for other in (units[:-1], units + 1):
        theirs = replace(ours, outputs={**ours.outputs, "units": other})
        assert "as other tokens" in incomparable("perplexity", ours, theirs)
        assert incomparable("rougeL", ours, theirs) == ""
