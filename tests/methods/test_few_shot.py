"""Labels from a few texts: what is learned, what it weighs, and that its probabilities mean something."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bizllm.methods import few_shot
from bizllm.methods.few_shot import FewShot

TOPICS = {
    "delivery": "parcel courier late box address van",
    "invoice": "bill charge price tax amount paid",
    "refund": "money back return cancel broken wrong",
}
FILLERS = ["the", "a", "my", "was", "is", "and", "with", "it", "please", "this", "for", "on"]
NAMES = [*TOPICS]


def texts(rows: int, seed: int = 0, unsure: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Fillers with two words of a topic; a share `unsure` has words of another topic than its label."""
    rng = random.Random(seed)
    made, truth = [], []
    for i in range(rows):
        topic = i % len(NAMES)
        truth.append(topic)
        if rng.random() < unsure:
            topic = rng.randrange(len(NAMES))
        words = rng.choices(FILLERS, k=5) + rng.choices(TOPICS[NAMES[topic]].split(), k=2)
        rng.shuffle(words)
        made.append(" ".join(words))
    return made, np.array(truth)


def vectors(said: list[str], seed: int = 0, noise: float = 0.3) -> np.ndarray:
    """What an encoder might give: a direction for each topic's words, and noise."""
    rng = np.random.default_rng(seed)
    directions = np.eye(16)[: len(NAMES)]
    counts = np.array([[sum(word in TOPICS[n].split() for word in text.split()) for n in NAMES] for text in said])
    found = counts @ directions + noise * rng.standard_normal((len(said), 16))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def right(model: FewShot, said: list[str], truth: np.ndarray, seen: np.ndarray | None) -> float:
    return float((model.probabilities(said, seen).argmax(1) == truth).mean())


@pytest.mark.parametrize("encoded", [False, True])
def test_unseen_texts_get_their_labels(encoded: bool) -> None:
    (known, truth), (asked, expected) = texts(60), texts(300, 1)
    model = few_shot.learn(known, truth, NAMES, vectors(known) if encoded else None)
    assert right(model, asked, expected, vectors(asked, 1) if encoded else None) > 0.95
    assert model.threshold is not None and 0 < model.threshold < 1


def test_an_encoder_that_reads_nothing_has_no_say() -> None:
    known, truth = texts(60)
    asked, expected = texts(300, 1)
    model = few_shot.learn(known, truth, NAMES, vectors(known, noise=1e6))
    by_words = model.probabilities(asked, np.zeros((300, 16), np.float32))
    by_both = model.probabilities(asked, vectors(asked, noise=1e6))
    assert np.abs(by_both - by_words).max() < 0.05 and (by_both.argmax(1) == expected).mean() > 0.9


def test_words_that_say_nothing_have_no_say() -> None:
    known, truth = texts(90)
    seen = vectors(known)
    rng = random.Random(0)
    blind = [" ".join(rng.choices(FILLERS, k=6)) for _ in known]
    model = few_shot.learn(blind, truth, NAMES, seen)
    asked, expected = texts(300, 1)
    found, plain = (model.probabilities(said, vectors(asked, 1)) for said in (blind[:1] * 300, [""] * 300))
    assert np.abs(found - plain).max() < 0.05 and (found.argmax(1) == expected).mean() > 0.95


def test_probabilities_are_calibrated_on_texts_that_were_not_learned_from() -> None:
    """Where a third of the labels are chance, it is not surer than it is right."""
    known, truth = texts(400, unsure=0.5)
    asked, expected = texts(1000, 1, unsure=0.5)
    found = few_shot.learn(known, truth, NAMES, None).probabilities(asked, None)
    sure = found.max(1).mean()
    assert abs(sure - (found.argmax(1) == expected).mean()) < 0.07


def test_one_text_a_label_is_enough_to_begin() -> None:
    known = [f"the {words} please" for words in TOPICS.values()]
    asked, expected = texts(300, 1)
    model = few_shot.learn(known, np.arange(3), NAMES, vectors(known))
    assert model.threshold is None
    assert right(model, asked, expected, vectors(asked, 1)) > 0.9


def test_several_labels_a_text() -> None:
    one, first = texts(90, 2)
    other, second = texts(90, 3)
    order = np.random.default_rng(0).permutation(90)
    both = [f"{a} {other[i]}" for a, i in zip(one, order, strict=True)]
    truth = np.zeros((90, 3), bool)
    truth[np.arange(90), first] = truth[np.arange(90), second[order]] = True
    model = few_shot.learn(both[:60], truth[:60], NAMES, None)
    assert model.several and model.threshold is not None
    given = model.probabilities(both[60:], None) >= model.threshold
    assert (given == truth[60:]).mean() > 0.9


def test_what_was_learned_is_the_same_when_it_comes_back() -> None:
    known, truth = texts(30)
    known[0] = "快递晚了"
    asked, seen = texts(20, 1)[0], vectors(texts(20, 1)[0])
    model = few_shot.learn(known, truth, NAMES, vectors(known, noise=1.0))
    assert model.dense is not None and model.sparse is not None, "both have a say"
    back = FewShot.of(model.state())
    np.testing.assert_array_equal(back.probabilities(asked, seen), model.probabilities(asked, seen))
    assert (back.names, back.threshold, back.several) == (model.names, model.threshold, model.several)


def test_the_order_of_the_texts_changes_little() -> None:
    known, truth = texts(60)
    order = np.random.default_rng(1).permutation(60)
    asked, expected = texts(300, 1)
    for which in (np.arange(60), order):
        model = few_shot.learn([known[i] for i in which], truth[which], NAMES, None)
        assert right(model, asked, expected, None) > 0.95


def test_descriptions_alone_give_the_nearest_label() -> None:
    described = vectors(list(TOPICS.values()), noise=0.0)
    asked, expected = texts(300, 1)
    model = few_shot.of_descriptions(NAMES, described)
    assert right(model, asked, expected, vectors(asked, 1)) > 0.95 and model.threshold is None
