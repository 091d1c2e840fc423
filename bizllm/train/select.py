"""Rows most worth labelling next: those of which the model is unsure, and unlike each other.

BADGE (Ash et al. 2020): a row stands for the gradient that its own guess would send into the head, the outer product of
(probabilities − guess) and its vector: long where the model is unsure, of a direction of its own where both differ.
Rows are drawn as k-means++ draws its seeds (Arthur & Vassilvitskii 2007), so that likes are drawn once. Distances
factorise, so that no gradient is ever built.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

NEAR = 0.98  # cosine from which two rows are the same question
_CHUNK = 65_536


def propose(probabilities: Array, vectors: npt.NDArray[np.float32], count: int, seed: int) -> tuple[Indices, Array]:
    """(picked,) positions of at most `count` rows, in the order drawn, and how unsure the model is of each, 0 … 1.

    probabilities: (rows, classes) of unlabelled rows, of multi_label each by itself. vectors: (rows, dim) of an
    encoder. Fewer rows come back where the others are nearly equal to picked ones. O(rows × count × (classes + dim)).
    """
    assert len(probabilities) == len(vectors), "a vector for each row"
    unit = np.asarray(vectors, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    slope = _slope(probabilities)
    length = (slope**2).sum(axis=1, dtype=np.float64)  # of unit vectors' gradients, squared
    distance = length.copy()  # squared, to the nearest picked one; before there is one, to no gradient at all
    free = np.ones(len(unit), dtype=bool)
    rng = np.random.default_rng(seed)
    picked: list[int] = []
    while len(picked) < count and free.any():
        row = _draw(distance, free, rng)
        picked.append(row)
        for start in range(0, len(unit), _CHUNK):
            part = slice(start, start + _CHUNK)
            cosine = unit[part] @ unit[row]
            apart = length[part] + length[row] - 2.0 * (slope[part] @ slope[row]).astype(np.float64) * cosine
            distance[part] = np.minimum(distance[part], np.maximum(apart, 0.0))
            free[part] &= cosine < NEAR
        free[row] = False
    positions = np.array(picked, dtype=np.int64)
    return positions, uncertainty(probabilities[positions])


def uncertainty(probabilities: Array) -> Array:
    """(rows,) entropy as a share of the largest there can be: 0 sure, 1 no idea. Of multi_label the labels' mean."""
    if not probabilities.size:
        return np.zeros(len(probabilities))
    p = np.clip(probabilities, 1e-12, 1.0)
    if _independent(probabilities):
        q = np.clip(1.0 - probabilities, 1e-12, 1.0)
        return np.asarray(np.clip(-(p * np.log(p) + q * np.log(q)).mean(axis=1) / np.log(2.0), 0.0, 1.0))
    return np.asarray(np.clip(-(p * np.log(p)).sum(axis=1) / np.log(max(2, p.shape[1])), 0.0, 1.0))


def _slope(probabilities: Array) -> npt.NDArray[np.float32]:
    """(rows, classes) gradient of the loss by the logits, were the model's own guess the label."""
    if _independent(probabilities):
        return (probabilities - (probabilities >= 0.5)).astype(np.float32)
    slope = probabilities.astype(np.float32)
    slope[np.arange(len(slope)), probabilities.argmax(axis=1)] -= 1.0
    return slope


def _independent(probabilities: Array) -> bool:
    """Whether labels are given each by itself: their probabilities then do not add up to one."""
    return not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3)


def _draw(distance: Array, free: npt.NDArray[np.bool_], rng: np.random.Generator) -> int:
    weight = np.where(free, distance, 0.0)
    total = np.cumsum(weight)
    if total[-1] <= 0.0:  # the model is sure of all that is left
        return int(rng.choice(np.flatnonzero(free)))
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))
