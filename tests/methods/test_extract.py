import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import extract
from bizllm.methods.extract import Budget

TOPICS = [
    "The battery of the phone dies within two hours of normal use.",
    "My dog likes to sleep on the old green sofa in the hall.",
    "Battery life of this phone is poor, it dies after two hours.",
    "The phone screen is bright but the battery dies so quickly.",
    "I bought the phone in June and the battery was poor at once.",
    "Shipping took three weeks and the parcel arrived torn open.",
    "The parcel was torn open because shipping took so many weeks.",
]


def unit(seed, n, dim=8):
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_centrality_is_the_mean_off_diagonal_cosine(n):
    vectors = unit(n, n)
    cosine = vectors @ vectors.T
    expected = [np.mean(np.delete(cosine[i], i)) if n > 1 else 1.0 for i in range(n)]
    np.testing.assert_allclose(extract.centrality(vectors), expected, atol=1e-6)


def test_ngram_vectors_equal_a_plain_count():
    texts = ["The cat sat.", "the CAT ran!", "a dog"]
    folded = [" the cat sat ", " the cat ran ", " a dog "]
    counts = [Counter(t[i : i + n] for n in (3, 4) for i in range(len(t) - n + 1)) for t in folded]
    df = Counter(gram for count in counts for gram in count)
    weighted = [{g: math.log1p(c) * (math.log(4 / (1 + df[g])) + 1) for g, c in count.items()} for count in counts]
    norms = [math.sqrt(sum(v * v for v in w.values())) for w in weighted]
    expected = [
        [sum(a[g] * b.get(g, 0) for g in a) / (m * n) for b, n in zip(weighted, norms, strict=True)]
        for a, m in zip(weighted, norms, strict=True)
    ]
    vectors = extract.ngram_vectors(texts, (3, 4))
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=0.03)  # hashed: collisions blur a little


def test_ngram_vectors_of_nothing_are_zero():
    vectors = extract.ngram_vectors(["!!!", "", "字"], (1, 2))
    assert not vectors[:2].any() and np.linalg.norm(vectors[2]) == pytest.approx(1)


def test_the_main_topic_comes_first_and_the_second_pick_is_another():
    (one,), _ = extract.summarize(TOPICS, Budget(sentences=1))
    assert one in {0, 2, 3, 4}
    two, _ = extract.summarize(TOPICS, Budget(sentences=2))
    copies = [TOPICS[0]] * 3 + [TOPICS[5]]
    assert extract.summarize(copies, Budget(sentences=2))[0] == [0, 3]
    assert two == sorted(two) and len(two) == 2


def test_the_lead_counts_only_where_it_is_asked_for():
    found = [
        "The new kettle leaks, and it smells of smoke in all the kitchen.",
        "The new kettle leaks and smokes, " + "so take it back, " * 4,
    ]
    assert extract.summarize(found, Budget(sentences=1))[0] == [1]  # both equally central; the first is short
    assert extract.summarize(found, Budget(sentences=1), lead=True)[0] == [0]


def test_mmr_equals_a_loop_over_the_definition():
    vectors, relevance = unit(3, 12), np.random.default_rng(4).random(12)
    chosen = []
    while len(chosen) < 5:
        rest = [i for i in range(12) if i not in chosen]
        worth = {
            i: 0.7 * relevance[i] - 0.3 * max([float(vectors[i] @ vectors[j]) for j in chosen] + [0.0]) for i in rest
        }
        chosen.append(max(worth, key=worth.get))
    assert extract._choose(vectors, relevance, [1] * 12, Budget(sentences=5)) == chosen


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="abc中文 .", min_size=1, max_size=40), min_size=1, max_size=12), st.integers(1, 80))
def test_budgets_hold_and_coverage_is_a_share(found, chars):
    kept, coverage = extract.summarize(found, Budget(chars=chars))
    assert 0 <= coverage <= 1 and kept == sorted(set(kept)) and kept
    assert len(kept) == 1 or sum(len(found[i]) for i in kept) + len(kept) - 1 <= chars
    kept, _ = extract.summarize(found, Budget(sentences=3))
    assert 1 <= len(kept) <= 3


def test_very_many_sentences_are_chosen_in_rounds():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(400)]
    many = [" ".join(rng.choice(words, 12)) for _ in range(2_500)] + ["the battery of the phone is weak again"] * 600
    kept, coverage = extract.summarize(many, Budget(sentences=3))
    assert any(i >= 2_500 for i in kept) and len({many[i] for i in kept}) == 3
    assert 0.15 < coverage < 1


def test_join_and_cut():
    assert extract.join(["One.", "Two."]) == "One. Two."
    assert extract.join(["很好。", "不错。"]) == "很好。不错。"
    assert extract.join(["很好。", "OK."]) == "很好。 OK."
    assert extract.cut("one two three", 9) == 7
    assert extract.cut("一二三四五", 3) == 3
