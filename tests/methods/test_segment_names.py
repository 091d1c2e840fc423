"""Names of clusters: what a person would say of them, no two alike, in both languages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods.segment_names import Population, names

FEATURES = ["recency_days", "frequency", "money"]


def population() -> Population:
    n = np.arange(1, 101, dtype=float)
    return Population.of({"frequency": n / 10, "money": n * 10, "interval_days": np.full(100, 30.0)})


def typical(recency: float, orders: float, money: float, returns: float = 0.0) -> dict[str, float]:
    return {
        "recency_days": recency,
        "frequency": orders,
        "money": money,
        "interval_days": 30.0,
        "return_share": returns,
    }


@pytest.mark.parametrize(
    ("cluster", "english", "chinese"),
    [
        (typical(5, 9, 900), "loyal big spenders", "忠诚大客户"),
        (typical(5, 9, 500), "loyal regulars", "忠诚常客"),
        (typical(200, 9, 500), "lapsed regulars", "流失常客"),
        (typical(60, 9, 900), "cooling big spenders", "渐冷大客户"),
        (typical(5, 1, 300), "recent one-time buyers", "近期一次性买家"),
        (typical(300, 1, 100), "lapsed one-time buyers", "流失一次性买家"),
        (typical(5, 3, 500), "recent occasional buyers", "近期偶尔买家"),
        (typical(5, 9, 500, 0.4), "returns-heavy regulars", "高退货常客"),
        (typical(200, 9, 900, 0.4), "lapsed returns-heavy big spenders", "流失高退货大客户"),
    ],
)
def test_names_say_what_is_typical(cluster: dict[str, float], english: str, chinese: str) -> None:
    other = typical(5, 2, 10)
    for language, expected in (("en", english), ("zh", chinese)):
        got = names(
            [cluster, other], np.array([[0.0, 0, 0], [1, 1, 1]]), FEATURES, population(), language, [None, None]
        )
        assert got[0] == expected


def test_one_cluster_is_everybody() -> None:
    assert names([typical(1, 1, 1)], np.zeros((1, 3)), FEATURES, population(), "en", [None]) == ["all customers"]


def test_twins_are_told_apart_by_what_differs_most() -> None:
    twins = [typical(5, 9, 800), typical(5, 9, 950)]
    centroids = np.array([[0.0, 1.0, 0.5], [0.1, 1.2, 2.0]])
    got = names(twins, centroids, FEATURES, population(), "en", [None, None])
    assert got == ["loyal big spenders, lower spend", "loyal big spenders, higher spend"]
    zh = names(twins, centroids, FEATURES, population(), "zh", [None, None])
    assert zh == ["忠诚大客户（消费较低）", "忠诚大客户（消费较高）"]


def test_a_kept_name_stays_and_the_newcomer_gets_the_difference() -> None:
    twins = [typical(5, 9, 800), typical(5, 9, 950)]
    got = names(twins, np.array([[0.0, 0, 0], [0, 0, 2]]), FEATURES, population(), "en", ["loyal big spenders", None])
    assert got == ["loyal big spenders", "loyal big spenders, higher spend"]


def test_features_of_the_users_own_tell_twins_apart_too() -> None:
    twins = [typical(5, 9, 800), typical(5, 9, 950)]
    got = names(twins, np.array([[0.0, 3], [0, 0]]), ["money", "online"], population(), "en", [None, None])
    assert got == ["loyal big spenders, high online", "loyal big spenders, low online"]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6), st.sampled_from(["en", "zh"]), st.booleans())
def test_names_are_never_blank_or_alike(k: int, seed: int, language: str, keep: bool) -> None:
    rng = np.random.default_rng(seed)
    clusters = [typical(*rng.choice([1, 5, 100, 900], 3), float(rng.choice([0, 0.5]))) for _ in range(k)]
    centroids = rng.integers(0, 2, (k, 3)).astype(float)
    first = names(clusters, centroids, FEATURES, population(), language, [None] * k)
    assert len(set(first)) == k and all(name.strip() for name in first)
    kept = [name if keep and rng.random() < 0.5 else None for name in first]
    again = names(clusters[::-1], centroids, FEATURES, population(), language, kept)
    assert len(set(again)) == k and all(name.strip() for name in again)
    assert all(old in (None, new) for old, new in zip(kept, again, strict=True))
