"""Overlap against brute force over Python sets; what is told of planted twins; bounds where rows share one mould."""

from __future__ import annotations

import functools
import random
import time
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods.documents import folded
from bizllm.methods.sentences import is_cjk
from bizllm.train.overlap import HASHES, Overlap, conflicts, find, rows_of_a_band
from bizllm.train.shingles import signatures


@functools.cache
def shingles(text: str) -> frozenset[str]:
    text = folded(text)
    width = 2 if is_cjk(text) else 5
    return frozenset(text[i : i + width] for i in range(max(1, len(text) - width + 1)))


def similarity(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def brute_force(parts: dict[str, list[str]], near: float) -> dict[tuple[str, str], dict[int, float]]:
    """Each part and other: row → similarity of its best twin."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for part, texts in parts.items():
        for other, others in parts.items():
            if part == other == "train":
                continue
            found[part, other] = {}
            for row, text in enumerate(texts):
                rivals = others[:row] if part == other else others
                best = max((similarity(text, rival) for rival in rivals if folded(rival)), default=0.0)
                if folded(text) and best >= near:
                    found[part, other][row] = best
    return found


def told(overlap: Overlap) -> dict[tuple[str, str], dict[int, float]]:
    return {(t.part, t.other): dict(zip(t.rows.tolist(), t.similarity.tolist(), strict=True)) for t in overlap.found}


def edited(text: str, rng: random.Random, edits: int) -> str:
    for _ in range(edits):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["x", "", text[at] * 2]) + text[at + 1 :]
    return text


def corpus(rows: int, seed: int, alphabet: Sequence[str], blank: str, length: int) -> list[str]:
    rng = random.Random(seed)
    return [blank.join(rng.choice(alphabet) for _ in range(rng.randint(3, length))) for _ in range(rows)]


ENGLISH_WORDS = [
    "card",
    "refund",
    "money",
    "where",
    "my",
    "the",
    "lost",
    "order",
    "when",
    "arrived",
    "payment",
    "bank",
    "fee",
]
CHINESE_CHARACTERS = list("这家外卖送得太慢而且味道也好下次再会点东西很新鲜服务态度包装干净推荐大家")


@pytest.mark.parametrize(("alphabet", "blank"), [(ENGLISH_WORDS, " "), (CHINESE_CHARACTERS, "")])
def test_twins_are_those_of_brute_force(alphabet: list[str], blank: str) -> None:
    rng = random.Random(5)
    train = corpus(150, 1, alphabet, blank, 20)
    test = corpus(60, 2, alphabet, blank, 20) + [edited(text, rng, edits) for text in train[:60] for edits in (0, 1, 3)]
    parts = {"train": train, "validation": [edited(text, rng, 2) for text in test[:80]], "test": test}
    expected, found = brute_force(parts, 0.8), told(find(parts, 0.8))
    assert found.keys() == expected.keys()
    missed = 0
    for pair, rows in expected.items():
        assert found[pair].keys() <= rows.keys()  # no false twin
        missed += len(rows.keys() - found[pair].keys())
        for row, value in found[pair].items():
            assert value <= rows[row] + 1e-12
    total = sum(map(len, expected.values()))
    assert total > 200
    assert missed / total < 0.02


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=8), st.lists(st.text(max_size=12), max_size=8))
def test_any_text_is_folded_compared_and_never_told_falsely(train: list[str], test: list[str]) -> None:
    parts = {"train": train, "test": test}
    overlap = find(parts)
    for twins in overlap.found:
        for row, twin, value, exact in zip(twins.rows, twins.twins, twins.similarity, twins.exact, strict=True):
            one, other = parts[twins.part][row], parts[twins.other][twin]
            assert exact == (folded(one) == folded(other))
            assert value == pytest.approx(similarity(one, other)) and value >= 0.8
            assert twins.part != twins.other or twin < row
    same = {row for row, text in enumerate(train) if folded(text) and folded(text) in set(map(folded, test))}
    assert same <= set(overlap.drop().tolist())
    assert overlap.table().num_rows == sum(len(twins.rows) for twins in overlap.found)


def test_width_case_blanks_and_composition_are_folded() -> None:
    same = ["Ｃａｆé  ＬＡＴＴＥ", "café latte", unicodedata.normalize("NFD", "CAFÉ\n latte ")]
    assert len({folded(text) for text in same}) == 1
    twins = find({"train": same[:1], "test": same[1:]}).between("test", "train")
    assert twins.exact.all() and twins.rows.tolist() == [0, 1] and twins.twins.tolist() == [0, 0]


def test_what_is_told_of_planted_rows() -> None:
    text = "I was charged twice for one and the same card payment in the shop yesterday"
    parts = {
        "train": ["something else entirely", text, "of validation only", text.upper(), ""],
        "validation": ["of validation only", "", "and a row of its own"],
        "test": ["unheard of", text + "!", text + "!", text, ""],
    }
    overlap = find(parts)
    assert overlap.drop().tolist() == [1, 2, 3]
    assert overlap.drop("validation").tolist() == []
    assert overlap.between("test", "test").rows.tolist() == [2, 3]
    counts = {(c["part"], c["other"]): (c["exact"], c["near"], c["share"]) for c in overlap.counts()}
    assert counts["train", "test"] == (2, 0, 0.4)
    assert counts["test", "train"] == (1, 2, 0.6)
    assert counts["test", "test"] == (1, 1, 0.4)
    assert counts["validation", "train"] == (1, 0, pytest.approx(1 / 3))
    assert ("train", "train") not in counts
    assert not any(text in str(entry) for entry in overlap.counts())


def test_parts_may_be_empty() -> None:
    assert find({"train": [], "test": []}).drop().tolist() == []
    assert find({"train": ["a"]}).counts() == []


def test_signatures_agree_as_often_as_the_sets_are_alike() -> None:
    train = corpus(400, 7, ENGLISH_WORDS, " ", 12)
    rng = random.Random(1)
    pairs = [(text, edited(text, rng, rng.randint(1, 4))) for text in train]
    pairs = [(folded(a), folded(b)) for a, b in pairs if folded(b)]
    one, other = (signatures(list(side), 512) for side in zip(*pairs, strict=True))
    estimate = (one == other).mean(axis=1)
    exact = np.array([similarity(a, b) for a, b in pairs])
    error = (estimate - exact) / np.sqrt(np.maximum(exact * (1 - exact), 0.02) / 512)
    assert abs(error.mean()) < 0.3  # unbiased
    assert error.std() == pytest.approx(1.0, abs=0.25)  # and as exact as the binomial allows


@pytest.mark.parametrize("near", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_catch_pairs_at_the_threshold_and_few_far_below(near: float) -> None:
    width = rows_of_a_band(near)
    bands = HASHES // width
    assert 1 - (1 - near**width) ** bands >= 0.99
    assert 1 - (1 - near ** (width + 1)) ** (HASHES // (width + 1)) < 0.99 or near == 1.0  # none is more selective


def test_rows_of_one_mould_stay_bounded() -> None:
    rng = random.Random(3)
    rows = [
        f"Dear customer, your order {rng.randint(10**6, 10**7)} will arrive at your door soon" for _ in range(12_000)
    ]
    start = time.perf_counter()
    overlap = find({"train": rows[:10_000], "test": rows[10_000:]}, near=0.7)
    assert time.perf_counter() - start < 20  # 20 million pairs are 2 s; all of them would be minutes
    assert overlap.between("test", "train").counts()["share"] > 0.9


def test_conflicts_are_equal_texts_with_different_labels() -> None:
    texts = ["Lost card", "lost  CARD", "top up", "Top Up", "fee", "lost card"]
    assert conflicts(texts, ["lost", "stolen", "top", "top", "fee", "lost"]) == [[0, 1, 5]]
    assert conflicts(texts, [1.0, 1.0, 2.0, 3.0, 0.0, 1.0]) == [[2, 3]]
