from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bizllm.methods import small_samples
from bizllm.methods.small_samples import Sums


def sums(values: list[float] | np.ndarray) -> Sums:
    v = np.asarray(values, float)
    return Sums(len(v), float(v.sum()), float((v**2).sum()))


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 10), (3, 10), (10, 10), (500, 1000)])
def test_share_intervals_are_wilsons(hits: int, n: int) -> None:
    found = small_samples.share_interval(hits, n, 0.95)
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert small_samples.share_interval(0, 0, 0.95) == (0.0, 1.0)


def test_of_many_it_is_students_and_welchs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 0.5, 4_000), rng.normal(0.12, 0.4, 3_000)
    low, high = small_samples.mean_interval(sums(a), 0.2, 0.95)
    expected = stats.t.interval(0.95, len(a) - 1, a.mean(), a.std(ddof=1) / len(a) ** 0.5)
    assert (low, high) == pytest.approx(expected, abs=1e-3)
    p = small_samples.mean_p(sums(a), sums(b), 0.2)
    assert p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, abs=5e-3)


def test_few_equal_scores_prove_nothing() -> None:
    three = sums([1.0, 1.0, 1.0])
    low, high = small_samples.mean_interval(three, 0.25, 0.95)
    assert high - low > 0.8
    assert small_samples.mean_p(three, sums([0.0] * 3), 0.25) > 0.01
    assert small_samples.mean_interval(sums([0.4]), 0.25, 0.95)[0] < 0


def test_chance_is_called_chance() -> None:
    """Means of 2 to 30 scores of one distribution: intervals cover, and p-values are small as often as they say."""
    rng = np.random.default_rng(1)
    small, covered = [], []
    for _ in range(1_500):
        a, b = (rng.choice([-0.8, 0.1, 0.7], rng.integers(2, 30)) for _ in range(2))
        usual = (sums(a) + sums(b)).spread / (len(a) + len(b) - 1)
        small.append(small_samples.mean_p(sums(a), sums(b), usual) < 0.05)
        low, high = small_samples.mean_interval(sums(a), usual, 0.95)
        covered.append(low <= 0.0 <= high)
    assert np.mean(small) < 0.065 and np.mean(covered) > 0.93


def test_share_differences() -> None:
    table = [[30, 70], [50, 50]]
    expected = stats.chi2_contingency(table, correction=False).pvalue  # the square of the same z
    assert small_samples.share_p(30, 100, 50, 100) == pytest.approx(expected)
    assert small_samples.share_p(0, 10, 0, 10) == 1.0
    assert np.isnan(small_samples.share_p(0, 0, 1, 2)) and np.isnan(small_samples.mean_p(Sums(), sums([1]), 1.0))


def test_adjusted_p_values_are_scipys() -> None:
    p = [0.001, 0.04, 0.03, 0.9, 0.03, float("nan")]
    found = small_samples.adjusted(p)
    assert found[:5] == pytest.approx(stats.false_discovery_control(p[:5])) and np.isnan(found[5])
    assert len(small_samples.adjusted([])) == 0 and np.isnan(small_samples.adjusted([float("nan")])).all()


def test_sums_of_parts_add_up() -> None:
    rng = np.random.default_rng(2)
    v = rng.normal(size=50)
    whole = sums(v[:20]) + sums(v[20:])
    assert (whole.n, whole.mean, whole.spread) == pytest.approx((50, v.mean(), ((v - v.mean()) ** 2).sum()))
    assert (whole - sums(v[:20])).mean == pytest.approx(v[20:].mean()) and np.isnan(Sums().mean)
