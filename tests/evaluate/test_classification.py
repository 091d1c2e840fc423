"""Against scikit-learn, and by hand where it has no such score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from bizllm.errors import RunError
from bizllm.evaluate import classification


def draw(seed: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something of the truth; some classes may be missing from either."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    probabilities = rng.dirichlet(np.ones(k), n)
    probabilities[np.arange(n), truth] += rng.random(n) * 0.5
    probabilities = probabilities.round(1) + 0.01  # ties
    return probabilities / probabilities.sum(axis=1, keepdims=True), truth


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 7), st.booleans())
def test_scores_are_those_of_scikit_learn(seed: int, n: int, k: int, weighted: bool) -> None:
    probabilities, truth = draw(seed, n, k)
    weights = np.random.default_rng(seed).random(n) + 0.1 if weighted else None
    predicted = probabilities.argmax(axis=1)
    scores = classification.scores(probabilities, truth, weights)
    w = {"sample_weight": weights}
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted, **w))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro", zero_division=0, **w))
    assert scores["weighted_f1"] == pytest.approx(
        sk.f1_score(truth, predicted, average="weighted", zero_division=0, **w)
    )
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted, **w), abs=1e-7)
    assert scores["log_loss"] == pytest.approx(sk.log_loss(truth, probabilities, labels=range(k), **w))
    if len(set(truth)) == k > 2:
        assert scores["roc_auc"] == pytest.approx(
            np.mean([sk.roc_auc_score(truth == c, probabilities[:, c], **w) for c in range(k)])
        )
    np.testing.assert_array_equal(
        classification.confusion(probabilities, truth, k), sk.confusion_matrix(truth, predicted, labels=range(k))
    )


def test_roc_auc_of_all_classes_is_scikit_learns_one_against_the_rest() -> None:
    probabilities, truth = draw(3, 300, 4)
    expected = sk.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert classification.scores(probabilities, truth)["roc_auc"] == pytest.approx(expected)
    second = probabilities[:, 1].round(3)
    both = np.stack([1 - second, second], axis=1)
    expected = sk.roc_auc_score(truth % 2, both[:, 1])
    assert classification.scores(both, truth % 2)["roc_auc"] == pytest.approx(expected)


def test_roc_auc_without_a_second_class_is_left_out_not_nan() -> None:
    scores = classification.scores(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 0]))
    assert "roc_auc" not in scores
    assert scores["accuracy"] == 0.5
    assert np.isnan(classification.metric("roc_auc")(np.array([0, 0]), np.array([[0.6, 0.4], [0.3, 0.7]])))


def test_a_weight_of_two_is_the_row_twice() -> None:
    probabilities, truth = draw(5, 50, 3)
    weights = np.where(np.arange(50) < 20, 2.0, 1.0)
    twice = np.concatenate([np.arange(50), np.arange(20)])
    weighted, repeated = (
        classification.scores(probabilities, truth, weights),
        classification.scores(probabilities[twice], truth[twice]),
    )
    assert weighted == pytest.approx(repeated)
    assert "ece" in weighted


def test_each_metric_alone_is_the_one_in_the_table() -> None:
    probabilities, truth = draw(8, 80, 5)
    for name, value in classification.scores(probabilities, truth).items():
        assert classification.metric(name)(truth, probabilities) == value


def test_rows_without_a_number_fail_with_their_count() -> None:
    probabilities, truth = draw(1, 10, 3)
    probabilities[4, 1] = np.nan
    with pytest.raises(RunError, match="1 of 10 rows"):
        classification.scores(probabilities, truth)
    with pytest.raises(RunError, match="1 of 10 rows"):
        classification.multi_label_scores(probabilities, np.ones((10, 3), bool))


def test_per_class_is_scikit_learns_report() -> None:
    probabilities, truth = draw(2, 120, 5)
    truth[truth == 4] = 3  # a class without support
    labels = ["refund", "delivery", "price", "退货", "other"]
    report = sk.classification_report(
        truth, probabilities.argmax(axis=1), labels=range(5), target_names=labels, output_dict=True, zero_division=0
    )
    table = classification.per_class(probabilities, truth, labels)
    assert [row["label"] for row in table] == labels
    for row in table:
        expected = report[row["label"]]
        assert row["support"] == expected["support"]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"])
        )


def test_worst_confusions_are_the_largest_mistakes_only() -> None:
    matrix = np.array([[90, 8, 2], [5, 40, 0], [0, 0, 0]])
    assert classification.worst_confusions(matrix, ["a", "b", "c"], most=2) == [
        {"truth": "a", "predicted": "b", "rows": 8, "share": 0.08},
        {"truth": "b", "predicted": "a", "rows": 5, "share": pytest.approx(5 / 45)},
    ]
    assert len(classification.worst_confusions(matrix, ["a", "b", "c"])) == 3
    assert matrix.trace() == 130, "the matrix is left as it was"


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 6), st.floats(0.1, 0.9))
def test_multi_label_scores_are_those_of_scikit_learn(seed: int, n: int, k: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) < 0.3
    probabilities = rng.random((n, k))
    given_ = probabilities >= threshold
    scores = classification.multi_label_scores(probabilities, truth, threshold)
    assert scores["micro_f1"] == pytest.approx(sk.f1_score(truth.ravel(), given_.ravel(), zero_division=0))
    assert scores["subset_accuracy"] == pytest.approx(sk.accuracy_score(truth, given_))
    assert scores["hamming_loss"] == pytest.approx(sk.hamming_loss(truth, given_))
    occurs = np.flatnonzero((truth | given_).any(axis=0))
    each = [sk.f1_score(truth[:, c], given_[:, c], zero_division=0) for c in occurs]
    assert scores["macro_f1"] == pytest.approx(np.mean(each) if each else 0.0)
    both = [c for c in range(k) if 0 < truth[:, c].sum() < n]
    if both:
        assert scores["roc_auc"] == pytest.approx(
            sk.roc_auc_score(truth[:, both], probabilities[:, both], average="macro")
        )
    else:
        assert "roc_auc" not in scores
