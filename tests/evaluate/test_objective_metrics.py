"""Names in the table are the names that the scores have."""

import numpy as np
import pytest

from bizllm.evaluate import classification, regression, retrieval, tags, texts
from bizllm.evaluate.objective_metrics import METRICS, default_metric

Y = np.random.default_rng(0).random((12, 3)) + np.arange(3)
Q = np.stack([Y - 1, Y, Y + 1], axis=-1)
TAGS = [["B-A", "O"]]
COMPUTED = {
    "classification": classification.scores(Y, np.arange(12) % 3),
    "pair": classification.scores(Y, np.arange(12) % 3),
    "multi_label": classification.multi_label_scores(Y, Y.round() > 1),
    "regression": regression.scores(Y, Y + 1, [np.arange(9.0)] * 12),
    "quantile": regression.quantile_scores(Q, Y, (0.1, 0.5, 0.9), [np.arange(9.0)] * 12),
    "token_classification": tags.scores(TAGS, TAGS),
    "embedding": retrieval.scores(Y, Y),
    "seq2seq": {**texts.rouge(["a"], ["a"]), "exact_match": texts.exact_match(["a"], ["a"])},
}


@pytest.mark.parametrize("objective", COMPUTED)
def test_every_score_is_named_and_every_name_scored(objective: str) -> None:
    numbers = {name for name, value in COMPUTED[objective].items() if isinstance(value, float)}
    assert numbers - {"coverage"} == set(METRICS[objective]) - {"loss"}


@pytest.mark.parametrize("objective", METRICS)
def test_every_objective_has_a_loss_and_a_default(objective: str) -> None:
    assert METRICS[objective]["loss"] is False
    assert default_metric(objective) in METRICS[objective]


def test_higher_is_better_exactly_where_a_perfect_prediction_scores_higher() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 200)
    perfect = classification.scores(np.eye(3)[truth] * 0.998 + 0.002 / 3, truth)
    guess = classification.scores(rng.dirichlet(np.ones(3), 200), truth)
    for name, higher in METRICS["classification"].items():
        if name != "loss":
            assert (perfect[name] > guess[name]) is higher
    close, far = (
        regression.scores(Y + 0.01, Y, [np.arange(9.0)] * 12),
        regression.scores(Y + 1, Y, [np.arange(9.0)] * 12),
    )
    for name in close:
        assert (close[name] > far[name]) is METRICS["regression"][name]
