"""Labels for rows that nobody labelled, from those that somebody did: label propagation over nearest neighbours.

A linear model on the frozen vectors of the base, or of other teachers, guesses. Each guess is then drawn, step by step,
towards those of the row's nearest neighbours, by vectors and by words, while labelled rows keep their labels (Zhou et
al. 2003; for training a network on what comes out: Iscen et al. 2019). It costs one reading of the rows by each
teacher, no training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.errors import Fault, UserError
from bizllm.methods.text_features import TextFeatures
from bizllm.models.classifier import Classifier
from bizllm.models.encoder import Encoder
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.saved import read_info
from bizllm.train import data, leaks
from bizllm.train.objectives.classification import names

if TYPE_CHECKING:
    from bizllm.train.recipe import Recipe

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Chosen on cuts of Banking77's train, ten labelled rows a class; others near them do as well.
NEIGHBOURS = 8
DRAWN = 0.8  # how much of a row's guess comes from its neighbours
STEPS = 15  # what a further one would change is DRAWN ** STEPS, 4 %
STRENGTH = 30.0  # of the linear model's fit beside its regularization (C)
WIDTH = 0.1  # cosine by which a neighbour's weight falls to 1/e
WIDTH_OF_WORDS = 0.3  # the same, of TF-IDF
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


@dataclass(frozen=True)
class Near:
    """Unlabelled rows to learn (column text), and the models that tell what is near to what. fingerprint: of the files
    that the rows are from."""

    rows: pa.Table
    teachers: tuple[ResolvedModel, ...]
    fingerprint: str


def read(
    recipe: Recipe, base: ResolvedModel, parts: data.Parts, registry: str, place: data.Place
) -> tuple[Near | None, tuple[str, ...]]:
    """The rows, none that is labelled or held out too; and what to warn of. Raises UserError."""
    asked = recipe.pseudo_labels
    if asked is None:
        return None, ()
    at = place("pseudo_labels", "path")
    if len(set(names(parts.train.rows["label"]))) < 2:
        raise UserError(Fault(at, asked.path, "needs labelled rows of two classes in train, to be held against"))
    told = [resolve(uri, ".", place("pseudo_labels", "teachers", i), registry) for i, uri in enumerate(asked.teachers)]
    part = data.read_unlabelled(asked, "pseudo_labels", recipe, place)
    rows = leaks.apart(part.rows, parts.held_out(), recipe.data.drop_overlap)
    rows = leaks.apart(rows, [parts.train.rows], "exact")
    if not len(rows):
        raise UserError(Fault(at, asked.path, "train, validation and test hold all its texts"))
    if len(rows) <= asked.rows:
        return Near(rows, tuple(told) or (base,), part.fingerprint), ()
    drawn = np.sort(np.random.default_rng(recipe.seed).permutation(len(rows))[: asked.rows])
    warning = f"{asked.rows:,} of {len(rows):,} unlabelled rows are learned, drawn by chance"
    return Near(rows.take(pa.array(drawn)), tuple(told) or (base,), part.fingerprint), (warning,)


def of_rows(near: Near, labelled: pa.Table, labels: tuple[str, ...], label_names: bool) -> Floats:
    """(unlabelled, labels) probabilities: guesses of all teachers, averaged, as are the graphs of them and of words.

    labelled: columns text and label. label_names: the labels' own words are an example of each.
    """
    place = {label: i for i, label in enumerate(labels)}
    given = np.array([place[label] for label in names(labelled["label"])], np.int64)
    asked = near.rows["text"].to_pylist()
    texts = [*labelled["text"].to_pylist(), *asked]
    words = [label.replace("_", " ") for label in labels] if label_names else []
    answers = np.concatenate([given, np.arange(len(words))])
    graphs, guesses = [_graph(TextFeatures(texts).matrix(texts), WIDTH_OF_WORDS)], []
    for teacher in near.teachers:
        vectors, _ = Encoder.load(teacher.folder).encode([*texts, *words])
        graphs.append(_graph(vectors[: len(texts)], WIDTH))
        own = _own(teacher.folder, asked, place)
        if own is None:
            seen = np.concatenate([vectors[: len(given)], vectors[len(texts) :]])
            own = _linear(seen, answers, len(labels), vectors[len(given) : len(texts)])
        guesses.append(own)
    return propagated(sum(graphs[1:], graphs[0]) / len(graphs), np.mean(guesses, axis=0), given)


def behind(rows: pa.Table, near: Near, told: Floats, labels: tuple[str, ...]) -> pa.Table:
    """text and label of the labelled rows, and behind them of the others, each with its likeliest label."""
    likeliest = pa.array([labels[i] for i in told.argmax(1)], pa.string())
    labelled = pa.table({"text": rows["text"], "label": pc.cast(rows["label"], pa.string())})
    return pa.concat_tables([labelled, pa.table({"text": near.rows["text"], "label": likeliest})])


def propagated(graph: Any, guess: Floats, given: Ints) -> Floats:
    """(rows - labelled, classes) probabilities of the rows that are not labelled.

    graph: (rows, rows) sparse, of the labelled rows and then the others: weights that add up to 1 in each row.
    guess: (rows - labelled, classes). given: (labelled,) classes.
    """
    known = np.eye(guess.shape[1], dtype=np.float32)[given]
    start = np.concatenate([known, guess])
    found = start
    for _ in range(STEPS):
        found = DRAWN * (graph @ found) + (1 - DRAWN) * start
        found[: len(given)] = known
    return np.asarray(found[len(given) :], np.float32)


def _own(folder: Path, texts: list[str], place: Mapping[str, int]) -> Floats | None:
    """(texts, classes) what a classifier takes them for; None of a model that is none of these labels."""
    info = read_info(folder)
    if info is None or info.objective != "classification" or not set(info.labels) <= place.keys():
        return None
    told, _ = Classifier.load(folder).probabilities(texts)
    made = np.zeros((len(texts), len(place)), np.float32)
    made[:, [place[label] for label in info.labels]] = told
    return made


def _linear(seen: Floats, answers: Ints, classes: int, rows: Floats) -> Floats:
    """(rows, classes) probabilities by a linear model of the vectors seen."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, max_iter=300).fit(seen, answers)
    made = np.zeros((len(rows), classes), np.float32)
    made[:, model.classes_] = model.predict_proba(rows)
    return made


def _graph(vectors: Any, width: float) -> Any:
    """(rows, rows) sparse, of vectors (rows, dim): weights of each row's nearest neighbours, and of the rows whose
    neighbour it is; they add up to 1. vectors: dense or sparse; lengths don't matter. O(rows²)."""
    from scipy import sparse
    from sklearn.preprocessing import normalize

    vectors = normalize(vectors)
    count = min(NEIGHBOURS, vectors.shape[0] - 1)
    columns, values = [], []
    for start in range(0, vectors.shape[0], _CHUNK):
        near = vectors[start : start + _CHUNK] @ vectors.T
        near = near.toarray() if sparse.issparse(near) else near
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf  # itself
        nearest = np.argpartition(-near, count - 1, axis=1)[:, :count]
        columns.append(nearest)
        values.append(np.exp((np.take_along_axis(near, nearest, 1) - 1) / width))
    rows = np.repeat(np.arange(vectors.shape[0]), count)
    placed = (np.concatenate(values).ravel(), (rows, np.concatenate(columns).ravel()))
    one_way = sparse.csr_matrix(placed, shape=(vectors.shape[0], vectors.shape[0]))
    both = one_way.maximum(one_way.T)
    return sparse.diags(1 / np.asarray(both.sum(axis=1)).ravel()) @ both
