from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.infer.learned import load, to_bytes
from bizllm.methods import retrieval
from bizllm.methods.retrieval import NONE, Index, Lexical, Meaning, best
from bizllm.methods.search_terms import terms

TEXTS = [
    "A refund takes five working days.",
    "Parcels arrive within three days; couriers call before.",
    "Refunds of vouchers are not possible, refunds of parcels are.",
    "退款需要五个工作日到账。",
    "包裹三天内送达，快递员会先打电话。",
    "...",
]


def test_terms_of_two_scripts() -> None:
    assert terms("Policies, REFUNDS and glasses' gas") == ["policy", "refund", "and", "glasse", "gas"]
    assert terms("退款ＡＢ到账") == ["退", "款", "退款", "ab", "a", "b", "ab", "到", "账", "到账"]
    assert terms("see 退款 for more of what is told there") == [
        *terms("see"),
        "退",
        "款",
        "退款",
        *terms("for more of what is told there"),
    ]
    assert terms("buses need 3 x-rays") == ["buse", "need", "3", "x", "ray"]
    assert terms(" !? ") == []


def bm25(query: str, texts: list[str], k1: float = 0.9, b: float = 0.5) -> list[float]:
    """By the formula (Robertson and Zaragoza 2009, section 3.3; Lucene's idf), as a share of its bound."""
    documents = [Counter(terms(text)) for text in texts]
    mean = sum(sum(d.values()) for d in documents) / len(documents)

    def rarity(term: str) -> float:
        having = sum(term in d for d in documents)
        return math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))

    asked = set(terms(query))
    bound = sum(map(rarity, asked))
    scores = []
    for d in documents:
        room = k1 * (1 - b + b * sum(d.values()) / mean)
        scores.append(sum(rarity(t) * d[t] / (d[t] + room) for t in asked) / max(bound, 1e-6))
    return scores


@pytest.mark.parametrize(
    "query", ["refund of parcels", "when do parcels arrive, parcels?", "退款几天到账", "xyzzy", "!"]
)
def test_lexical_scores_are_bm25(query: str) -> None:
    np.testing.assert_allclose(Lexical.build(TEXTS).shares([query])[0], bm25(query, TEXTS), rtol=1e-4, atol=1e-6)


def test_titles_count_more() -> None:
    index = Index.build(["nothing of use here", "nothing but a refund"], titles=["Refund", ""])
    assert index.search(["refund"], None, 2).ids.tolist() == [[0, 1]]
    told = Lexical.build([f"{TEXTS[0]} Refund Refund"])
    assert Lexical.build([TEXTS[0]], ["Refund"]).shares(["refund"]) == pytest.approx(told.shares(["refund"]))


def test_ties_go_by_place_and_what_has_nothing_in_common_is_no_hit() -> None:
    hits = Index.build(["same words", "other", "same words", "same words"]).search(["same words", "", "new"], None, 2)
    assert hits.ids.tolist() == [[0, 2], [NONE, NONE], [NONE, NONE]]
    assert hits.scores[0, 0] == hits.scores[0, 1] > 0 and not hits.scores[1:].any()
    assert Index.build(["a"]).search([], None, 3).ids.shape == (0, 3)
    assert Index.build(["!", "?"]).search(["!"], None, 3).ids.tolist() == [[NONE] * 3]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6), min_size=1, max_size=4))
def test_best_is_a_stable_sort(rows: list[list[float]]) -> None:
    width = min(map(len, rows))
    scores = np.array([row[:width] for row in rows], np.float32)
    for k in (1, 2, 7):
        for found, row in zip(best(scores, k).tolist(), scores.tolist(), strict=True):
            expected = [i for i in sorted(range(width), key=lambda i: -row[i]) if row[i] > 0][:k]
            assert found == expected + [NONE] * (k - len(expected))


def test_vectors_and_terms_in_one_score() -> None:
    """Two parts of document 0, one of 2, none of 1: by hand."""
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    meaning = Meaning.build(vectors, np.array([0, 0, 2]))
    index = Index(Lexical.build(["refund", "parcel", "refund parcel"]), meaning)
    asked = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    hits = index.search(["parcel", "parcel"], asked, 3)
    whole = 1 / math.sqrt(2)  # of the mean of document 0's parts
    cosines = {0: (2 * 1 + whole) / 3, 1: 0.0, 2: 0.6}
    shares = bm25("parcel", ["refund", "parcel", "refund parcel"])
    expected = {i: (shares[i] + 2 * cosines[i]) / 3 for i in range(3)}
    order = sorted(expected, key=lambda i: -expected[i])
    assert hits.ids[0].tolist() == order
    assert hits.scores[0] == pytest.approx([expected[i] for i in order], abs=1e-5)
    assert hits.meaning[0] == pytest.approx([cosines[i] for i in order], abs=1e-5)
    assert hits.ids[1].tolist() == [1, 2, NONE], "a query that was not read goes by its terms"
    assert hits.scores[1, 0] == pytest.approx(shares[1], abs=1e-5)


def test_a_title_moves_the_vectors_of_its_parts() -> None:
    vectors, title = np.array([[1, 0], [1, 0]], np.float32), np.array([[0, 1], [0, 0]], np.float32)
    mixed = Meaning.build(vectors, titles=title).vectors
    np.testing.assert_allclose(mixed, [[2 / math.sqrt(5), 1 / math.sqrt(5)], [1, 0]], rtol=1e-6)


def test_one_conversation_never_meets_itself() -> None:
    index = Index.build(["same words", "same words", "same words"])
    apart = (np.array([7, -2]), np.array([7, 7, -1]))
    assert index.search(["same words", "same words"], None, 3, apart).ids.tolist() == [[2, NONE, NONE], [0, 1, 2]]


def test_what_surrounds_counts_a_fifth() -> None:
    texts, around = ["yes please", "yes please"], ["cancel the order", "a new kettle"]
    index = Index.of(Index(Lexical.build(texts), context=Lexical.build(around)).state())
    hits = index.search(["yes", "yes"], None, 2, None, ["the kettle", ""])
    own, other = bm25("yes", texts), bm25("the kettle", around)
    expected = sorted(((o + 0.2 * c) / 1.2 for o, c in zip(own, other, strict=True)), reverse=True)
    assert hits.ids.tolist()[0] == [1, 0] if other[1] > other[0] else [0, 1]
    assert hits.scores[0] == pytest.approx(expected, abs=1e-5)
    assert hits.scores[1] == pytest.approx([o / 1.2 for o in own], abs=1e-5)


def test_neither_batches_nor_company_change_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(TEXTS), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index.build(TEXTS, vectors)
    whole = index.search(TEXTS, vectors, 4)
    monkeypatch.setattr(retrieval, "_CELLS", 7)
    alone = index.search(TEXTS, vectors, 4)
    for name in ("ids", "scores", "lexical", "meaning"):
        np.testing.assert_allclose(getattr(whole, name), getattr(alone, name), atol=2e-6)
    assert whole.ids.tolist() == alone.ids.tolist()


def test_an_index_is_kept_as_plain_arrays(tmp_path_factory: pytest.TempPathFactory) -> None:
    index = Index.build(TEXTS, np.eye(len(TEXTS), dtype=np.float32))
    file = tmp_path_factory.mktemp("index") / "learned.safetensors"
    file.write_bytes(to_bytes(index.state()))
    again = Index.of(load(str(file)))
    for name, asked in (("ids", None), ("scores", np.eye(len(TEXTS), dtype=np.float32))):
        one, other = index.search(TEXTS, asked, 3), again.search(TEXTS, asked, 3)
        assert np.array_equal(getattr(one, name), getattr(other, name))
