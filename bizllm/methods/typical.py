"""The text that stands for those near it: a medoid, so that one odd neighbour decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.retrieval import Floats, Lexical

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

SHARPNESS = 2.0  # of weights: a neighbour half as near as the nearest counts a quarter


@dataclass(frozen=True)
class Likeness:
    """How alike texts are: the cosine of their BM25 weights; its mean with that of their vectors where both have one.

    terms: (texts, terms) sparse, of length 1. vectors: (texts, dim) of length 1, or 0 for those without.
    """

    terms: Any
    vectors: Floats | None = None

    @classmethod
    def build(cls, texts: Sequence[str], vectors: Floats | None = None) -> Likeness:
        """Of texts, one at least."""
        from scipy.sparse import csr_array

        weights = Lexical.build(texts).postings.tocsr()
        lengths = np.sqrt((weights * weights).sum(axis=1))
        scaled = weights.multiply(1 / np.maximum(np.asarray(lengths).ravel(), 1e-6)[:, None])
        return cls(csr_array(scaled, dtype=np.float32), vectors)

    def between(self, some: Places, others: Places) -> Array:
        """(some, others)."""
        alike = np.asarray((self.terms[some] @ self.terms[others].T).toarray(), np.float64)
        if self.vectors is None:
            return alike
        one, other = self.vectors[some], self.vectors[others]
        known = np.logical_and.outer(one.any(axis=1), other.any(axis=1))
        return np.where(known, (alike + np.maximum(one @ other.T, 0)) / 2, alike)

    def agreement(self, some: Places, weights: Array) -> Array:
        """(some,) how alike each of them is to all, itself among them, as they count."""
        return np.asarray(np.minimum(self.between(some, some) @ weights, 1.0).round(6))


def weights_of(scores: Floats) -> Array:
    """(neighbours,) that sum to 1. scores: of a search, the best first, above 0."""
    nearness = (scores.astype(np.float64) / scores[0]) ** SHARPNESS
    return np.asarray(nearness / nearness.sum())
