"""Pseudo-labels: rows without a label get those of their neighbours, and labelled rows keep theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny

from bizllm.train import pseudo_labels
from bizllm.train.pseudo_labels import _graph, _guess, propagated

CLASSES = 12


def clouds(rows: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 32) unit vectors around a centre for each class, and the classes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, 32))
    truth = rng.integers(0, CLASSES, rows)
    vectors = centres[truth] + noise * rng.normal(size=(rows, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_neighbours_put_right_what_few_labels_leave_unsure(seed: int) -> None:
    vectors, truth = clouds(1_500, 1.3, seed)
    few = np.concatenate([np.flatnonzero(truth == label)[:2] for label in range(CLASSES)])
    order = np.concatenate([few, np.setdiff1d(np.arange(len(truth)), few)])
    vectors, truth = vectors[order], truth[order]
    found = propagated(vectors, truth[: len(few)], CLASSES)
    assert found.shape == (1_500 - len(few), CLASSES) and np.allclose(found.sum(1), 1, atol=1e-4)
    alone = _guess(vectors[: len(few)], truth[: len(few)], CLASSES, vectors[len(few) :])
    right, without = ((guess.argmax(1) == truth[len(few) :]).mean() for guess in (found, alone))
    assert right > without + 0.03, f"{right:.3f}, the linear model alone {without:.3f}"


def test_a_prototype_stands_for_a_class_that_has_no_row() -> None:
    vectors, truth = clouds(600, 0.5, 4)
    known = np.flatnonzero(truth != 7)[:60]
    order = np.concatenate([known, np.setdiff1d(np.arange(600), known)])
    centres, classes = clouds(4_000, 0.0, 5)
    prototypes = np.stack([centres[classes == label][0] for label in range(CLASSES)])
    found = propagated(vectors[order], truth[known], CLASSES, prototypes)
    seventh = truth[order][60:] == 7
    assert (found[seventh].argmax(1) == 7).mean() > 0.9
    assert not propagated(vectors[order], truth[known], CLASSES)[:, 7].any()


def test_the_graph_joins_neighbours_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = clouds(100, 1.0, 6)
    whole = _graph(vectors).toarray()
    monkeypatch.setattr(pseudo_labels, "_CHUNK", 7)
    assert np.allclose(_graph(vectors).toarray(), whole), "however many are sought at once"
    near = vectors @ vectors.T - 2 * np.eye(100)
    nearest = np.zeros((100, 100), bool)
    np.put_along_axis(nearest, np.argsort(-near, axis=1)[:, : pseudo_labels.NEIGHBOURS], True, axis=1)
    assert ((whole > 0) == (nearest | nearest.T)).all() and np.allclose(whole.sum(1), 1)
    assert len(_graph(vectors[:3]).toarray()) == 3, "fewer rows than neighbours"


def test_rows_are_read_by_the_base_and_get_its_labels(tmp_path: Path) -> None:
    base = tiny.bert(tmp_path)
    rows, more = tiny.table(40, 1), tiny.table(25, 2)
    labels = tuple(sorted(tiny.TOPICS))
    told = pseudo_labels.of_rows(base, rows, more, labels, label_names=True)
    assert told.shape == (25, 3) and told.dtype == np.float32 and np.allclose(told.sum(1), 1, atol=1e-4)
    both = pseudo_labels.behind(rows, more, told, labels)
    assert both.slice(0, 40).equals(pa.table({"text": rows["text"], "label": rows["label"]}))
    assert both["text"].to_pylist()[40:] == more["text"].to_pylist()
    assert both["label"].to_pylist()[40:] == [labels[i] for i in told.argmax(1)]
