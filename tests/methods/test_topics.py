"""Topics: found where they were planted, whatever the order of the texts, and the same topics a night later."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from bizllm.methods import topics

DIM = 24


def points(counts: list[int], seed: int = 0, spread: float = 0.08, start: int = 0) -> tuple[list[str], Any, Any]:
    """(texts, unit vectors around axis start + i, which axis): so many of each."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(start, start + len(counts)), counts)
    x = np.eye(DIM)[of] + rng.normal(0, spread, (len(of), DIM))
    names = ["apple", "bread", "candle", "drill", "engine", "flower", "garden", "hammer"]
    return (
        [f"{names[a]} {names[a]}box text{chr(97 + i // 26)}{chr(97 + i % 26)}" for i, a in enumerate(of)],
        _unit(x),
        of,
    )


def _unit(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def fit(texts: list[str], x: Any, previous: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    given = {"k": (2, 8), "outliers": 0.05, "min_texts": 30} | more
    found = topics.fit(texts, x, previous=previous, **given)
    return json.loads(json.dumps(found))


def ids(fitted: dict[str, Any], texts: list[str], x: Any) -> list[int]:
    known = [*(topic["id"] for topic in fitted["topics"]), 0]
    return [known[i] for i in topics.apply(fitted, texts, x).topic]


def test_planted_topics_are_found_and_counted() -> None:
    texts, x, of = points([60, 60, 60, 60])
    fitted = fit(texts, x, outliers=0.0)
    assert len(fitted["topics"]) == 4
    found = topics.apply(fitted, texts, x)
    assert adjusted_rand_score(of, found.topic) == 1.0
    assert found.probability.min() > 0.9
    assert {topic["words"][0][:5] for topic in fitted["topics"]} == {"apple", "bread", "candl", "drill"}


def test_the_order_of_the_texts_decides_nothing() -> None:
    texts, x, _ = points([50, 40, 30])
    order = np.random.default_rng(1).permutation(len(texts))
    assert fit(texts, x) == fit([texts[i] for i in order], x[order])


def test_a_share_is_far_from_every_topic() -> None:
    texts, x, _ = points([80, 80])
    strange = _unit(np.eye(DIM)[-4:])
    fitted = fit([*texts, *"wxyz"], np.vstack([x, strange]), k=2)
    assert topics.apply(fitted, [*"wxyz"], strange).topic.tolist() == [-1] * 4
    far = topics.apply(fitted, texts, x).topic == -1
    assert 0 < far.sum() <= 0.05 * 164


def test_topics_keep_their_ids_and_names_as_texts_come_and_go() -> None:
    texts, x, _ = points([60, 60, 60])
    first = fit(texts, x)
    more, y, _ = points([70, 40, 55], seed=9)
    second = fit(more, y, first)
    assert {t["id"]: t["name"] for t in first["topics"]} == {t["id"]: t["name"] for t in second["topics"]}
    assert second["radius"] == first["radius"] and second["next_id"] == first["next_id"]
    assert np.mean(np.array(ids(first, more, y)) == np.array(ids(second, more, y))) > 0.97


def test_texts_that_are_new_together_begin_a_topic_with_a_new_id() -> None:
    texts, x, _ = points([60, 60, 60])
    first = fit(texts, x)
    new, y, _ = points([40], seed=5, start=4)
    second = fit([*texts, *new], np.vstack([x, y]), first)
    assert {t["id"] for t in second["topics"]} == {t["id"] for t in first["topics"]} | {4}
    assert set(ids(second, new, y)) <= {4, 0}
    gone = fit(texts, x, second)
    again = fit([*texts, *new], np.vstack([x, y]), gone)
    assert max(t["id"] for t in again["topics"]) == 5  # an id of a topic that went is not given again


def test_other_vectors_are_other_topics() -> None:
    texts, x, _ = points([60, 60, 60])
    first = fit(texts, x)
    second = fit(texts, x[:, :12] / np.linalg.norm(x[:, :12], axis=1, keepdims=True), first)
    assert min(t["id"] for t in second["topics"]) == 4


def test_with_few_texts_last_nights_topics_stay() -> None:
    texts, x, _ = points([60, 60, 60])
    first = fit(texts, x)
    assert fit(texts[:10], x[:10], first) == first
    alone = fit(texts[:10], x[:10])
    assert len(alone["topics"]) == 1 and alone["topics"][0]["id"] == 1


@pytest.mark.parametrize("text", ["", "12 34", "的"])
def test_texts_without_terms_are_one_topic(text: str) -> None:
    for outliers, topic in ((0.0, 0), (0.05, -1)):
        fitted = fit([text] * 40, None, outliers=outliers)
        assert [t["name"] for t in fitted["topics"]] == ["topic 1"]
        assert topics.apply(fitted, [text, "new words"], None).topic.tolist() == [topic, topic]


def test_terms_alone_are_kept_while_texts_use_them() -> None:
    texts, _, of = points([60, 60, 60])
    first = fit(texts, None, outliers=0.0, k=3)
    assert adjusted_rand_score(of, topics.apply(first, texts, None).topic) == 1.0
    second = fit(texts[5:], None, first, outliers=0.0, k=3)
    assert second["space"] == first["space"]
    other = [text.replace("box", "case").replace("text", "word") for text in texts]
    third = fit(other, None, first, outliers=0.0, k=3)
    assert third["space"]["terms"] != first["space"]["terms"]  # and yet what is left of the words matches the topics
    assert sorted(t["id"] for t in third["topics"]) == [1, 2, 3]


def test_an_empty_night_after_none() -> None:
    fitted = fit([], np.zeros((0, DIM)))
    assert len(fitted["topics"]) == 1
    assert topics.apply(fitted, [], np.zeros((0, DIM))).topic.tolist() == []
