"""What the pieces of a text add to its label: held against the probabilities alone, which know nothing of pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import attribution, few_shot, sentences
from bizllm.methods.attribution import NO_RIVAL, Weighed
from bizllm.methods.few_shot import FewShot

ENGLISH = {
    "delivery": "parcel courier late box address van",
    "invoice": "bill charge price tax amount paid",
    "refund": "money back return cancel broken wrong",
}
CHINESE = {"物流": "快递 包裹 晚了 送到 地址", "账单": "发票 金额 税费 价格 付款", "退款": "退钱 退货 取消 坏了 错了"}
FILLERS = {"delivery": "the a my was is and with it please this for on", "物流": "我的 是 和 请 这个 在 了 吗 呢 啊"}


def made(topics: dict[str, str], rows: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Fillers with two words of a topic, in any order."""
    rng, names = random.Random(seed), [*topics]
    fillers, blank = FILLERS[names[0]].split(), "" if "物流" in topics else " "
    texts = []
    for i in range(rows):
        words = rng.choices(fillers, k=6) + rng.sample(topics[names[i % 3]].split(), k=2)
        rng.shuffle(words)
        texts.append(blank.join(words))
    return texts, np.arange(rows) % 3


def encoded(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """What an encoder might give: a direction for each topic's words and noise that follows from the text."""
    rows = []
    for text in texts:
        counts = [sum(text.count(word) for word in words.split()) for words in ENGLISH.values()]
        noise = np.random.default_rng(abs(hash(text)) % 2**32 if text else 0).standard_normal(16) * 0.05
        noise[:3] += counts
        rows.append(noise / np.linalg.norm(noise))
    return np.array(rows, np.float32), np.array([len(text.split()) + 2 for text in texts])


def log_odds(model: FewShot, text: str, chosen: int, rival: int, vectors: np.ndarray | None = None) -> float:
    """Of the probabilities, which float32 holds to six digits."""
    likely = model.probabilities([text], vectors)[0].astype(np.float64)
    return float(np.log(likely[chosen] / (1 - likely[chosen] if rival == NO_RIVAL else likely[rival])))


@pytest.fixture(scope="module", params=["English", "Chinese"])
def by_ngrams(request: pytest.FixtureRequest) -> tuple[FewShot, list[str]]:
    topics = ENGLISH if request.param == "English" else CHINESE
    texts, truth = made(topics, 45, 0)
    return few_shot.learn(texts, truth, [*topics], None), made(topics, 60, 1)[0]


def top_two(model: FewShot, texts: list[str], vectors: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-model.probabilities(texts, vectors), axis=1)
    return order[:, 0], order[:, 1]


def test_ngrams_add_up_to_the_log_odds(by_ngrams: tuple[FewShot, list[str]]) -> None:
    model, asked = by_ngrams
    asked = [*asked, "ONE word!", "？？", "İstanbul 快递 late", "zzz"]
    chosen, rivals = top_two(model, asked)
    found, tokens = attribution.of_few_shot(model, asked, chosen, rivals, None)
    assert tokens == 0
    for text, weighed, one, other in zip(asked, found, chosen, rivals, strict=True):
        nothing = log_odds(model, "", one, other)  # the offsets alone
        expected = log_odds(model, text, one, other) - nothing
        assert weighed.weights.sum() == pytest.approx(expected, abs=2e-4 * (1 + abs(expected)))


def test_several_labels_have_odds_of_their_own() -> None:
    texts, truth = made(ENGLISH, 45, 0)
    both = [f"{a} {b}" for a, b in zip(texts, texts[1:] + texts[:1], strict=True)]
    holds = np.eye(3, dtype=bool)[truth] | np.eye(3, dtype=bool)[np.roll(truth, -1)]
    model = few_shot.learn([*texts, *both], np.vstack([np.eye(3, dtype=bool)[truth], holds]), [*ENGLISH], None)
    model = replace(model, temperature=20 * model.temperature)  # else the odds are beyond float32's digits
    asked = made(ENGLISH, 6, 2)[0]
    chosen = model.probabilities(asked, None).argmax(1)
    found, _ = attribution.of_few_shot(model, asked, chosen, np.full(6, NO_RIVAL), None)
    for text, weighed, one in zip(asked, found, chosen, strict=True):
        expected = log_odds(model, text, one, NO_RIVAL) - log_odds(model, "", one, NO_RIVAL)
        assert weighed.weights.sum() == pytest.approx(expected, abs=1e-3)


def test_of_vectors_a_piece_weighs_what_its_absence_costs() -> None:
    model = few_shot.of_descriptions([*ENGLISH], np.eye(16, dtype=np.float32)[:3], sharpness=4.0)
    asked = made(ENGLISH, 6, 1)[0]
    chosen, rivals = top_two(model, asked, encoded(asked)[0])
    found, tokens = attribution.of_few_shot(model, asked, chosen, rivals, encoded)
    read = 0
    for text, weighed, one, other in zip(asked, found, chosen, rivals, strict=True):
        whole = log_odds(model, text, one, other, encoded([text])[0])
        read += encoded([text])[1].sum()
        for (start, end), weight in zip(weighed.spans, weighed.weights, strict=True):
            less = text[:start] + text[end:]
            read += encoded([less])[1].sum()
            assert weight == pytest.approx(whole - log_odds(model, less, one, other, encoded([less])[0]), abs=1e-3)
    assert tokens == read


def test_both_views_add_up_piece_by_piece() -> None:
    texts, truth = made(ENGLISH, 45, 0)
    ngrams_alone = few_shot.learn(texts, truth, [*ENGLISH], None)
    dense = few_shot.of_descriptions([*ENGLISH], np.eye(16, dtype=np.float32)[:3]).dense
    model = replace(ngrams_alone, dense=dense)
    chosen, rivals = top_two(model, texts, encoded(texts)[0])
    parts = [ngrams_alone, replace(model, sparse=None, terms=None)]
    whole, *of_views = (attribution.of_few_shot(m, texts, chosen, rivals, encoded)[0] for m in (model, *parts))
    for found, ngrams, vectors in zip(whole, *of_views, strict=True):
        assert found.spans == ngrams.spans == vectors.spans
        np.testing.assert_allclose(found.weights, ngrams.weights + vectors.weights)


def test_without_the_words_named_the_label_is_less_likely(by_ngrams: tuple[FewShot, list[str]]) -> None:
    model, asked = by_ngrams
    chosen, rivals = top_two(model, asked)
    found, _ = attribution.of_few_shot(model, asked, chosen, rivals, None)
    likely, rng = model.probabilities(asked, None), random.Random(0)
    named_falls, random_falls = [], []
    for i, (text, weighed) in enumerate(zip(asked, found, strict=True)):
        named = [(start, end) for start, end, _ in weighed.strongest(text, 2)]
        others = rng.sample(weighed.spans, k=sum(len(sentences.words(text[start:end])) for start, end in named))
        for falls, spans in ((named_falls, named), (random_falls, others)):
            falls.append(likely[i, chosen[i]] - model.probabilities([erased(text, spans)], None)[0, chosen[i]])
    assert np.mean(named_falls) > 0.2 and np.mean(named_falls) > 2 * np.mean(random_falls)


def erased(text: str, spans: Sequence[tuple[int, int]]) -> str:
    gone = {i for start, end in spans for i in range(start, end)}
    return "".join(c for i, c in enumerate(text) if i not in gone)


def test_words_of_the_topic_are_named(by_ngrams: tuple[FewShot, list[str]]) -> None:
    model, asked = by_ngrams
    topics = ENGLISH if model.names[0] == "delivery" else CHINESE
    chosen, rivals = top_two(model, asked)
    found, _ = attribution.of_few_shot(model, asked, chosen, rivals, None)
    hits = 0
    for text, weighed, one in zip(asked, found, chosen, strict=True):
        start, end, weight = weighed.strongest(text, 1)[0]
        hits += any(word in text[start:end] for word in topics[model.names[one]].split())
        assert weight > 0
    assert hits >= 0.9 * len(asked)


# -- pieces, and which are told -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab '’.,!?\n。，漏水壶カ한é😀"), max_size=300), st.integers(1, 40))
def test_pieces_hold_all_but_white_space(text: str, most: int) -> None:
    for spans in (sentences.words(text), attribution.pieces(text, most)):
        assert all(start < end for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        held = {i for start, end in spans for i in range(start, end)}
        assert {i for i, c in enumerate(text) if not c.isspace()} <= held
    assert len(attribution.pieces(text, most)) <= most


def test_pieces_of_a_long_text_stay_within_its_sentences() -> None:
    text = "One two three four five six. Seven eight nine. " + "快递晚了三天。" * 2
    spans = attribution.pieces(text, 12)
    assert len(spans) <= 12
    told = [text[start:end] for start, end in spans]
    assert told[0].startswith("One") and not any("." in piece[:-1] or "。" in piece[:-1] for piece in told)
    assert attribution.pieces("One two.", 12) == sentences.words("One two.") == [(0, 3), (4, 7), (7, 8)]
    assert len(attribution.pieces("Yes. " * 100, 10)) == 10
    assert attribution.pieces("", 3) == attribution.pieces(" \n", 3) == []


def test_what_is_told() -> None:
    text = "我要退款了 don't pay!"
    spans = sentences.words(text)
    assert [text[start:end] for start, end in spans] == [*"我要退款了", "don't", "pay", "!"]
    weighed = Weighed(spans, np.array([0.01, -1.0, 2.0, 1.5, 0.1, 0.0, 0.5, 0.5]))
    told = weighed.strongest(text, 3)
    assert [(text[start:end], weight) for start, end, weight in told] == [("退款", 3.5), ("pay", 0.5), ("!", 0.5)]
    weighed = Weighed([(0, 1), (1, 2), (2, 3)], np.array([2.0, 1.0, 1.0 + 1e-7]))
    assert [start for start, _, _ in weighed.strongest("abc", 3)] == [0, 1, 2], "the last digits decide nothing"
    assert Weighed(spans, -np.ones(8)).strongest(text, 3) == [], "nothing carried it"
    assert Weighed([], np.zeros(0)).strongest("", 3) == []
