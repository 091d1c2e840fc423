"""How sure it is that the first hit of a search is the right one: a logistic function of a few signs (Platt 1999)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.evaluate.calibration import sigmoid
from bizllm.methods.retrieval import NONE, Hits

Floats = npt.NDArray[np.float64]

LEAST = 30  # searches whose right document is known, from which more is learned than is known anyway
_STRENGTH = 1.0  # inverse penalty of the weights
# Offset, then the weight of each sign, where nothing better was learned: fitted on development questions about privacy
# policies, medicine, and Chinese articles, of whose passages a third was taken away (docs/tasks/answer.md).
OF_TERMS = (-4.0, 3.9, 0.0, 6.5)
OF_BOTH = (-6.0, 0.5, 6.2, 4.6)


def signs(hits: Hits) -> Floats:
    """(queries, 3): what the first hit shares of the query's terms, its cosine, and how far ahead of the second it is,
    as a share of its own score."""
    first, second = hits.scores[:, :1], hits.scores[:, 1:2] if hits.scores.shape[1] > 1 else 0 * hits.scores[:, :1]
    ahead = (first - second) / np.maximum(first, 1e-6)
    told: Floats = np.concatenate([hits.lexical[:, :1], hits.meaning[:, :1], ahead], axis=1).astype(np.float64)
    return told


def fit(found: Floats, right: npt.NDArray[np.bool_]) -> list[float] | None:
    """The weights that suit searches whose right document is known; None where there are fewer than LEAST, or all are
    right or all wrong.

    found: (queries, 3) signs. right: (queries,) whether the first hit was.
    """
    from sklearn.linear_model import LogisticRegression

    if len(right) < LEAST or right.all() or not right.any():
        return None
    model = LogisticRegression(C=_STRENGTH).fit(found, right)
    return [float(model.intercept_[0]), *map(float, model.coef_[0])]


def of(hits: Hits, weights: Any = None) -> Floats:
    """(queries,) probabilities; 0 where nothing was hit. weights: what `fit` learned."""
    found = signs(hits)
    rows = np.where(hits.meaning[:, :1] > 0, OF_BOTH, OF_TERMS) if weights is None else weights
    return np.where(hits.ids[:, 0] == NONE, 0.0, logistic(found, rows))


def logistic(found: Floats, weights: Any) -> Floats:
    """(rows,) probabilities of (rows, signs). weights: offset and a weight for each sign, of all rows or of each."""
    rows = np.broadcast_to(np.asarray(weights), (len(found), found.shape[1] + 1))
    return sigmoid(rows[:, 0] + (rows[:, 1:] * found).sum(axis=1))
