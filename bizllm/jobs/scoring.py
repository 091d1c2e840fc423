"""What is told of a model on labelled rows: metrics, intervals, classes, slices; for results, cards and reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.evaluate import calibration, classification, slices, tags
from bizllm.evaluate.objective_metrics import default_metric
from bizllm.train import judge, resampled
from bizllm.train.judge import Answers
from bizllm.train.leaks import texts_of

LEAST_ROWS = 8  # to tell apart
SLICES_MOST = 12  # values of a slice, the most frequent ones


@dataclass(frozen=True)
class Scored:
    """A model's scores on one table. confusion: (k, k), truth in rows. reliability: before and after calibration."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: list[dict[str, Any]] = field(default_factory=list)
    confusion: Any = None
    reliability: dict[str, Any] | None = None
    slices: list[dict[str, Any]] = field(default_factory=list)


def score(answers: Answers, rows: pa.Table, metric: str | None = None) -> Scored:
    """All that a report shows of a model on labelled rows. metric: of the slices; the objective's by default."""
    info = answers.info
    metric = metric or default_metric(info.objective)
    bounds = resampled.intervals(answers, rows, info.labels)
    made: dict[str, Any] = {}
    if info.objective in judge.CLASSES:
        truth = judge.places(rows["label"], info.labels)
        probabilities = calibration.softmax(answers.outputs["logits"], info.temperature)
        raw = calibration.softmax(answers.outputs["logits"])
        made = {
            "per_class": classification.per_class(probabilities, truth, list(info.labels)),
            "confusion": classification.confusion(probabilities, truth, len(info.labels)),
            "reliability": {
                "before": calibration.reliability(raw, truth),
                "after": calibration.reliability(probabilities, truth),
                "ece_before": calibration.ece(raw, truth),
                "ece_after": calibration.ece(probabilities, truth),
                "temperature": info.temperature,
            },
        }
    elif info.objective == "token_classification":
        said = judge.said_tags(answers, rows)
        found = tags.scores(rows["label"].to_pylist(), said)["types"]
        made = {"per_class": [{**row, "label": row.get("label", row.get("type"))} for row in found]}
        for row in made["per_class"]:
            row.pop("type", None)
    return Scored(answers.metrics, bounds, slices=_slices(answers, rows, metric), **made)


def _slices(answers: Answers, rows: pa.Table, metric: str) -> list[dict[str, Any]]:
    drawn = resampled.resampled(metric, answers, rows, answers.info.labels)
    if drawn is None or len(drawn.given) != len(rows):
        return []
    groups: dict[str, Any] = {
        name.removeprefix("slice."): np.array([str(value) for value in rows[name].to_pylist()], np.str_)
        for name in rows.column_names
        if name.startswith("slice.")
    }
    for name, values in list(groups.items()):
        known, count = np.unique(values, return_counts=True)
        groups[name] = np.where(np.isin(values, known[np.argsort(-count)[:SLICES_MOST]]), values, "others")
    texts = texts_of(rows)
    if texts is not None and len(rows) >= LEAST_ROWS:
        groups["script"] = np.array([slices.script_of(text) for text in texts])
    if answers.tokens is not None and len(answers.tokens) == len(rows) >= LEAST_ROWS:
        groups["length"] = np.array(slices.length_bins(answers.tokens))
    found = slices.slice_scores(drawn.metric, (drawn.truth, drawn.given), groups)
    return [row for row in found if np.isfinite(row["score"])]
