"""Against scikit-learn and scipy, and by simulation: intervals that cover, and equal models that are not promoted."""

import json
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from bizllm.evaluate import resample


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 9))
def test_macro_f1_is_that_of_scikit_learn(seed: int, n: int, k: int) -> None:
    truth, predicted = np.random.default_rng(seed).integers(0, k, (2, n))
    assert resample.macro_f1(truth, predicted, k) == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert resample.accuracy(truth, predicted) == np.mean(truth == predicted)


def test_interval_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(2.0, 1.0, 200)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert resample.interval(np.mean, [values], samples=4000) == pytest.approx(tuple(expected), abs=0.02)
    narrow = resample.interval(np.mean, [values], confidence=0.5)
    assert expected.low < narrow[0] < values.mean() < narrow[1] < expected.high


def test_interval_covers_the_true_accuracy_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        right = rng.random(150) < 0.8
        low, high = resample.interval(np.mean, [right], samples=200, confidence=0.9, seed=trial)
        covered += low <= 0.8 <= high
    assert stats.binomtest(covered, 300, 0.88).pvalue > 0.001  # a little under 0.9: 200 samples, and whole rows


def test_interval_keeps_rows_together_and_leaves_out_samples_without_a_score() -> None:
    truth = np.arange(30) % 3
    assert resample.interval(partial(resample.macro_f1, k=3), [truth, truth]) == (1.0, 1.0)

    def half_defined(values: np.ndarray) -> float:
        return float(values.mean()) if values.mean() > 0.5 else float("nan")

    low, high = resample.interval(half_defined, [truth == 0])
    assert 0.5 < low <= high
    assert np.isnan(resample.interval(lambda _: float("nan"), [truth])).all()


def test_a_thousand_samples_of_3000_rows_and_77_classes_are_quick() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 77, 3000)
    predicted = np.where(rng.random(3000) < 0.9, truth, rng.integers(0, 77, 3000))
    start = time.process_time()
    low, high = resample.interval(partial(resample.macro_f1, k=77), [truth, predicted])
    assert time.process_time() - start < 5.0
    assert 0.87 < low < 0.9 < high < 0.93


def rivals(rng: np.random.Generator, n: int, differ: float, win: float) -> tuple[np.ndarray, np.ndarray]:
    """Two models of about 80 % accuracy against a truth of zeros; where they differ the first is right with `win`."""
    same = rng.random(n) < 0.2
    apart, won = rng.random(n) < differ, rng.random(n) < win
    return np.where(apart, ~won, same).astype(int), np.where(apart, won, same).astype(int)


@pytest.mark.parametrize(("n", "differ"), [(60, 0.05), (200, 0.1)])
def test_equal_models_are_rarely_promoted(n: int, differ: float) -> None:
    rng = np.random.default_rng(7)
    promoted, trials = 0, 250
    for trial in range(trials):
        ours, theirs = rivals(rng, n, differ, 0.5)
        comparison = resample.paired(resample.accuracy, np.zeros(n, int), ours, theirs, samples=200, seed=trial)
        promoted += resample.decide(comparison, 0.0, 0.95)[0]
    assert stats.binomtest(promoted, trials, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("won", "confidence"), [(4, 0.95), (5, 0.99)])
def test_a_few_rows_are_no_proof_though_the_bootstrap_alone_would_take_them(won: int, confidence: float) -> None:
    truth = np.zeros(1000, int)
    champion = (np.arange(1000) < 100).astype(int)
    challenger = (np.arange(1000) < 100 - won).astype(int)
    comparison = resample.paired(resample.accuracy, truth, challenger, champion, confidence=confidence)
    assert comparison.low > 0
    sign_test = stats.binomtest(won, won, 0.5, alternative="greater").pvalue
    assert comparison.p_value == pytest.approx(sign_test, abs=0.01)
    promoted, reason = resample.decide(comparison, 0.0, confidence)
    assert not promoted
    assert "equal models" in reason


def test_a_better_model_is_promoted_only_past_the_gain_asked_for() -> None:
    ours, theirs = rivals(np.random.default_rng(1), 2000, 0.2, 0.7)
    comparison = resample.paired(resample.accuracy, np.zeros(2000, int), ours, theirs)
    assert comparison.gain == pytest.approx(0.08, abs=0.02)
    assert comparison.low < comparison.gain < comparison.high
    assert resample.decide(comparison, 0.0, 0.95)[0]
    assert resample.decide(comparison, 0.04, 0.95)[0]
    promoted, reason = resample.decide(comparison, comparison.low, 0.95)
    assert not promoted, "the bound must be strictly greater"
    assert "2,000 rows" in reason
    assert not resample.decide(comparison, comparison.low - 1e-9, 0.99)[0], "more confidence asks for more"


def test_the_p_value_is_that_of_scipys_permutation_test() -> None:
    ours, theirs = rivals(np.random.default_rng(3), 120, 0.2, 0.65)
    comparison = resample.paired(resample.accuracy, np.zeros(120, int), ours, theirs, samples=4000)
    expected = stats.permutation_test(
        (ours == 0, theirs == 0),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=4000,
        alternative="greater",
        rng=1,
    ).pvalue
    assert 0.01 < expected < 0.5
    assert comparison.p_value == pytest.approx(expected, abs=0.03)


def test_a_model_is_never_better_than_itself() -> None:
    predicted = np.random.default_rng(0).integers(0, 5, 300)
    truth = np.random.default_rng(1).integers(0, 5, 300)
    comparison = resample.paired(partial(resample.macro_f1, k=5), truth, predicted, predicted)
    assert (comparison.gain, comparison.low, comparison.high, comparison.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert not resample.decide(comparison, 0.0, 0.95)[0]
    assert resample.decide(comparison, -0.01, 0.95)[0], "allowed to be a little worse, it is let in"


def test_of_losses_the_smaller_is_the_gain() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 3))
    good, bad = truth + 0.1 * rng.normal(size=truth.shape), truth + rng.normal(size=truth.shape)

    def mae(truth: np.ndarray, predicted: np.ndarray) -> float:
        return float(np.abs(truth - predicted).mean())

    comparison = resample.paired(mae, truth, good, bad, higher_is_better=False)
    assert comparison.challenger < comparison.champion
    assert comparison.gain == pytest.approx(comparison.champion - comparison.challenger)
    assert resample.decide(comparison, 0.0, 0.95)[0]
    assert not resample.decide(resample.paired(mae, truth, bad, good, higher_is_better=False), 0.0, 0.95)[0]


def test_a_score_that_is_no_number_is_refused() -> None:
    truth = np.zeros(20)
    broken = np.full(20, np.nan)
    comparison = resample.paired(lambda t, p: float(np.mean(t - p)), truth, broken, truth)
    promoted, reason = resample.decide(comparison, 0.0, 0.95)
    assert not promoted
    assert "no number" in reason


def test_the_summary_fits_a_result_file_and_is_the_same_every_time() -> None:
    ours, theirs = rivals(np.random.default_rng(1), 100, 0.2, 0.7)
    first, again = (resample.paired(resample.accuracy, np.zeros(100, int), ours, theirs, samples=100) for _ in "ab")
    assert json.loads(json.dumps(first.summary())) == again.summary()
    assert set(first.summary()) == {"challenger", "champion", "gain", "low", "high", "p_value", "rows"}
