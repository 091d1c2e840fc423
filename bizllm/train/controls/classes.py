"""Classes by a linear SVM on TF-IDF, with probabilities calibrated out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import calibration
from bizllm.methods import folds, linear
from bizllm.methods.text_features import Sparse, TextFeatures
from bizllm.models.saved import ModelInfo
from bizllm.train.control import Control, Outputs

Array = npt.NDArray[np.float64]

FOLDS = 3


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
    held_out = folds.of_texts(texts, pairs, truth, FOLDS, seed)
    cost, decisions = linear.out_of_fold(matrix, truth, len(info.labels), held_out, seed)
    temperature = calibration.fit_temperature(decisions, truth)
    threshold = None
    if truth.ndim == 2:
        threshold = calibration.best_threshold_multi_label(calibration.sigmoid(decisions, temperature), truth)
    weights, offsets = linear.svm(matrix, truth, len(info.labels), cost, seed)
    return ClassControl(info, features, weights, offsets, temperature, threshold)


def out_of_fold(texts: Sequence[str], truth: npt.NDArray[Any], classes: int, count: int, seed: int) -> Array:
    """(rows, classes) probabilities of each row by a control that has not seen it; truth (rows,) or (rows, classes)."""
    held_out = folds.of_texts(texts, [], truth, count, seed)
    matrix = TextFeatures(texts, classes).matrix(texts)
    _, decisions = linear.out_of_fold(matrix, truth, classes, held_out, seed)
    temperature = calibration.fit_temperature(decisions, truth)
    squash = calibration.sigmoid if truth.ndim == 2 else calibration.softmax
    return squash(decisions, temperature)


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
        _pair_matrix(features, texts, rows["pair"].to_pylist())
        if "pair" in rows.column_names
        else features.matrix(texts)
    )


def _pair_matrix(features: TextFeatures, texts: Sequence[str], pairs: Sequence[str]) -> Sparse:
    """(pairs, 4 × features + 2): both texts, what they share, what only one has; cosine and ratio of lengths."""
    from scipy.sparse import csr_array, hstack

    one, other = features.matrix(texts), features.matrix(pairs)
    shared = one.multiply(other)
    cosine = np.asarray(shared.sum(axis=1))
    lengths = np.array([[len(a) + 1, len(b) + 1] for a, b in zip(texts, pairs, strict=True)], dtype=np.float32)
    ratio = lengths.min(axis=1) / lengths.max(axis=1)
    dense = csr_array(np.stack([cosine, ratio], axis=1).astype(np.float32))
    return csr_array(hstack([one, other, shared, abs(one - other), dense], format="csr"))
