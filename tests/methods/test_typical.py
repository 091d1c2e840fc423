from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from bizllm.methods.typical import Likeness, weights_of


def test_the_odd_one_out_is_never_typical() -> None:
    replies = [
        "we send a new lamp today",
        "sorry, we send you a new lamp",
        "please call the police",
        "a new lamp is sent",
    ]
    agreed = Likeness.build(replies).agreement(np.arange(4), np.full(4, 0.25))
    assert int(agreed.argmin()) == 2 and int(agreed.argmax()) in (0, 1)
    chinese = Likeness.build(["请重启路由器", "麻烦您重启一下路由器", "今天下雨"])
    assert int(chinese.agreement(np.arange(3), np.full(3, 1 / 3)).argmin()) == 2


def test_agreement_is_the_weighted_mean_of_cosines() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]])
    weights = np.array([0.5, 0.3, 0.2])
    expected = [0.5 + 0.3 * 0.6, 0.5 * 0.6 + 0.3 + 0.2 * 0.8, 0.3 * 0.8 + 0.2]
    assert Likeness(csr_array(vectors)).agreement(np.arange(3), weights) == pytest.approx(expected)


def test_vectors_have_half_a_say_where_both_texts_have_one() -> None:
    terms = csr_array(np.array([[1.0, 0], [0, 1], [1, 0]]))
    alike = Likeness(terms, np.array([[1, 0], [0.6, 0.8], [0, 0]], np.float32))
    every = np.arange(3)
    np.testing.assert_allclose(alike.between(every, every), [[1, 0.3, 1], [0.3, 1, 0], [1, 0, 1]], atol=1e-6)


def test_terms_have_length_one_but_for_texts_without_any() -> None:
    terms = Likeness.build(["a b", "b c d", "!"]).terms
    assert np.asarray(np.sqrt((terms * terms).sum(axis=1))).ravel() == pytest.approx([1, 1, 0])


def test_half_as_near_counts_a_quarter() -> None:
    assert weights_of(np.array([0.8, 0.4], np.float32)) == pytest.approx([0.8, 0.2])
