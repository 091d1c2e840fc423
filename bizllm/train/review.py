"""Rows whose label is likely wrong, for people to review: confident learning (Northcutt, Jiang & Chuang 2021).

A model that has not seen a row says what it thinks of its label; where it is surer of another one than it usually is of
that class, the row is told. Tables hold positions and labels, never text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import calibration
from bizllm.methods import linear
from bizllm.methods.folds import of_texts
from bizllm.train.controls import classes

Array = npt.NDArray[np.float64]
Truth = npt.NDArray[Any]  # (rows,) classes, or (rows, labels) bools for multi_label

FOLDS = 5
PENALTY = 10.0  # C of the logistic regression on unit vectors of an encoder


def suspicious(rows: npt.NDArray[np.int64], truth: Truth, probabilities: Array, labels: Sequence[str]) -> pa.Table:
    """The rows whose label is likely wrong, the likeliest first: row int64, given, suggested, quality double.

    rows: (rows,) position of each in its file. probabilities: (rows, labels) of a model that has not seen the row, as
    `out_of_fold` gives. given and suggested are text, of multi_label lists of text. quality: 0 … 1, how well the
    probabilities speak of the given label.
    """
    from cleanlab import filter as single
    from cleanlab import multilabel_classification as several
    from cleanlab.multilabel_classification import filter as several_filter
    from cleanlab.rank import get_label_quality_scores

    assert len(rows) == len(truth) == len(probabilities), "a label and a prediction for each row"
    many = truth.ndim == 2
    kind = pa.list_(pa.string()) if many else pa.string()
    schema = pa.schema({"row": pa.int64(), "given": kind, "suggested": kind, "quality": pa.float64()})
    if not len(rows):
        return schema.empty_table()
    # n_jobs=1: no processes beside those of a training; filter's own default leaves a class's last row alone.
    if many:
        lists = [np.flatnonzero(row).tolist() for row in truth]
        found = several_filter.find_label_issues(lists, probabilities, n_jobs=1)
        quality = several.get_label_quality_scores(lists, probabilities)
        names = np.array(labels, dtype=object)
        given: list[Any] = [names[row].tolist() for row in truth]
        suggested: list[Any] = [names[row].tolist() for row in probabilities >= 0.5]
    else:
        # Only classes that occur: cleanlab counts on a row of each.
        used, codes = np.unique(truth, return_inverse=True)
        if len(used) < 2:
            return schema.empty_table()
        shares = probabilities[:, used] + 1e-12
        shares /= shares.sum(axis=1, keepdims=True)
        found = single.find_label_issues(codes, shares, n_jobs=1)
        quality = get_label_quality_scores(codes, shares)
        given = [labels[i] for i in truth]
        suggested = [labels[used[i]] for i in shares.argmax(axis=1)]
    found = np.array([told and one != other for told, one, other in zip(found, given, suggested, strict=True)], bool)
    order = np.flatnonzero(found)
    order = order[np.lexsort((rows[order], quality[order]))]
    columns = [rows[order], [given[i] for i in order], [suggested[i] for i in order], quality[order]]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def out_of_fold(
    texts: Sequence[str],
    truth: Truth,
    classes_count: int,
    seed: int,
    vectors: npt.NDArray[np.float32] | None = None,
    folds: int = FOLDS,
) -> Array:
    """(rows, classes) probabilities of each row, by a model that has seen neither it nor an equal text.

    The model is the control; or a logistic regression, where an encoder's vectors (rows, dim) of the texts are given.
    Both are calibrated out of fold.
    """
    if vectors is None:
        return classes.out_of_fold(texts, truth, classes_count, folds, seed)
    held_out = of_texts(texts, [], truth, folds, seed)
    logits = np.zeros((len(truth), classes_count))
    for fold in np.unique(held_out):
        asked = held_out == fold
        logits[asked] = linear.decide(
            linear.logistic, vectors[~asked], truth[~asked], vectors[asked], classes_count, PENALTY, seed
        )
    squash = calibration.sigmoid if truth.ndim == 2 else calibration.softmax
    return squash(logits, calibration.fit_temperature(logits, truth))
