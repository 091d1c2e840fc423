"""The text that stands for those near it: a medoid, so that one odd neighbour decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.retrieval import Lexical

Floats = npt.NDArray[np.float64]

SHARPNESS = 2.0  # of weights: a neighbour half as near as the nearest counts a quarter


def term_vectors(texts: Sequence[str]) -> Any:
    """(texts, terms) sparse, of length 1: BM25's weights, whose product says how alike two texts are."""
    from scipy.sparse import csr_array

    weights = Lexical.build(texts).postings.tocsr()
    lengths = np.sqrt((weights * weights).sum(axis=1))
    scaled = weights.multiply(1 / np.maximum(np.asarray(lengths).ravel(), 1e-6)[:, None])
    return csr_array(scaled, dtype=np.float32)


def weights_of(scores: npt.NDArray[np.float32]) -> Floats:
    """(neighbours,) that sum to 1. scores: of a search, the best first, above 0."""
    nearness = (scores.astype(np.float64) / scores[0]) ** SHARPNESS
    return np.asarray(nearness / nearness.sum())


def agreement(vectors: Any, weights: Floats) -> Floats:
    """(neighbours,) how alike each is to all, itself among them, as they count. vectors: (neighbours, terms)."""
    return np.asarray((vectors @ vectors.T).toarray() @ weights).round(6)
