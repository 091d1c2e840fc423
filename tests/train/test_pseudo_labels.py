"""Pseudo-labels: rows without a label get those of their neighbours, and labelled rows keep theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
from scipy import sparse

from bizllm.methods.text_features import TextFeatures
from bizllm.models.classifier import Classifier
from bizllm.models.encoder import Encoder
from bizllm.models.load import ResolvedModel
from bizllm.train import pseudo_labels
from bizllm.train.pseudo_labels import WIDTH, WIDTH_OF_WORDS, Near, _graph, _linear, propagated

CLASSES = 12


def clouds(rows: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 32) unit vectors around a centre for each class, and the classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, 32))
    truth = rng.integers(0, CLASSES, rows)
    vectors = centres[truth] + noise * rng.normal(size=(rows, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), truth


def spread(vectors: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(what is propagated, what the linear model says) of the rows behind the labelled ones."""
    guess = _linear(vectors[: len(given)], given, CLASSES, vectors[len(given) :])
    return propagated(_graph(vectors, WIDTH), guess, given), guess


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_neighbours_put_right_what_few_labels_leave_unsure(seed: int) -> None:
    vectors, truth = clouds(1_500, 1.3, seed)
    few = np.concatenate([np.flatnonzero(truth == label)[:2] for label in range(CLASSES)])
    order = np.concatenate([few, np.setdiff1d(np.arange(len(truth)), few)])
    vectors, truth = vectors[order], truth[order]
    found, alone = spread(vectors, truth[: len(few)])
    assert found.shape == (1_500 - len(few), CLASSES) and np.allclose(found.sum(1), 1, atol=1e-4)
    right, without = ((guess.argmax(1) == truth[len(few) :]).mean() for guess in (found, alone))
    assert right > without + 0.03, f"{right:.3f}, the linear model alone {without:.3f}"


def test_a_class_without_a_row_is_guessed_nowhere() -> None:
    vectors, truth = clouds(600, 0.5, 4)
    known = np.flatnonzero(truth != 7)[:60]
    order = np.concatenate([known, np.setdiff1d(np.arange(600), known)])
    found, _ = spread(vectors[order], truth[known])
    assert not found[:, 7].any() and np.allclose(found.sum(1), 1, atol=1e-4)


def test_the_graph_joins_neighbours_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clouds(100, 1.0, 6)
    whole = _graph(vectors, WIDTH).toarray()
    monkeypatch.setattr(pseudo_labels, "_CHUNK", 7)
    assert np.allclose(_graph(vectors, WIDTH).toarray(), whole, atol=1e-5), "however many are sought at once"
    assert np.allclose(_graph(sparse.csr_array(3 * vectors), WIDTH).toarray(), whole, atol=1e-5), "of any length"
    near = vectors @ vectors.T - 2 * np.eye(100)
    nearest = np.zeros((100, 100), bool)
    np.put_along_axis(nearest, np.argsort(-near, axis=1)[:, : pseudo_labels.NEIGHBOURS], True, axis=1)
    assert ((whole > 0) == (nearest | nearest.T)).all() and np.allclose(whole.sum(1), 1)
    assert len(_graph(vectors[:3], WIDTH).toarray()) == 3, "fewer rows than neighbours"


def model(folder: Path) -> ResolvedModel:
    return ResolvedModel("path:" + str(folder), folder, "", "path")


def test_rows_that_share_words_are_near(tmp_path: Path) -> None:
    topics = [
        "dachrinne verputz zaun regenfass teppich garage klinke mauer",
        "kredit zinsen konto sparbuch steuer dividende hypothek lohn",
        "bahnhof koffer visum fahrplan hotel strand flug gepäck",
    ]
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 120)
    rows = [" ".join(rng.choice(topics[topic].split(), 4, replace=False)) for topic in truth]
    few = [" ".join(topic.split()[:3]) for topic in topics]
    by_words = _graph(TextFeatures([*few, *rows]).matrix([*few, *rows]), WIDTH_OF_WORDS)
    unsure = np.full((120, 3), 1 / 3, np.float32)
    assert (propagated(by_words, unsure, np.arange(3)).argmax(1) == truth).mean() > 0.9

    teacher = model(tiny.bert(tmp_path))
    vectors, _ = Encoder.load(teacher.folder).encode([*few, *rows])
    guess = _linear(vectors[:3], np.arange(3), 3, vectors[3:])
    both = propagated((_graph(vectors, WIDTH) + by_words) / 2, guess, np.arange(3))
    labels = ("home", "money", "travel")
    labelled = pa.table({"text": few, "label": labels})
    told = pseudo_labels.of_rows(Near(pa.table({"text": rows}), (teacher,), ""), labelled, labels, False)
    assert np.allclose(told, both, atol=1e-5)


def test_rows_are_read_by_a_teacher_and_get_its_labels(tmp_path: Path) -> None:
    rows, more = tiny.table(40, 1), tiny.table(25, 2)
    labels = tuple(sorted(tiny.TOPICS))
    near = Near(more, (model(tiny.bert(tmp_path)),), "")
    told = pseudo_labels.of_rows(near, rows, labels, label_names=True)
    assert told.shape == (25, 3) and told.dtype == np.float32 and np.allclose(told.sum(1), 1, atol=1e-4)
    assert not np.allclose(told, pseudo_labels.of_rows(near, rows, labels, label_names=False)), "names are examples"
    both = pseudo_labels.behind(rows, near, told, labels)
    assert both.slice(0, 40).equals(pa.table({"text": rows["text"], "label": rows["label"]}))
    assert both["text"].to_pylist()[40:] == more["text"].to_pylist()
    assert both["label"].to_pylist()[40:] == [labels[i] for i in told.argmax(1)]


def test_a_classifier_among_the_teachers_says_what_it_takes_rows_for(
    fine_tuned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without steps of propagation what is left is the mean of the guesses."""
    rows, more = tiny.table(40, 1), tiny.table(25, 2)
    vocabulary = " ".join(tiny.WORDS[:-10])
    teachers = [
        fine_tuned(objective="classification", labels=labels, words=vocabulary)
        for labels in (("home", "money"), ("home", "zoo"))
    ]
    monkeypatch.setattr(pseudo_labels, "STEPS", 0)
    labels = ("home", "money", "travel")
    each = [pseudo_labels.of_rows(Near(more, (model(one),), ""), rows, labels, False) for one in teachers]
    own, _ = Classifier.load(teachers[0]).probabilities(more["text"].to_pylist())
    assert np.allclose(each[0][:, :2], own, atol=1e-6) and not each[0][:, 2].any(), "its own, in our order"
    assert each[1][:, 2].all(), "of other labels: its vectors are asked alone"
    both = pseudo_labels.of_rows(Near(more, tuple(map(model, teachers)), ""), rows, labels, False)
    assert np.allclose(both, (each[0] + each[1]) / 2, atol=1e-6)
