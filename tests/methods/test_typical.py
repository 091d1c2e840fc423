from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from bizllm.methods import typical


def test_the_odd_one_out_is_never_typical() -> None:
    replies = [
        "we send a new lamp today",
        "sorry, we send you a new lamp",
        "please call the police",
        "a new lamp is sent",
    ]
    agreed = typical.agreement(typical.term_vectors(replies), np.full(4, 0.25))
    assert int(agreed.argmin()) == 2 and int(agreed.argmax()) in (0, 1)
    chinese = typical.term_vectors(["请重启路由器", "麻烦您重启一下路由器", "今天下雨"])
    assert int(typical.agreement(chinese, np.full(3, 1 / 3)).argmin()) == 2


def test_agreement_is_the_weighted_mean_of_cosines() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]])
    weights = np.array([0.5, 0.3, 0.2])
    expected = [0.5 + 0.3 * 0.6, 0.5 * 0.6 + 0.3 + 0.2 * 0.8, 0.3 * 0.8 + 0.2]
    assert typical.agreement(csr_array(vectors), weights) == pytest.approx(expected)


def test_vectors_have_length_one_but_for_texts_without_terms() -> None:
    vectors = typical.term_vectors(["a b", "b c d", "!"])
    lengths = np.sqrt((vectors * vectors).sum(axis=1))
    assert np.asarray(lengths).ravel() == pytest.approx([1, 1, 0])


def test_half_as_near_counts_a_quarter() -> None:
    assert typical.weights_of(np.array([0.8, 0.4], np.float32)) == pytest.approx([0.8, 0.2])
