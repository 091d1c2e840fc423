"""Selection: better labels than by chance, no question twice, and distances equal to those of gradients written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from bizllm.train import select
from bizllm.train.select import propose, uncertainty

Array = npt.NDArray[np.float64]


def pool(seed: int, rows: int = 1_500) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Twelve classes of very different sizes on a sphere, as intents are: chance rarely meets the small ones."""
    rng = np.random.default_rng(seed)
    sizes = 1.0 / np.arange(1, 13)
    truth = rng.choice(12, rows, p=sizes / sizes.sum())
    x = rng.normal(size=(12, 16))[truth] + rng.normal(scale=0.7, size=(rows, 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), truth


def balanced_accuracy(x: Array, y: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> float:
    guess = LogisticRegression(C=10, max_iter=300).fit(x[known], y[known]).predict(x)
    return float(np.mean([(guess[y == code] == code).mean() for code in np.unique(y)]))


def test_labels_of_proposed_rows_teach_more_than_labels_by_chance() -> None:
    gains = []
    for seed in range(7):
        x, y = pool(seed)
        rng = np.random.default_rng(seed)
        start = rng.choice(len(x), 30, replace=False)
        model = LogisticRegression(C=10, max_iter=300).fit(x[start], y[start])
        probabilities = np.zeros((len(x), 12))
        probabilities[:, model.classes_] = model.predict_proba(x)
        left = np.setdiff1d(np.arange(len(x)), start)
        picked, _ = propose(probabilities[left], x[left], 30, seed)
        chance = np.median(
            [balanced_accuracy(x, y, np.r_[start, rng.choice(left, 30, replace=False)]) for _ in range(5)]
        )
        gains.append(balanced_accuracy(x, y, np.r_[start, left[picked]]) - chance)
    assert np.median(gains) > 0.03
    assert sum(gain > 0 for gain in gains) >= 6


def test_no_two_rows_that_ask_the_same() -> None:
    rng = np.random.default_rng(1)
    x = np.repeat(rng.normal(size=(20, 8)), 50, axis=0) + rng.normal(scale=1e-3, size=(1_000, 8))
    picked, _ = propose(rng.dirichlet(np.ones(5), 1_000), x.astype(np.float32), 60, 1)
    assert len(picked) == 20  # not one more than there are questions
    assert len(set((picked // 50).tolist())) == 20


def test_unsure_rows_come_before_sure_ones() -> None:
    rng = np.random.default_rng(2)
    sure = np.eye(4)[rng.integers(0, 4, 900)] * 0.996 + 0.001
    unsure = rng.dirichlet(np.full(4, 20.0), 100)
    picked, scores = propose(np.concatenate([sure, unsure]), rng.normal(size=(1_000, 32)).astype(np.float32), 80, 1)
    assert (picked >= 900).mean() > 0.9
    assert scores[picked >= 900].min() > 0.8
    assert (scores[picked < 900] < 0.1).all()


@pytest.mark.parametrize("several", [False, True])
def test_chunks_and_factorised_distances_are_those_of_gradients(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is asked of the weights that k-means++ on the written-out gradients has."""
    rng = np.random.default_rng(3)
    p = rng.random((90, 3)) if several else rng.dirichlet(np.ones(3), 90)
    x = rng.normal(size=(90, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    guess = (p >= 0.5) if several else np.eye(3)[p.argmax(axis=1)]
    gradients = ((p - guess)[:, :, None] * x[:, None, :]).reshape(90, -1)
    seen: list[int] = []

    def draw(distance: Array, free: npt.NDArray[np.bool_], rng: np.random.Generator) -> int:
        centres = np.concatenate([np.zeros((1, gradients.shape[1])), gradients[seen]])
        expected = ((gradients[:, None] - centres) ** 2).sum(axis=2).min(axis=1)
        np.testing.assert_allclose(distance, expected, atol=1e-6)
        seen.append(int(np.where(free, distance, -1.0).argmax()))
        return seen[-1]

    monkeypatch.setattr(select, "_draw", draw)
    monkeypatch.setattr(select, "_CHUNK", 7)
    assert propose(p, x.astype(np.float32), 12, 1)[0].tolist() == seen
    assert len(seen) == 12


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_positions_are_distinct_rows_and_the_same_again(rows: int, count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, x = rng.dirichlet(np.ones(classes), rows), rng.normal(size=(rows, 3)).astype(np.float32)
    picked, scores = propose(p, x, count, seed)
    assert len(picked) == len(set(picked.tolist())) == len(scores) <= min(rows, count)
    assert ((picked >= 0) & (picked < rows)).all() and ((scores >= 0) & (scores <= 1)).all()
    assert picked.tolist() == propose(p, x, count, seed)[0].tolist()


def test_uncertainty_is_entropy_of_its_maximum() -> None:
    np.testing.assert_allclose(
        uncertainty(np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])), [1, 0, 0.5], atol=1e-9
    )
    np.testing.assert_allclose(
        uncertainty(np.array([[0.5, 0.5, 0.5], [1, 1, 0], [0.5, 0, 0]])), [1, 0, 1 / 3], atol=1e-9
    )
