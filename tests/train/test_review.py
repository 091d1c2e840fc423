"""Label review: planted wrong labels must come back, right ones must not, in tables that hold no text."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from bizllm.train.review import out_of_fold, suspicious

LABELS = ("card", "fee", "refund", "transfer")
OF_CLASS = [[f"{name}{i}" for i in range(12)] for name in LABELS]
SHARED = [f"word{i}" for i in range(40)]


def texts_of(truth: npt.NDArray[np.int64], seed: int) -> list[str]:
    """Three words that tell the class, one of another class, six that tell nothing."""
    rng = random.Random(seed)
    made = []
    for label in truth:
        words = [*rng.choices(OF_CLASS[label], k=3), rng.choice(rng.choice(OF_CLASS)), *rng.choices(SHARED, k=6)]
        rng.shuffle(words)
        made.append(" ".join(words))
    return made


def planted(truth: npt.NDArray[np.int64], share: float, seed: int) -> tuple[npt.NDArray[np.int64], set[int]]:
    """Labels of which a share is another class's, and the rows of those."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(truth), int(share * len(truth)), replace=False)
    given = truth.copy()
    given[wrong] = (given[wrong] + rng.integers(1, len(LABELS), len(wrong))) % len(LABELS)
    return given, set(wrong.tolist())


@pytest.mark.parametrize("by_vectors", [False, True])
def test_five_in_a_hundred_wrong_labels_are_found(by_vectors: bool) -> None:
    truth = np.random.default_rng(1).integers(0, len(LABELS), 1_200)
    texts = texts_of(truth, 1)
    given, wrong = planted(truth, 0.05, 2)
    vectors = None
    if by_vectors:
        centres = np.random.default_rng(3).normal(size=(len(LABELS), 24))
        noise = np.random.default_rng(4).normal(scale=1.1, size=(len(truth), 24))
        vectors = (centres[truth] + noise).astype(np.float32)
    probabilities = out_of_fold(texts, given, len(LABELS), 1, vectors)
    positions = np.arange(len(truth), dtype=np.int64) * 2 + 5  # in the file, not in what was read
    table = suspicious(positions, given, probabilities, LABELS)
    found = [(row - 5) // 2 for row in table["row"].to_pylist()]
    hits = len(wrong & set(found))
    assert hits / len(found) >= 0.85  # precision
    assert hits / len(wrong) >= 0.85  # recall
    ranked = [row in wrong for row in found[: len(wrong) // 2]]
    assert np.mean(ranked) >= 0.95  # the likeliest come first
    assert table["quality"].to_pylist() == sorted(table["quality"].to_pylist())
    assert [LABELS[given[row]] for row in found] == table["given"].to_pylist()
    right = [LABELS[truth[row]] == name for row, name in zip(found, table["suggested"].to_pylist(), strict=True)]
    assert np.mean(right) >= 0.85
    assert not any(word in str(table.to_pylist()) for word in SHARED)


def test_clean_labels_raise_few_doubts() -> None:
    truth = np.random.default_rng(5).integers(0, len(LABELS), 800)
    table = suspicious(np.arange(800), truth, out_of_fold(texts_of(truth, 5), truth, len(LABELS), 1), LABELS)
    assert len(table) <= 0.02 * 800


def test_missing_labels_of_several_are_found() -> None:
    rng = np.random.default_rng(6)
    truth = rng.random((800, 3)) < 0.4
    probabilities = np.clip(np.where(truth, 0.9, 0.1) + rng.normal(scale=0.05, size=truth.shape), 0.01, 0.99)
    given = truth.copy()
    wrong = rng.choice(800, 40, replace=False)
    given[wrong, rng.integers(0, 3, 40)] ^= True
    table = suspicious(np.arange(800), given, probabilities, ("a", "b", "c"))
    found = set(table["row"].to_pylist())
    assert len(found & set(wrong.tolist())) / len(found) > 0.9
    assert len(found & set(wrong.tolist())) / 40 > 0.9
    assert table.schema.field("given").type == pa.list_(pa.string())


def test_probabilities_of_rows_that_were_not_seen_are_calibrated_and_whole() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 3, 600)
    vectors = (np.eye(3)[truth] + rng.normal(scale=0.8, size=(600, 3))).astype(np.float32)
    probabilities = out_of_fold([str(i) for i in range(600)], truth, 4, 1, vectors)  # of the fourth no row
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities[:, 3].max() < 1e-3
    accuracy = (probabilities.argmax(axis=1) == truth).mean()
    assert probabilities.max(axis=1).mean() == pytest.approx(accuracy, abs=0.05)
    several = out_of_fold([str(i) for i in range(600)], np.eye(4, dtype=bool)[truth], 4, 1, vectors)
    assert several[:, 3].max() < 1e-3 and several.shape == (600, 4)


def test_few_rows_or_one_class_raise_no_doubt() -> None:
    assert suspicious(np.arange(0), np.empty(0, np.int64), np.empty((0, 2)), ("a", "b")).num_rows == 0
    assert suspicious(np.arange(3), np.zeros(3, np.int64), np.full((3, 2), 0.5), ("a", "b")).num_rows == 0
