"""Spans of token tags, and their F1: a span counts where its start, end and type are all right.

The rules are those of conlleval, the script of the CoNLL-2000 shared task (Tjong Kim Sang & Buchholz 2000), which cuts
broken sequences too; published F1 figures follow them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Span = tuple[int, int, str]
Tags = Sequence[Sequence[str]]  # of each row, of each token
Counts = npt.NDArray[np.int64]

# What a prefix says: begin, inside, end, single. BMES calls the inside M; BILOU the end L and the single U.
_MARKS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
_OUTSIDE = ("O", "")


def spans(tags: Sequence[str]) -> list[Span]:
    """(start, end, type) of each span in order, end exclusive, of tags in IOB, BIO, BIOES, BMES or BILOU.

    Every tag but O is in a span. A new one begins at B and S, after O, E and S, and where the type changes. A tag
    without a prefix (PER) is inside a span of its name; a prefix without a type (B) is of type `_`.
    """
    found: list[Span] = []
    start = 0
    for position, ((before, kind_before), (mark, kind)) in enumerate(pairwise([_OUTSIDE, *map(_read, tags), _OUTSIDE])):
        begins = mark in "BS" or before in "OES" or kind != kind_before
        if begins and before != "O":
            found.append((start, position, kind_before))
        if begins:
            start = position
    return found


def scores(truth: Tags, predicted: Tags) -> dict[str, Any]:
    """precision, recall and f1 over all spans; macro_f1, the mean over the types of truth and predictions; `types`, for
    each type its support, precision, recall and f1. What would be divided by nothing is 0."""
    hits: Counter[str] = Counter()
    given: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for true_spans, given_spans in _paired_spans(truth, predicted):
        hits.update(kind for _, _, kind in true_spans & given_spans)
        given.update(kind for _, _, kind in given_spans)
        true.update(kind for _, _, kind in true_spans)
    types = {kind: _precision_recall_f1(hits[kind], given[kind], true[kind]) for kind in sorted(true | given)}
    return {
        **_precision_recall_f1(hits.total(), given.total(), true.total()),
        "macro_f1": sum(row["f1"] for row in types.values()) / max(len(types), 1),
        "types": [{"type": kind, "support": true[kind], **row} for kind, row in types.items()],
    }


def span_counts(truth: Tags, predicted: Tags) -> Counts:
    """(n, 3) right, predicted and true spans of each row: what resampling needs of them."""
    rows = [(len(true & given), len(given), len(true)) for true, given in _paired_spans(truth, predicted)]
    return np.array(rows, np.int64).reshape(-1, 3)


def f1_of_counts(counts: Counts) -> float:
    """Micro F1 of the rows that `span_counts` counted."""
    return _precision_recall_f1(*counts.sum(axis=0).tolist())["f1"]


def _paired_spans(truth: Tags, predicted: Tags) -> list[tuple[set[Span], set[Span]]]:
    pairs = list(zip(truth, predicted, strict=True))
    assert all(len(true) == len(given) for true, given in pairs), "a predicted tag for each tag"
    return [(set(spans(true)), set(spans(given))) for true, given in pairs]


def _read(tag: str) -> tuple[str, str]:
    """(mark, type) of a tag."""
    if tag == "O":
        return _OUTSIDE
    prefix, _, kind = tag.partition("-")
    if prefix in _MARKS:
        return _MARKS[prefix], kind or "_"
    return "I", tag or "_"


def _precision_recall_f1(hits: int, given: int, true: int) -> dict[str, float]:
    return {
        "precision": hits / given if given else 0.0,
        "recall": hits / true if true else 0.0,
        "f1": 2 * hits / (given + true) if given + true else 0.0,
    }
