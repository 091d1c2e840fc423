"""Scores of embeddings: how far up among all positives each anchor finds its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bizllm.evaluate.calibration import Floats

_CHUNK_CELLS = 2**24  # 64 MiB of float32 similarities at a time
_TIE = 1e-6  # of a cosine: what float32 cannot tell apart


def scores(anchors: Floats, positives: Floats) -> dict[str, float]:
    """recall_at_1, recall_at_10 and mrr (mean reciprocal rank) of (n, d) anchors among the n positives, by cosine."""
    rank = ranks(anchors, positives)
    return {
        "recall_at_1": float((rank <= 1).mean()),
        "recall_at_10": float((rank <= 10).mean()),
        "mrr": float((1.0 / rank).mean()),
    }


def ranks(anchors: Floats, positives: Floats) -> npt.NDArray[np.int64]:
    """(n,) the place of each row's own positive among all, from 1. Ties count against it, and so does what is no
    number: a collapsed model ranks last, not first."""
    assert anchors.shape == positives.shape, "a positive for each anchor"
    left, right = _unit(anchors), _unit(positives)
    rank = np.empty(len(left), np.int64)
    step = max(1, _CHUNK_CELLS // max(len(left), 1))
    for start in range(0, len(left), step):
        cosine = left[start : start + step] @ right.T  # (chunk, n)
        rows = np.arange(len(cosine))
        own = cosine[rows, start + rows]
        rank[start : start + step] = (~(cosine < own[:, None] - _TIE)).sum(axis=1)
    return rank


def _unit(vectors: Floats) -> npt.NDArray[np.float32]:
    single = np.asarray(vectors, np.float32)
    length = np.sqrt((single**2).sum(axis=1, keepdims=True))
    return np.asarray(single / np.maximum(length, np.finfo(np.float32).tiny))
