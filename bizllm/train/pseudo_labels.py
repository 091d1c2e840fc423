"""Labels for rows that nobody labelled, from those that somebody did: label propagation over nearest neighbours.

A linear model on the base's frozen vectors guesses. Each guess is then drawn, step by step, towards those of the row's
nearest neighbours, while labelled rows keep their labels (Zhou et al. 2003; for training a network on what comes out:
Iscen et al. 2019). It costs one reading of the rows, no training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.errors import Fault, UserError
from bizllm.models.encoder import Encoder
from bizllm.train import data, leaks
from bizllm.train.objectives.classification import names

if TYPE_CHECKING:
    from pathlib import Path

    from bizllm.train.recipe import Recipe

Vectors = npt.NDArray[np.float32]  # (rows, dim), of length 1
Ints = npt.NDArray[np.int64]

# Chosen on cuts of Banking77's train, ten labelled rows a class; others near them do as well.
NEIGHBOURS = 8
DRAWN = 0.8  # how much of a row's guess comes from its neighbours
STEPS = 15  # what a further one would change is DRAWN ** STEPS, 4 %
STRENGTH = 30.0  # of the linear model's fit beside its regularization (C)
WIDTH = 0.1  # cosine by which a neighbour's weight falls to 1/e
_CHUNK = 2_048  # rows whose neighbours are sought at once


def faults(recipe: Recipe, place: data.Place) -> list[Fault]:
    """Why these rows can't be learned; nothing is read."""
    asked = recipe.pseudo_labels
    if asked is None:
        return []
    if recipe.objective != "classification" or recipe.inputs == "numbers":
        return [Fault(place("pseudo_labels"), recipe.objective, "is for classification of texts")]
    if recipe.continual.distill:
        what = "pseudo_labels and distill can't be used together: each says what rows should answer"
        return [Fault(place("pseudo_labels"), asked.path, what, "use one of them")]
    return []


def read(recipe: Recipe, parts: data.Parts, place: data.Place) -> tuple[pa.Table | None, tuple[str, ...]]:
    """The unlabelled rows to learn, none that is labelled or held out too; and what to warn of. Raises UserError."""
    asked = recipe.pseudo_labels
    if asked is None:
        return None, ()
    at = place("pseudo_labels", "path")
    if len(set(names(parts.train.rows["label"]))) < 2:
        raise UserError(Fault(at, asked.path, "needs labelled rows of two classes in train, to be held against"))
    rows = data.read_unlabelled(asked, "pseudo_labels", recipe, place)
    rows = leaks.apart(rows, parts.held_out(), recipe.data.drop_overlap)
    rows = leaks.apart(rows, [parts.train.rows], "exact")
    if not len(rows):
        raise UserError(Fault(at, asked.path, "train, validation and test hold all its texts"))
    if len(rows) <= asked.rows:
        return rows, ()
    drawn = np.sort(np.random.default_rng(recipe.seed).permutation(len(rows))[: asked.rows])
    warning = f"{asked.rows:,} of {len(rows):,} unlabelled rows are learned, drawn by chance"
    return rows.take(pa.array(drawn)), (warning,)


def of_rows(
    base: Path, labelled: pa.Table, unlabelled: pa.Table, labels: tuple[str, ...], label_names: bool
) -> npt.NDArray[np.float32]:
    """(unlabelled, labels) probabilities. base: the folder of an encoder. label_names: the labels' own words are an
    example of each. Rows: column text, and label of the labelled ones."""
    texts = [*labelled["text"].to_pylist(), *unlabelled["text"].to_pylist()]
    words = [label.replace("_", " ") for label in labels] if label_names else []
    vectors, _ = Encoder.load(base).encode([*texts, *words])
    place = {label: i for i, label in enumerate(labels)}
    given = np.array([place[label] for label in names(labelled["label"])], np.int64)
    return propagated(vectors[: len(texts)], given, len(labels), vectors[len(texts) :])


def behind(rows: pa.Table, near: pa.Table, told: npt.NDArray[np.float32], labels: tuple[str, ...]) -> pa.Table:
    """text and label of the labelled rows, and behind them of the others, each with its likeliest label."""
    likeliest = pa.array([labels[i] for i in told.argmax(1)], pa.string())
    labelled = pa.table({"text": rows["text"], "label": pc.cast(rows["label"], pa.string())})
    return pa.concat_tables([labelled, pa.table({"text": near["text"], "label": likeliest})])


def propagated(
    vectors: Vectors, given: Ints, classes: int, prototypes: Vectors | None = None
) -> npt.NDArray[np.float32]:
    """(rows - labelled, classes) probabilities of the rows that are not labelled.

    vectors: of the labelled rows, then of the others. given: (labelled,) classes, two of them at least. prototypes:
    (classes, dim) vectors that are an example of each class for the linear model; none where empty.
    """
    count = len(given)
    known = np.eye(classes, dtype=np.float32)[given]
    seen, answers = vectors[:count], given
    if prototypes is not None and len(prototypes):
        seen, answers = np.concatenate([seen, prototypes]), np.concatenate([given, np.arange(classes)])
    guess = np.concatenate([known, _guess(seen, answers, classes, vectors[count:])])
    graph = _graph(vectors)
    found = guess
    for _ in range(STEPS):
        found = DRAWN * (graph @ found) + (1 - DRAWN) * guess
        found[:count] = known
    return np.asarray(found[count:], np.float32)


def _guess(seen: Vectors, answers: Ints, classes: int, rows: Vectors) -> npt.NDArray[np.float32]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, max_iter=300).fit(seen, answers)
    made = np.zeros((len(rows), classes), np.float32)
    made[:, model.classes_] = model.predict_proba(rows)
    return made


def _graph(vectors: Vectors) -> Any:
    """(rows, rows) sparse: weights of each row's nearest neighbours, and of the rows whose neighbour it is; they add up
    to 1. O(rows²)."""
    from scipy import sparse

    count = min(NEIGHBOURS, len(vectors) - 1)
    columns, values = [], []
    for start in range(0, len(vectors), _CHUNK):
        near = vectors[start : start + _CHUNK] @ vectors.T
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf  # itself
        nearest = np.argpartition(-near, count - 1, axis=1)[:, :count]
        columns.append(nearest)
        values.append(np.exp((np.take_along_axis(near, nearest, 1) - 1) / WIDTH))
    rows = np.repeat(np.arange(len(vectors)), count)
    one_way = sparse.csr_matrix(
        (np.concatenate(values).ravel(), (rows, np.concatenate(columns).ravel())), shape=(len(vectors), len(vectors))
    )
    both = one_way.maximum(one_way.T)
    return sparse.diags(1 / np.asarray(both.sum(axis=1)).ravel()) @ both
