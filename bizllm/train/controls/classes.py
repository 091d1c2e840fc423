"""Classes by a linear SVM on TF-IDF, with probabilities calibrated out of fold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import calibration
from bizllm.models.saved import ModelInfo
from bizllm.train import folds
from bizllm.train.control import Control, Outputs
from bizllm.train.controls.features import Sparse, TextFeatures, pair_matrix
from bizllm.train.shingles import folded

Array = npt.NDArray[np.float64]

COSTS = (0.3, 1.0, 3.0)
FOLDS = 3
_NEVER = -2.0  # decision value of a class that a fold's rows do not have; those of others lie around -1 … 1


@dataclass
class ClassControl(Control):
    """A fitted one. features: learnt from train. weights: (features, classes). temperature: of decision values."""

    info: ModelInfo
    features: TextFeatures
    weights: Array
    offsets: Array
    temperature: float
    threshold: float | None
    name: str = "TF-IDF + linear SVM"

    def logits(self, rows: pa.Table) -> Array:
        """(rows, classes) calibrated: softmax (multi_label: sigmoid) gives probabilities."""
        return np.asarray(_matrix(self.features, rows) @ self.weights + self.offsets, np.float64) / self.temperature

    def probabilities(self, rows: pa.Table) -> Array:
        """(rows, classes)"""
        logits = self.logits(rows)
        return calibration.sigmoid(logits) if self.info.objective == "multi_label" else calibration.softmax(logits)

    def predict(self, rows: pa.Table) -> Outputs:
        logits = self.logits(rows)
        truth = truth_of(rows, self.info)
        if truth.ndim == 2:
            p = np.clip(calibration.sigmoid(logits), 1e-12, 1 - 1e-12)
            loss = -np.where(truth, np.log(p), np.log1p(-p)).mean(axis=1)
        else:
            loss = -np.log(np.clip(calibration.softmax(logits)[np.arange(len(truth)), truth], 1e-12, None))
        return {"logits": logits, "loss": loss, "units": np.ones(len(logits))}


def fit_classes(rows: pa.Table, info: ModelInfo, seed: int) -> ClassControl:
    """Cost and temperature are chosen out of fold, on train alone."""
    texts = rows["text"].to_pylist()
    pairs = rows["pair"].to_pylist() if info.objective == "pair" else []
    features = TextFeatures([*texts, *pairs], len(info.labels) * (4 if pairs else 1))
    matrix = _matrix(features, rows)
    truth = truth_of(rows, info)
    held_out = fold_rows(texts, pairs, truth, FOLDS, seed)
    cost, decisions = _out_of_fold(matrix, truth, len(info.labels), held_out, seed)
    temperature = calibration.fit_temperature(decisions, truth)
    threshold = None
    if truth.ndim == 2:
        threshold = calibration.best_threshold_multi_label(calibration.sigmoid(decisions, temperature), truth)
    weights, offsets = _svm(matrix, truth, len(info.labels), cost, seed)
    return ClassControl(info, features, weights, offsets, temperature, threshold)


def out_of_fold(texts: Sequence[str], truth: npt.NDArray[Any], classes: int, count: int, seed: int) -> Array:
    """(rows, classes) probabilities of each row by a control that has not seen it; truth (rows,) or (rows, classes)."""
    held_out = fold_rows(texts, [], truth, count, seed)
    matrix = TextFeatures(texts, classes).matrix(texts)
    _, decisions = _out_of_fold(matrix, truth, classes, held_out, seed)
    temperature = calibration.fit_temperature(decisions, truth)
    squash = calibration.sigmoid if truth.ndim == 2 else calibration.softmax
    return squash(decisions, temperature)


def fold_rows(
    texts: Sequence[str], pairs: Sequence[str], truth: npt.NDArray[Any], count: int, seed: int
) -> npt.NDArray[np.int64]:
    """(rows,) the fold of each row; equal texts, or pairs of them, share one."""
    groups = [folded(text) for text in texts]
    if pairs:
        groups = [f"{text}\0{folded(pair)}" for text, pair in zip(groups, pairs, strict=True)]
    strata = truth if truth.ndim == 1 else np.where(truth.any(axis=1), truth.argmax(axis=1), -1)
    return folds.assign(groups, strata, count, seed)


def truth_of(rows: pa.Table, info: ModelInfo) -> npt.NDArray[Any]:
    """(rows,) classes, or for multi_label (rows, labels) bools."""
    place = {label: i for i, label in enumerate(info.labels)}
    if info.objective != "multi_label":
        return np.array([place[label] for label in rows["label"].cast(pa.string()).to_pylist()], np.int64)
    truth = np.zeros((len(rows), len(place)), bool)
    for row, labels in enumerate(rows["label"].to_pylist()):
        truth[row, [place[label] for label in labels or []]] = True
    return truth


def _matrix(features: TextFeatures, rows: pa.Table) -> Sparse:
    texts = rows["text"].to_pylist()
    return (
        pair_matrix(features, texts, rows["pair"].to_pylist())
        if "pair" in rows.column_names
        else features.matrix(texts)
    )


def _out_of_fold(
    matrix: Sparse, truth: npt.NDArray[Any], classes: int, held_out: npt.NDArray[np.int64], seed: int
) -> tuple[float, Array]:
    """The cost with the least log loss on the first fold, and (rows, classes) decision values with it."""
    decisions = np.zeros((len(truth), classes))
    best: tuple[float, float, Array] | None = None
    first = held_out == 0
    for cost in COSTS:
        tried = _decide(matrix[~first], truth[~first], matrix[first], classes, cost, seed)
        loss = _log_loss(tried, truth[first])
        if best is None or loss < best[0]:
            best = (loss, cost, tried)
    assert best is not None, "there are costs to try"
    decisions[first] = best[2]
    for fold in range(1, int(held_out.max(initial=0)) + 1):
        asked = held_out == fold
        decisions[asked] = _decide(matrix[~asked], truth[~asked], matrix[asked], classes, best[1], seed)
    return best[1], decisions


def _log_loss(decisions: Array, truth: npt.NDArray[Any]) -> float:
    """At the temperature that suits the decisions best: costs differ in scale, too."""
    if truth.ndim == 2:
        decisions, truth = np.stack([-decisions, decisions], axis=-1).reshape(-1, 2) / 2, truth.ravel().astype(np.int64)
    p = calibration.softmax(decisions, calibration.fit_temperature(decisions, truth))
    return float(-np.log(np.clip(p[np.arange(len(truth)), truth], 1e-12, None)).mean())


def _decide(known: Sparse, truth: npt.NDArray[Any], asked: Sparse, classes: int, cost: float, seed: int) -> Array:
    weights, offsets = _svm(known, truth, classes, cost, seed)
    return np.asarray(asked @ weights + offsets, np.float64)


def _svm(matrix: Sparse, truth: npt.NDArray[Any], classes: int, cost: float, seed: int) -> tuple[Array, Array]:
    """(features, classes) weights and (classes,) offsets, each class against the rest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    weights, offsets = np.zeros((matrix.shape[1], classes)), np.full(classes, _NEVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # almost converged is as good
        if truth.ndim == 2:
            for label in range(classes):
                if truth[:, label].all():
                    offsets[label] = -_NEVER
                elif truth[:, label].any():
                    model = LinearSVC(C=cost, random_state=seed).fit(matrix, truth[:, label])
                    weights[:, label], offsets[label] = model.coef_[0], model.intercept_[0]
            return weights, offsets
        seen = np.unique(truth)
        if len(seen) == 1:
            offsets[seen] = -_NEVER
        if len(seen) < 2:
            return weights, offsets
        model = LinearSVC(C=cost, random_state=seed).fit(matrix, truth)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(seen) == 2:  # one hyperplane for both
        coefficients, intercepts = (
            np.concatenate([-coefficients, coefficients]),
            np.concatenate([-intercepts, intercepts]),
        )
    weights[:, seen], offsets[seen] = coefficients.T, intercepts
    return weights, offsets
