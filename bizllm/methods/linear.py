"""Linear models of classes or labels on sparse or dense rows, and what they say of rows that they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bizllm.evaluate import calibration

Array = npt.NDArray[np.float64]
Matrix = Any  # numpy array or scipy.sparse.csr_array, (rows, features)

COSTS = (0.3, 1.0, 3.0)  # of `svm`
PENALTIES = (10.0, 30.0)  # of `logistic`, on rows of length 1
_NEVER = -2.0  # decision value of a class that no row has; those of others lie around -1 … 1
_NEVER_LOG = -20.0  # and its logit


class Fit(Protocol):
    """`svm` or `logistic`: (features, classes) weights and (classes,) offsets.

    truth: (rows,) classes, or (rows, labels) bools. cost: of a row that is on the wrong side.
    """

    def __call__(
        self, matrix: Matrix, truth: npt.NDArray[Any], classes: int, cost: float, seed: int
    ) -> tuple[Array, Array]: ...


def out_of_fold(
    matrix: Matrix,
    truth: npt.NDArray[Any],
    classes: int,
    held_out: npt.NDArray[np.int64],
    seed: int,
    fit: Fit | None = None,
    costs: Sequence[float] = COSTS,
) -> tuple[float, Array]:
    """The cost with the least log loss on the first fold, and (rows, classes) decision values with it, of each row by a
    model (`svm` where none is given) that has not seen its fold."""
    fit = fit or svm
    decisions = np.zeros((len(truth), classes))
    best: tuple[float, float, Array] | None = None
    first = held_out == 0
    for cost in costs:
        tried = decide(fit, matrix[~first], truth[~first], matrix[first], classes, cost, seed)
        loss = log_loss(tried, truth[first])
        if best is None or loss < best[0]:
            best = (loss, cost, tried)
    assert best is not None, "there are costs to try"
    decisions[first] = best[2]
    for fold in range(1, int(held_out.max(initial=0)) + 1):
        asked = held_out == fold
        decisions[asked] = decide(fit, matrix[~asked], truth[~asked], matrix[asked], classes, best[1], seed)
    return best[1], decisions


def log_loss(decisions: Array, truth: npt.NDArray[Any]) -> float:
    """Of decision values, at the temperature that suits them best: costs differ in scale, too."""
    if truth.ndim == 2:
        decisions, truth = np.stack([-decisions, decisions], axis=-1).reshape(-1, 2) / 2, truth.ravel().astype(np.int64)
    p = calibration.softmax(decisions, calibration.fit_temperature(decisions, truth))
    return float(-np.log(np.clip(p[np.arange(len(truth)), truth], 1e-12, None)).mean())


def decide(
    fit: Fit, known: Matrix, truth: npt.NDArray[Any], asked: Matrix, classes: int, cost: float, seed: int
) -> Array:
    """(asked, classes) decision values by a model of the known rows."""
    weights, offsets = fit(known, truth, classes, cost, seed)
    return np.asarray(asked @ weights + offsets, np.float64)


def svm(matrix: Matrix, truth: npt.NDArray[Any], classes: int, cost: float, seed: int) -> tuple[Array, Array]:
    """(features, classes) weights and (classes,) offsets, each class against the rest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    weights, offsets = np.zeros((matrix.shape[1], classes)), np.full(classes, _NEVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # almost converged is as good
        warnings.filterwarnings("ignore", "The number of unique classes")  # a few texts of each are what there is
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


def logistic(matrix: Matrix, truth: npt.NDArray[Any], classes: int, cost: float, seed: int) -> tuple[Array, Array]:
    """(features, classes) weights and (classes,) offsets of logits: of all classes at once, or of each label alone."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    def fitted(target: npt.NDArray[Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes")
            return LogisticRegression(C=cost, max_iter=300, random_state=seed).fit(matrix, target)

    weights, offsets = np.zeros((matrix.shape[1], classes)), np.full(classes, _NEVER_LOG)
    if truth.ndim == 2:
        for label in range(classes):
            if truth[:, label].all():
                offsets[label] = -_NEVER_LOG
            elif truth[:, label].any():
                model = fitted(truth[:, label])
                weights[:, label], offsets[label] = model.coef_[0], model.intercept_[0]
        return weights, offsets
    seen = np.unique(truth)
    offsets[seen] = 0.0
    if len(seen) > 1:
        model = fitted(truth)
        # Of two classes there is one number, the second's log odds.
        which = seen if len(seen) > 2 else seen[1:]
        weights[:, which], offsets[which] = model.coef_.T, model.intercept_
    return weights, offsets
