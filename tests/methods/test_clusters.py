"""Clusters: scaling against formulas, k-means against planted blobs, matching against every possible matching."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from bizllm.methods.clusters import CLIP, Matrix, Scaling, assign, match, partition


def blobs(k: int, rows: int = 150, seed: int = 0, spread: float = 0.15) -> tuple[Matrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.array(list(itertools.product([-1.5, 0.0, 1.5], repeat=2)))[rng.permutation(9)[:k]]
    truth = np.repeat(np.arange(k), rows)
    return centres[truth] + rng.normal(scale=spread, size=(k * rows, 2)), truth


def test_scaling_of_normal_values_gives_standard_deviations() -> None:
    x = np.random.default_rng(1).normal(100, 7, size=(200_000, 1))
    scaling = Scaling.of(x, [False])
    assert scaling.center[0] == pytest.approx(100, abs=0.1)
    assert scaling.scale[0] == pytest.approx(7, rel=0.01)


def test_scaling_logs_clips_and_centres_what_is_unknown() -> None:
    scaling = Scaling((True, False), (np.log(2), 0.0), (1.0, 2.0))
    got = scaling.apply(np.array([[1.0, 3.0], [-(np.e**2 - 1), np.nan], [1e9, -1e9]]))
    np.testing.assert_allclose(got, [[0, 1.5], [-2 - np.log(2), 0], [CLIP, -CLIP]])


def test_mostly_equal_values_are_not_blown_up_and_constants_stay_finite() -> None:
    x = np.column_stack([np.r_[np.zeros(80), np.linspace(0.01, 0.5, 20)], np.full(100, 7.0)])
    scaled = Scaling.of(x, [False, False]).apply(x)
    assert np.abs(scaled[:85, 0]).max() < 3  # a return of 10 % is not as far out as one of half of all
    np.testing.assert_array_equal(scaled[:, 1], 0)


def test_scaling_survives_json_and_converts_points_to_another() -> None:
    x = np.random.default_rng(2).lognormal(size=(500, 2))
    one, other = Scaling.of(x, [True, False]), Scaling.of(x * 3, [True, False])
    assert Scaling.from_json(json.loads(json.dumps(one.to_json()))) == one
    inside = np.abs(one.apply(x)).max(axis=1) < 2
    inside &= np.abs(other.apply(x)).max(axis=1) < CLIP
    np.testing.assert_allclose(one.convert(one.apply(x), other)[inside], other.apply(x)[inside])


@pytest.mark.parametrize("k", [3, 5, 7])
def test_k_and_members_of_planted_blobs_are_found(k: int) -> None:
    x, truth = blobs(k, seed=k)
    found = partition(x, range(2, 9))
    assert len(found.centroids) == k
    assert max(found.scores, key=lambda n: found.scores[n]) == k
    assert adjusted_rand_score(truth, assign(x, found.centroids)[0]) > 0.99


def test_the_order_of_the_rows_changes_nothing() -> None:
    x, _ = blobs(4, spread=0.6)
    shuffled = x[np.random.default_rng(3).permutation(len(x))]
    one, other = partition(x, range(3, 7)), partition(shuffled, range(3, 7))
    np.testing.assert_array_equal(one.centroids, other.centroids)
    assert one.scores == other.scores


@pytest.mark.parametrize("x", [np.zeros((0, 2)), np.zeros((1, 2)), np.ones((50, 2)), np.array([[0.0, 1], [1, 0]])])
def test_fewer_distinct_rows_than_clusters(x: Matrix) -> None:
    found = partition(x, [5])
    assert len(found.centroids) == max(1, len(np.unique(x, axis=0)))
    nearest, distance, confidence = assign(x, found.centroids)
    assert len(nearest) == len(x)
    assert np.isfinite(distance).all() and np.allclose(distance, 0)
    np.testing.assert_array_equal(confidence, 1)


def test_last_nights_k_and_centroids_stay_where_little_speaks_against_them() -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, size=(1500, 2))  # nothing to find: every k is about as good
    first = partition(x, range(3, 9))
    for other_k in set(range(3, 9)) - {len(first.centroids)}:
        last = partition(x, [other_k])
        if first.scores[len(first.centroids)] - first.scores[other_k] < 0.02:
            assert len(partition(x, range(3, 9), last.centroids).centroids) == other_k
    moved = x + rng.normal(scale=0.02, size=x.shape)
    again = partition(moved, range(3, 9), first.centroids)
    before, after = assign(x, first.centroids)[0], assign(moved, again.centroids)[0]
    assert adjusted_rand_score(before, after) > 0.85
    assert match(first.centroids, again.centroids) == list(range(len(first.centroids)))


def test_a_k_that_is_clearly_better_replaces_last_nights() -> None:
    x, _ = blobs(5, seed=5)
    assert len(partition(x, range(3, 9), partition(x, [3]).centroids).centroids) == 5


def test_assignment_equals_all_distances_worked_out() -> None:
    rng = np.random.default_rng(6)
    x, centroids = rng.normal(size=(400, 3)), rng.normal(size=(6, 3))
    far = np.linalg.norm(x[:, None] - centroids[None], axis=2)
    ordered = np.sort(far, axis=1)
    nearest, distance, confidence = assign(x, centroids)
    np.testing.assert_array_equal(nearest, far.argmin(axis=1))
    np.testing.assert_allclose(distance, ordered[:, 0])
    np.testing.assert_allclose(confidence, 1 - ordered[:, 0] / ordered[:, 1])


def test_confidence_follows_the_silhouette() -> None:
    x, _ = blobs(4, spread=0.5)
    nearest, _, confidence = assign(x, partition(x, [4]).centroids)
    assert np.corrcoef(confidence, silhouette_samples(x, nearest))[0, 1] > 0.9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10_000))
def test_matching_has_the_least_total_distance(olds: int, news: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = rng.normal(size=(olds, 2)), rng.normal(size=(news, 2))
    cost = np.linalg.norm(old[:, None] - new[None], axis=2)
    few, many = min(olds, news), max(olds, news)
    flat = cost if olds <= news else cost.T
    best = min(itertools.permutations(range(many), few), key=lambda p: sum(flat[i, j] for i, j in enumerate(p)))
    allowed = {(i, j) if olds <= news else (j, i) for i, j in enumerate(best)}
    pairs = {(i, j) for j, i in enumerate(match(old, new)) if i is not None}
    assert pairs <= allowed
    for i, j in allowed:  # a pair is left out exactly where the centroid went half the way to a neighbour
        others = np.delete(np.linalg.norm(old - old[i], axis=1), i)
        assert ((i, j) in pairs) == (len(others) == 0 or cost[i, j] < others.min() / 2)
