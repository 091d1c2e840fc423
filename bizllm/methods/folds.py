"""Folds of rows for figures out of sample, in which equal texts stay together and every class is spread."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.documents import folded

Indices = npt.NDArray[np.int64]


def assign(groups: Sequence[Hashable], strata: npt.NDArray[np.integer], folds: int, seed: int) -> Indices:
    """(rows,) the fold of each row, 0 … folds − 1.

    Rows of a group share its fold: of two equal texts, one would give away the other's label. strata: (rows,) codes
    that each fold holds in proportion, as near as whole groups allow; a group counts for the stratum of its first row.
    """
    _, first, group = np.unique(_codes(groups), return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(strata[first][order], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    # One round over the folds that goes on from stratum to stratum, so that their sizes differ by one group at most.
    fold[order] = np.arange(len(first)) % folds
    return fold[group]


def of_texts(
    texts: Sequence[str], pairs: Sequence[str], truth: npt.NDArray[Any], count: int, seed: int
) -> npt.NDArray[np.int64]:
    """(rows,) the fold of each row; equal texts, or pairs of them, share one."""
    groups = [folded(text) for text in texts]
    if pairs:
        groups = [f"{text}\0{folded(pair)}" for text, pair in zip(groups, pairs, strict=True)]
    strata = truth if truth.ndim == 1 else np.where(truth.any(axis=1), truth.argmax(axis=1), -1)
    return assign(groups, strata, count, seed)


def _codes(groups: Sequence[Hashable]) -> Indices:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(group, len(number)) for group in groups], dtype=np.int64)
