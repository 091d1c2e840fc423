"""Against scikit-learn's calibration curve and scipy's minimiser, by trying every threshold, and by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, log_loss

from bizllm.evaluate import calibration


def test_softmax_and_sigmoid_are_scipys_and_do_not_overflow() -> None:
    logits = np.random.default_rng(0).normal(0, 300, (20, 5)).astype(np.float32)
    np.testing.assert_allclose(
        calibration.softmax(logits, 1.5), softmax(logits.astype(float) / 1.5, axis=1), atol=1e-12
    )
    np.testing.assert_allclose(calibration.sigmoid(logits, 0.7), expit(logits.astype(float) / 0.7), atol=1e-12)


def test_ece_by_hand() -> None:
    # Two rows at 0.9, one of them right; two at 0.6, both right: (2 · 0.4 + 2 · 0.4) / 4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert calibration.ece(probabilities, np.array([0, 1, 0, 1])) == pytest.approx(0.4)
    assert calibration.ece(np.eye(3), np.array([0, 1, 2])) == 0.0


def test_reliability_is_scikit_learns_calibration_curve() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), 500)
    truth = rng.integers(0, 4, 500)
    right, sure = probabilities.argmax(axis=1) == truth, probabilities.max(axis=1)
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    table = calibration.reliability(probabilities, truth)
    assert [row["accuracy"] for row in table] == pytest.approx(list(accuracy))
    assert [row["confidence"] for row in table] == pytest.approx(list(confidence))
    assert sum(row["rows"] for row in table) == 500
    assert all(row["low"] < row["confidence"] <= row["high"] for row in table)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.2, 8.0))
def test_temperature_is_the_minimum_that_scipy_finds(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (400, 5))
    truth = np.array([rng.choice(5, p=row) for row in softmax(logits / 2.0, axis=1)])

    def loss(log_temperature: float) -> float:
        told = softmax(logits / np.exp(log_temperature), axis=1)
        # The row that is thought of: of any row's logits and any class.
        return (len(truth) * log_loss(truth, told, labels=range(5)) - np.log(told).mean()) / (len(truth) + 1)

    best = minimize_scalar(loss, bounds=np.log(calibration.TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    assert calibration.fit_temperature(logits, truth) == pytest.approx(np.exp(best.x), rel=1e-2)
    assert loss(np.log(calibration.fit_temperature(logits, truth))) <= best.fun + 1e-9


def test_temperature_finds_how_overconfident_the_logits_are_and_mends_the_ece() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (20_000, 4))
    truth = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    assert calibration.fit_temperature(3.0 * logits, truth) == pytest.approx(3.0, rel=0.05)
    assert calibration.ece(calibration.softmax(3.0 * logits, 1.0), truth) > 0.1
    assert calibration.ece(calibration.softmax(3.0 * logits, 3.0), truth) < 0.02


def test_temperature_of_labels_by_themselves() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (5_000, 4))
    truth = rng.random(logits.shape) < expit(logits)
    assert calibration.fit_temperature(2.0 * logits, truth) == pytest.approx(2.0, rel=0.05)


def test_temperature_stays_in_bounds_whatever_the_rows() -> None:
    separable = np.eye(3) * 5.0
    assert calibration.fit_temperature(separable, np.array([1, 2, 0])) == pytest.approx(20.0, rel=1e-6)


def test_a_few_rows_without_a_mistake_are_no_certainty() -> None:
    """Smoothed by 1 / (n + 1), three classes: the right one's share is what Platt's count gives."""
    n = 50
    truth = np.arange(n) % 3
    logits = np.eye(3)[truth] * 5.0
    told = calibration.softmax(logits, calibration.fit_temperature(logits, truth))
    assert told[np.arange(n), truth] == pytest.approx((n + 1 / 3) / (n + 1), abs=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200), st.sampled_from([0.0, 0.05, 0.1, 0.5]))
def test_out_of_scope_threshold_is_the_largest_that_keeps_its_share(seed: int, n: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), n).round(2)  # rounded, so that ties occur
    truth = rng.integers(0, 3, n)
    threshold = calibration.out_of_scope_threshold(probabilities, truth, share)
    sure = probabilities.max(axis=1)[probabilities.argmax(axis=1) == truth]
    if not len(sure):
        assert threshold == 0.0
        return
    assert (sure < threshold).mean() <= share + 1e-9
    assert (sure < np.nextafter(threshold, 2.0)).mean() > share


def test_out_of_scope_threshold_counts_rows_without_rounding_faults() -> None:
    probabilities = np.stack([np.arange(60, 80), np.arange(40, 20, -1)], axis=1) / 100
    assert calibration.out_of_scope_threshold(probabilities, np.zeros(20, int)) == 0.61  # one row of 20 is below


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 4))
def test_best_threshold_of_labels_beats_every_other(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) < 0.4
    probabilities = (0.4 * truth + 0.6 * rng.random((n, k))).round(1)  # ties

    def micro_f1(threshold: float) -> float:
        return float(f1_score(truth.ravel(), (probabilities >= threshold).ravel(), zero_division=0))

    threshold = calibration.best_threshold_multi_label(probabilities, truth)
    if truth.any():
        assert micro_f1(threshold) == pytest.approx(max(map(micro_f1, [*np.unique(probabilities), 0.0])))
    else:
        assert threshold == 0.5


def test_best_threshold_lies_between_the_probabilities() -> None:
    probabilities = np.array([[0.9, 0.2], [0.8, 0.1]])
    assert calibration.best_threshold_multi_label(probabilities, probabilities > 0.5) == pytest.approx(0.5)
