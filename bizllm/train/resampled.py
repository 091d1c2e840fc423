"""Metrics as functions of rows that can be drawn: intervals, and whether one model is better than another.

Each model's answers become what its own threshold and classes say of a row before anything is drawn, so that two models
are held against the same truth by the same measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.evaluate import calibration, classification, resample, retrieval, tags, texts
from bizllm.evaluate import metrics as errors
from bizllm.evaluate.objective_metrics import METRICS
from bizllm.models.saved import ModelInfo
from bizllm.train import judge
from bizllm.train.judge import CLASSES, Answers, Floats
from bizllm.train.objectives.base import Array
from bizllm.train.objectives.regression import values

_OF_CLASSES = ("macro_f1", "accuracy", "weighted_f1", "mcc", "log_loss", "roc_auc", "ece")
_OF_NUMBERS = ("mae", "rmse", "smape", "loss")
_WRITTEN = ("rougeL", "rouge1", "rouge2", "exact_match")
# The metrics that two models can be compared by.
DRAWN: dict[str, tuple[str, ...]] = {
    "classification": _OF_CLASSES,
    "pair": _OF_CLASSES,
    "multi_label": ("micro_f1", "macro_f1", "subset_accuracy", "hamming_loss"),
    "regression": _OF_NUMBERS,
    "quantile": ("pinball", *_OF_NUMBERS),
    "token_classification": ("f1",),
    "embedding": ("recall_at_1", "recall_at_10", "mrr"),
    "causal_lm": ("perplexity", "loss", "token_accuracy", *_WRITTEN),
    "seq2seq": (*_WRITTEN, "loss"),
    "masked_lm": ("loss", "perplexity"),
}
_OF_TOKENS = ("causal_lm", "seq2seq", "masked_lm")
_SLOW = ("roc_auc", "log_loss", "ece")  # of all classes: told without an interval


@dataclass(frozen=True)
class Resampled:
    """What the bootstrap takes of a metric: truth and answers by row, and the metric of some of them.

    Where the truth is part of a row's figures already (ranks, losses, counts of spans) both are the same array.
    """

    truth: Array
    given: Array
    metric: Callable[[Any, Any], float]
    higher_is_better: bool

    @property
    def score(self) -> float:
        """The metric of all rows."""
        return self.metric(self.truth, self.given)


def resampled(metric: str, answers: Answers, rows: pa.Table, labels: tuple[str, ...]) -> Resampled | None:
    """The metric as one of rows that can be drawn; None where it is not one of `DRAWN`, or was not measured.

    labels: classes in which truth is told; a model that knows others is wrong where it names them.
    """
    objective = answers.info.objective
    if metric not in DRAWN[objective]:
        return None
    if metric in _WRITTEN:
        return _mean(answers.written[metric], True) if metric in answers.written else None
    if objective in CLASSES:
        return _of_classes(metric, answers, rows, labels)
    if objective == "multi_label":
        return _of_labels(metric, answers, rows, labels)
    if objective in ("regression", "quantile"):
        return _of_numbers(metric, answers, rows)
    if objective == "token_classification":
        counts = tags.span_counts(rows["label"].to_pylist(), judge.said_tags(answers, rows))
        return Resampled(counts, counts, lambda _, g: tags.f1_of_counts(g), True)
    if objective == "embedding":
        ranks = retrieval.ranks(answers.outputs["anchors"], answers.outputs["positives"])
        best = {"recall_at_1": 1, "recall_at_10": 10}.get(metric)
        return _mean(1 / ranks if best is None else ranks <= best, True)
    return _of_tokens(metric, answers)


def _mean(figures: Array, higher: bool) -> Resampled:
    figures = np.asarray(figures, np.float64)
    return Resampled(figures, figures, lambda _, g: float(g.mean()), higher)


def _of_classes(metric: str, answers: Answers, rows: pa.Table, labels: tuple[str, ...]) -> Resampled:
    truth, info = judge.places(rows["label"], labels), answers.info
    given = _in_terms_of(labels, info, calibration.softmax(answers.outputs["logits"], info.temperature))
    higher, k = METRICS[info.objective][metric], len(labels) + 1
    if metric == "accuracy":
        return Resampled(truth, given.argmax(1), resample.accuracy, higher)
    if metric == "macro_f1":
        return Resampled(truth, given.argmax(1), lambda t, g: resample.macro_f1(t, g, k), higher)
    return Resampled(truth, given, classification.metric(metric), higher)


def _in_terms_of(labels: tuple[str, ...], info: ModelInfo, probabilities: Floats) -> Floats:
    """(rows, labels + 1): 0 for a class that the model doesn't know; last, all that it gives to classes that are not
    among them."""
    place = {label: i for i, label in enumerate(labels)}
    made = np.zeros((len(probabilities), len(labels) + 1))
    for column, label in enumerate(info.labels):
        made[:, place.get(label, len(labels))] += probabilities[:, column]
    return made


def _of_labels(metric: str, answers: Answers, rows: pa.Table, labels: tuple[str, ...]) -> Resampled:
    info = answers.info
    truth = np.zeros((len(rows), len(labels) + 1), bool)
    place = {label: i for i, label in enumerate(labels)}
    for row, some in enumerate(rows["label"].to_pylist()):
        truth[row, [place[label] for label in some or []]] = True
    probabilities = calibration.sigmoid(answers.outputs["logits"], info.temperature)
    said = probabilities >= (0.5 if info.threshold is None else info.threshold)
    given = _in_terms_of(labels, info, said.astype(np.float64)) > 0
    measures: dict[str, Callable[[Any, Any], float]] = {
        "micro_f1": lambda t, g: 2.0 * float((t & g).sum()) / max(1.0, float(t.sum() + g.sum())),
        "macro_f1": _macro_f1,
        "subset_accuracy": lambda t, g: float((t == g).all(axis=1).mean()),
        "hamming_loss": lambda t, g: float((t != g).sum() / (len(t) * len(labels))),
    }
    return Resampled(truth, given, measures[metric], METRICS[info.objective][metric])


def _macro_f1(truth: Array, given: Array) -> float:
    """Of (rows, labels) bools, over the labels that occur in either."""
    hits, seen = (truth & given).sum(axis=0), truth.sum(axis=0) + given.sum(axis=0)
    occurs = seen > 0
    return float((2.0 * hits[occurs] / seen[occurs]).mean()) if occurs.any() else 0.0


def _of_numbers(metric: str, answers: Answers, rows: pa.Table) -> Resampled:
    if metric == "loss":
        return _mean(answers.outputs["loss"], False)
    truth = values(rows)
    given, quantiles = judge.numbers(answers, rows)
    if metric == "pinball":
        levels = answers.info.levels
        return _mean(
            np.mean([errors.pinball(truth, quantiles[..., i], q) for i, q in enumerate(levels)], axis=0), False
        )
    measures: dict[str, Callable[[Any, Any], float]] = {
        "mae": lambda t, g: float(np.abs(t - g).mean()),
        "rmse": lambda t, g: float(np.sqrt(((t - g) ** 2).mean())),
        "smape": lambda t, g: float(errors.smape(t, g).mean()),
    }
    return Resampled(truth, given, measures[metric], False)


def _of_tokens(metric: str, answers: Answers) -> Resampled:
    """Sums over the tokens of the drawn rows, divided once."""
    which = "right" if metric == "token_accuracy" else "loss"
    sums = np.stack([answers.outputs[which], answers.outputs["units"]], 1).astype(np.float64)

    def mean(_: Array, given: Array) -> float:
        total, tokens = given.sum(axis=0)
        return texts.perplexity(total, max(1, int(tokens))) if metric == "perplexity" else total / max(tokens, 1.0)

    return Resampled(sums, sums, mean, metric == "token_accuracy")


def intervals(
    answers: Answers, rows: pa.Table, labels: tuple[str, ...], confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of those metrics that rows can be drawn for."""
    made = {}
    for name in answers.metrics:
        drawn = None if name in _SLOW else resampled(name, answers, rows, labels)
        if drawn is not None:
            low, high = resample.interval(drawn.metric, (drawn.truth, drawn.given), confidence=confidence)
            if np.isfinite(low) and np.isfinite(high):
                made[name] = (low, high)
    return made


