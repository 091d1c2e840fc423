"""Likeness of texts, against TF-IDF cosines of scikit-learn, and what an encoder can't read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from bizllm.methods import likeness
from bizllm.methods.likeness import Texts
from bizllm.models.load import ModelLoader

TEXTS = ["green tea in a pot", "a pot of black tea", "roses in the garden", "绿茶和茶壶", "花园里的月季", "!?", ""]


def test_few_texts_have_the_cosines_of_tf_idf() -> None:
    words = TEXTS[:3]
    vectors = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True).fit_transform(words)
    found = Texts.of(words, None)
    assert np.allclose(found.likeness(found), (vectors @ vectors.T).toarray(), atol=1e-5)


def test_texts_of_one_matter_are_alike_in_either_language() -> None:
    found = Texts.of([*TEXTS, "茶壶"], None)
    alike = found.likeness(found)
    assert alike[0, 1] > alike[0, 2] and alike[3, 7] > 0.2 > alike[4, 7]
    assert not alike[5].any() and not alike[6].any(), "without a word nothing is alike"
    assert alike.min() >= 0 and alike.max() <= 1


def test_many_texts_keep_their_neighbours() -> None:
    rng = np.random.default_rng(0)
    words = [[f"w{topic}x{i}" for i in range(30)] for topic in range(10)]
    topics = rng.integers(0, 10, 400)
    texts = [" ".join(rng.choice(words[topic], 12)) for topic in topics]
    found = likeness.latent(texts)
    assert found.shape == (400, likeness.DIMENSIONS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    alike = found @ found.T
    np.fill_diagonal(alike, -1)
    assert np.mean(topics[alike.argmax(axis=1)] == topics) > 0.99
    assert np.array_equal(found, likeness.latent(texts))


def test_an_encoder_has_no_say_on_what_it_cannot_read() -> None:
    encoder = ModelLoader().encoder("builtin:minilm")
    read = Texts.of(TEXTS[:5], encoder)
    assert read.vectors is not None
    assert read.vectors.any(axis=1).tolist() == [True, True, True, False, False]
    alone = Texts.of(TEXTS[:5], None)
    mixed, words = read.likeness(read), alone.likeness(alone)
    assert np.allclose(mixed[3:], words[3:]), "Chinese texts are compared by their words"
    vectors, _ = encoder.encode(TEXTS[:3])
    expected = (words[:3, :3] + np.maximum(vectors @ vectors.T, 0)) / 2
    assert np.allclose(mixed[:3, :3], expected, atol=1e-5)


def test_an_encoder_of_bytes_reads_everything() -> None:
    assert likeness.readable(TEXTS, SimpleNamespace(unk_token_id=None)).all()


@pytest.mark.parametrize("texts", [[], [""], ["tea"]])
def test_hardly_any_texts(texts: list[str]) -> None:
    found = Texts.of(texts, None)
    assert len(found) == len(texts) == len(found.likeness(found))
    again = Texts.from_state(found.state())
    assert np.array_equal(again.words, found.words) and again.vectors is None
