"""Against a plain sort of all cosines, and where a model gives nothing to rank by."""

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from bizllm.evaluate import retrieval


def test_scores_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    positives = rng.normal(size=(211, 16)) * rng.gamma(2.0, 3.0, (211, 1))
    anchors = positives / 5 + rng.normal(size=positives.shape)
    cosine = cosine_similarity(anchors, positives)
    own = np.arange(211)
    expected = {
        "recall_at_1": top_k_accuracy_score(own, cosine, k=1, labels=own),
        "recall_at_10": top_k_accuracy_score(own, cosine, k=10, labels=own),
        "mrr": label_ranking_average_precision_score(np.eye(211), cosine),  # one right answer: the reciprocal rank
    }
    assert 0.1 < expected["recall_at_1"] < 0.9
    assert retrieval.scores(anchors, positives) == pytest.approx(expected)
    monkeypatch.setattr(retrieval, "_CHUNK_CELLS", 1000)
    assert retrieval.scores(anchors.astype(np.float16), positives.astype(np.float16)) == pytest.approx(
        expected, abs=0.02
    ), "in chunks of four rows, from half precision"


def test_ties_count_against_us() -> None:
    positives = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert retrieval.ranks(positives, positives).tolist() == [2, 2, 1]


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_collapsed_model_ranks_last(value: float) -> None:
    vectors = np.full((50, 8), value)
    assert (retrieval.ranks(vectors, vectors) == 50).all()
