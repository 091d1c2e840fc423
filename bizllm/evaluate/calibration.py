"""Whether probabilities mean what they say: calibration error, temperature scaling, thresholds fitted on validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

TEMPERATURES = (0.05, 20.0)  # separable rows want 0, useless logits want infinity
_HALVINGS = 30  # of ln(20 / 0.05): to eight digits


def softmax(logits: Floats, temperature: float = 1.0) -> Array:
    """(n, k) probabilities of logits / temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponents = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def sigmoid(logits: Floats, temperature: float = 1.0) -> Array:
    """The probability of each label by itself, for multi_label."""
    # tanh does not overflow, whatever the logit.
    return np.asarray(0.5 * (1.0 + np.tanh(np.asarray(logits, np.float64) / (2.0 * temperature))))


def reliability(
    probabilities: Floats, truth: Ints, bins: int = 15, weights: Floats | None = None
) -> list[dict[str, float]]:
    """The reliability diagram: for each bin of the highest probability that holds rows, in ascending order, its edges
    (low, high], the rows' weight (their number without weights), mean confidence and accuracy."""
    confidence = np.asarray(probabilities, np.float64).max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    weight = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence)
    rows = np.bincount(bin_of, weight, bins)
    sure = np.bincount(bin_of, weight * confidence, bins)
    hits = np.bincount(bin_of, weight * right, bins)
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "rows": float(rows[b]),
            "confidence": float(sure[b] / rows[b]),
            "accuracy": float(hits[b] / rows[b]),
        }
        for b in np.flatnonzero(rows)
    ]


def ece(probabilities: Floats, truth: Ints, bins: int = 15, weights: Floats | None = None) -> float:
    """Expected calibration error of the highest probability over bins of equal width, 0 … 1 (Guo et al. 2017)."""
    table = reliability(probabilities, truth, bins, weights)
    gaps = sum(row["rows"] * abs(row["accuracy"] - row["confidence"]) for row in table)
    return gaps / sum(row["rows"] for row in table)


def fit_temperature(logits: Floats, truth: Ints | Bools) -> float:
    """The temperature in [0.05, 20] with the least negative log-likelihood of validation rows (Guo et al. 2017).

    logits (n, k); truth (n,) classes, or (n, k) bools for multi_label, where a label is a choice of two. As in Platt
    (1999) one row more is thought of, which may be of any class: a few rows without a mistake are no proof that there
    are none, and would else ask for a temperature of 0. The likelihood is convex in 1 / temperature, so that halving on
    the sign of its slope finds the only minimum.
    """
    z = np.asarray(logits, np.float64)
    if truth.ndim == 2:
        z = np.stack([np.zeros_like(z), z], axis=-1).reshape(-1, 2)
    of_truth = np.take_along_axis(z, truth.reshape(-1, 1).astype(np.int64), axis=1).mean()
    of_truth += (z.mean() - of_truth) / (len(z) + 1)
    low, high = np.log(TEMPERATURES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # Slope in 1 / temperature: what the probabilities expect of the logits, less the logits of the truth.
        too_sure = (softmax(z, np.exp(middle)) * z).sum(axis=1).mean() > of_truth
        low, high = (middle, high) if too_sure else (low, middle)
    return float(np.exp((low + high) / 2))


def out_of_scope_threshold(probabilities: Floats, truth: Ints, share: float = 0.05) -> float:
    """The highest probability below which a row is called out of scope, fitted on validation.

    The rule: the largest threshold that calls at most `share` of the correctly labelled rows out of scope, which is a
    quantile of their highest probabilities. It needs no out-of-scope examples; what it catches of them is not promised.
    0, which calls nothing out of scope, where no row is labelled correctly.
    """
    assert 0.0 <= share < 1.0
    right = probabilities.argmax(axis=1) == truth
    confidence = np.sort(probabilities.max(axis=1)[right])
    lost = int(share * len(confidence) + 1e-9)  # 0.05 · 20 is one row, whatever its last bit
    return float(confidence[lost]) if len(confidence) else 0.0


def best_threshold_multi_label(probabilities: Floats, truth: Bools) -> float:
    """The probability from which a label is given that has the highest micro F1 on validation; 0.5 without labels.

    It lies midway between the last label given and the first not given, so that rounding does not move either.
    """
    positives = int(truth.sum())
    if not positives:
        return 0.5
    order = np.argsort(-probabilities, axis=None, kind="stable")
    falling = np.asarray(probabilities, np.float64).ravel()[order]
    hits = np.cumsum(truth.ravel()[order])
    f1 = 2.0 * hits / (np.arange(1, len(hits) + 1) + positives)
    after = np.append(falling[1:], 0.0)
    last_of_ties = np.append(falling[1:] < falling[:-1], True)  # equal probabilities are given or not together
    best = int(np.argmax(np.where(last_of_ties, f1, -1.0)))
    middle = (falling[best] + after[best]) / 2
    return float(middle if middle > after[best] else falling[best])
