from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from bizllm.methods import confidence
from bizllm.methods.retrieval import NONE, Index

INDEX = Index.build(["a refund takes five days", "a parcel takes three days", "opening hours of shops"])


def test_the_clearer_the_hit_the_surer() -> None:
    hits = INDEX.search(["refund five days", "days", "parcel or refund", "xyz"], None, 2)
    sure = confidence.of(hits)
    assert sure[0] > sure[2] > sure[3] == 0.0 and sure[0] > sure[1]
    assert hits.ids[3, 0] == NONE
    assert ((sure >= 0) & (sure <= 1)).all()
    assert confidence.signs(INDEX.search(["refund"], None, 1))[0, 2] == 1.0, "no second hit: all the way ahead"


def test_learned_weights_say_how_often_a_hit_is_right() -> None:
    rng = np.random.default_rng(1)
    found = rng.random((3000, 3))
    truth = 1 / (1 + np.exp(-(-3 + 4 * found[:, 0] + 2 * found[:, 2])))
    right = rng.random(3000) < truth
    weights = confidence.fit(found, right)
    assert weights is not None
    said = confidence.logistic(found, weights)
    assert np.abs(said - truth).mean() < 0.03
    assert log_loss(right, said) < log_loss(right, np.full(3000, right.mean()))


@pytest.mark.parametrize("right", [[True] * 40, [False] * 40, [True, False] * 14])
def test_what_tells_nothing_is_not_learned_from(right: list[bool]) -> None:
    assert confidence.fit(np.zeros((len(right), 3)), np.array(right)) is None
