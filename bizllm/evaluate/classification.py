"""Scores of classes: of one class a row (classification, pairs), and of any number of labels a row (multi_label)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.errors import RunError
from bizllm.evaluate import calibration
from bizllm.evaluate.calibration import Array, Bools, Floats, Ints


def scores(probabilities: Floats, truth: Ints, weights: Floats | None = None) -> dict[str, float]:
    """Every metric of (n, k) probabilities against (n,) classes; `weights` (n,) count a row more or less.

    The F1 means go over the classes that occur in truth or predictions, ROC AUC over the classes that some rows have
    and others don't (one against the rest); a metric that the rows do not define is left out.
    Raises RunError where a probability is no number.
    """
    _check(probabilities)
    each = {name: of(probabilities, truth, weights) for name, of in _METRICS.items()}
    return {name: value for name, value in each.items() if not np.isnan(value)}


def metric(name: str) -> Callable[[Ints, Floats], float]:
    """metric(truth, probabilities) by itself, as resampling wants it; NaN where the rows do not define it."""
    of = _METRICS[name]
    return lambda truth, probabilities: of(probabilities, truth, None)


def per_class(probabilities: Floats, truth: Ints, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Label, support, precision, recall and F1 of each class, in the order of the labels; 0 where nothing is there."""
    matrix = confusion(probabilities, truth, len(labels))
    support, precision, recall, f1 = _by_class(matrix.astype(np.float64))
    return [
        {
            "label": label,
            "support": int(support[c]),
            "precision": float(precision[c]),
            "recall": float(recall[c]),
            "f1": float(f1[c]),
        }
        for c, label in enumerate(labels)
    ]


def confusion(probabilities: Floats, truth: Ints, k: int) -> npt.NDArray[np.int64]:
    """(k, k) rows counted by their true class (down) and predicted class (across)."""
    return _matrix(probabilities, truth, k).astype(np.int64)


def worst_confusions(confusion: npt.NDArray[np.int64], labels: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """The largest mistakes: true label, predicted label, rows, and their share of the true label's rows."""
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    support = confusion.sum(axis=1)
    return [
        {
            "truth": labels[t],
            "predicted": labels[p],
            "rows": int(mistakes[t, p]),
            "share": float(mistakes[t, p] / support[t]),
        }
        for t, p in zip(*(axis.tolist() for axis in np.unravel_index(order, mistakes.shape)), strict=True)
        if mistakes[t, p]
    ]


def multi_label_scores(probabilities: Floats, truth: Bools, threshold: float = 0.5) -> dict[str, float]:
    """Metrics of (n, k) probabilities against (n, k) labels, a label being given from the threshold on.

    Macro F1 is the mean over the labels that occur in truth or predictions, ROC AUC over those that some rows have and
    others don't, left out where there is none. Without any label, true or given, F1 is 0.
    Raises RunError where a probability is no number.
    """
    _check(probabilities)
    given = probabilities >= threshold
    hits, seen = (given & truth).sum(axis=0), given.sum(axis=0) + truth.sum(axis=0)
    occurs = seen > 0
    result = {
        "micro_f1": float(2.0 * hits.sum() / max(seen.sum(), 1)),
        "macro_f1": float((2.0 * hits[occurs] / seen[occurs]).mean()) if occurs.any() else 0.0,
        "subset_accuracy": float((given == truth).all(axis=1).mean()),
        "hamming_loss": float((given != truth).mean()),
    }
    area = _mean_auc(probabilities, truth, None)
    return result if np.isnan(area) else {**result, "roc_auc": area}


def _check(probabilities: Floats) -> None:
    wrong = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if wrong:
        raise RunError(f"the model gives no number for {wrong} of {len(probabilities)} rows (NaN or infinity)")


def _matrix(probabilities: Floats, truth: Ints, k: int, weights: Floats | None = None) -> Array:
    assert probabilities.shape == (len(truth), k), "a probability for each row and class"
    cells = truth.astype(np.int64) * k + probabilities.argmax(axis=1)
    return np.bincount(cells, weights, k * k).reshape(k, k).astype(np.float64)


def _by_class(matrix: Array) -> tuple[Array, Array, Array, Array]:
    """(k,) each: support, precision, recall, F1."""
    hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return support, _ratio(hits, predicted), _ratio(hits, support), _ratio(2.0 * hits, support + predicted)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _accuracy(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    return float(np.average(probabilities.argmax(axis=1) == truth, weights=weights))


def _macro_f1(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    matrix = _matrix(probabilities, truth, probabilities.shape[1], weights)
    occurs = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    return float(_by_class(matrix)[3][occurs].mean())


def _weighted_f1(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    support, _, _, f1 = _by_class(_matrix(probabilities, truth, probabilities.shape[1], weights))
    return float(np.average(f1, weights=support))


def _mcc(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    """Matthews correlation coefficient of k classes (Gorodkin 2004); 0 where truth or predictions are one class."""
    matrix = _matrix(probabilities, truth, probabilities.shape[1], weights)
    rows, true, predicted = matrix.sum(), matrix.sum(axis=1), matrix.sum(axis=0)
    spread = np.sqrt((rows**2 - true @ true) * (rows**2 - predicted @ predicted))
    return float((matrix.trace() * rows - true @ predicted) / spread) if spread > 0 else 0.0


def _roc_auc(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    return _mean_auc(probabilities, truth[:, None] == np.arange(probabilities.shape[1]), weights)


def _mean_auc(probabilities: Floats, truth: Bools, weights: Floats | None) -> float:
    both = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    weight = np.ones(len(truth)) if weights is None else weights
    areas = [_auc(probabilities[:, c], truth[:, c], weight) for c in both]
    return float(np.mean(areas)) if areas else float("nan")


def _auc(score: Floats, positive: Bools, weight: Floats) -> float:
    """How often a positive row scores above a negative one, ties for half (Hanley & McNeil 1982).

    scikit-learn's checks its input for each class: 100 ms for 3,000 rows of 77, too slow to resample; this takes 6.
    """
    _, place = np.unique(score, return_inverse=True)
    ups, downs = np.bincount(place, weight * positive), np.bincount(place, weight * ~positive)
    return float(ups @ (np.cumsum(downs) - downs / 2) / (ups.sum() * downs.sum()))


def _log_loss(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    of_truth = np.take_along_axis(np.asarray(probabilities, np.float64), truth[:, None].astype(np.int64), axis=1)[:, 0]
    return float(np.average(-np.log(np.maximum(of_truth, np.finfo(np.float64).eps)), weights=weights))


def _ece(probabilities: Floats, truth: Ints, weights: Floats | None) -> float:
    return calibration.ece(probabilities, truth, weights=weights)


_METRICS: dict[str, Callable[[Floats, Ints, Floats | None], float]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "mcc": _mcc,
    "roc_auc": _roc_auc,
    "log_loss": _log_loss,
    "ece": _ece,
}
