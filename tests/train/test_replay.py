"""Replay: balanced samples whose mean is the class's, and mixtures of the asked share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.train.replay import keep, mix, quotas


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_quotas_are_equal_but_for_what_small_classes_lack(sizes: list[int], count: int) -> None:
    shares = quotas(sizes, count)
    assert sum(shares) == min(count, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    # Max-min fair: only a class that is kept whole may have less than another, but for one row.
    most = max(shares)
    assert all(share == size or share >= most - 1 for share, size in zip(shares, sizes, strict=True))


@pytest.mark.parametrize("vectors", [False, True])
def test_each_class_keeps_as_many(vectors: bool) -> None:
    rng = np.random.default_rng(1)
    truth = rng.permutation(np.repeat([0, 1, 2], [500, 100, 4]))
    x = rng.normal(size=(604, 8)).astype(np.float32) if vectors else None
    kept = keep(truth, 64, 1, x)
    assert Counter(truth[kept].tolist()) == {0: 30, 1: 30, 2: 4}
    assert kept.tolist() == sorted(set(kept.tolist())) == keep(truth, 64, 1, x).tolist()
    assert keep(truth, 10_000, 1, x).tolist() == list(range(604))
    assert keep(truth[:0], 5, 1).tolist() == []


def test_herded_rows_have_the_mean_of_their_class() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 12)) + rng.choice([-2.0, 2.0], size=(400, 1)) * np.eye(12)[0]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    truth = np.zeros(400, np.int64)

    def error(rows: np.ndarray) -> float:
        return float(np.linalg.norm(x[rows].mean(axis=0) - x.mean(axis=0)))

    by_chance = [error(keep(truth, 20, seed)) for seed in range(20)]
    assert error(keep(truth, 20, 0, x)) < 0.5 * min(by_chance)


def test_rows_of_several_labels_count_for_the_rarest() -> None:
    truth = np.array([[1, 0]] * 50 + [[1, 1]] * 3 + [[0, 0]] * 20, bool)
    kept = keep(truth, 12, 1)
    assert {50, 51, 52} <= set(kept.tolist())
    assert Counter((kept >= 53).tolist())[True] in (4, 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 60), st.floats(0.0, 0.9))
def test_the_mixture_has_its_share_and_every_new_row_once(old: int, new: int, share: float) -> None:
    tables = [
        pa.table({"row": range(start, start + n)}, pa.schema({"row": pa.int64()}))
        for start, n in ((100, old), (0, new))
    ]
    mixed = mix(*tables, share, 1)["row"].to_pylist()
    assert sorted(row for row in mixed if row < 100) == list(range(new))
    again = Counter(row for row in mixed if row >= 100)
    wanted = share / (1 - share) * new if old else 0
    assert again.total() == pytest.approx(wanted, abs=0.51)
    counts = [again[row] for row in range(100, 100 + old)]
    assert max(counts, default=0) - min(counts, default=0) <= 1


def test_old_rows_take_the_new_ones_columns_and_order_is_shuffled() -> None:
    old = pa.table({"label": ["x"] * 5, "text": ["old"] * 5, "kept_at": [1] * 5})
    new = pa.table({"text": pa.array([f"new {i}" for i in range(50)], pa.large_string()), "label": ["y"] * 50})
    mixed = mix(old, new, 0.5, 1)
    assert mixed.schema == new.schema and len(mixed) == 100
    first = Counter(mixed["label"].to_pylist()[:50])
    assert 12 < first["x"] < 38
    assert mix(old, new, 0.5, 1).equals(mixed)