def incomparable(metric: str, ours: Answers, theirs: Answers) -> str:
    """Why two models of one objective can't be compared by the metric; empty where they can."""
    one, other = ours.info, theirs.info
    if one.horizon != other.horizon:
        return f"it gives {other.horizon} numbers a row, the new one {one.horizon}"
    if metric == "pinball" and one.levels != other.levels:
        return "it answers with other quantile levels"
    of_tokens = metric in ("loss", "perplexity", "token_accuracy") and one.objective in _OF_TOKENS
    if of_tokens and not np.array_equal(ours.outputs["units"], theirs.outputs["units"]):
        return f"it reads the rows as other tokens, so that its {metric} means something else"
    return ""


def compare(
    metric: str, challenger: Answers, champion: Answers, rows: pa.Table, labels: tuple[str, ...], confidence: float
) -> resample.Comparison:
    """Both models on the same rows (paired bootstrap). The metric is one of `DRAWN`, and they are comparable."""
    new, old = resampled(metric, challenger, rows, labels), resampled(metric, champion, rows, labels)
    assert new is not None and old is not None, "a metric that promotes can be resampled"
    truth = np.zeros(len(new.given)) if new.truth is new.given else new.truth
    return resample.paired(
        new.metric, truth, new.given, old.given, higher_is_better=new.higher_is_better, confidence=confidence
    )
