from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bizllm.methods import lead_lag, shifts

WEEK = 2 * np.sin(np.arange(365) * 2 * np.pi / 7)


def noise(seed: int, n: int = 365, memory: float = 0.0) -> np.ndarray:
    rng, found = np.random.default_rng(seed), np.zeros(n)
    for t, step in enumerate(rng.normal(size=n)):
        found[t] = memory * found[t - 1] + step * (1 - memory**2) ** 0.5
    return found


def test_expectations_know_the_past_alone() -> None:
    values = noise(0) + WEEK
    whole = shifts.expect(values, 7, np.zeros(365))
    for cut in (60, 200, 300):
        part = shifts.expect(values[:cut], 7, np.zeros(cut))
        assert np.array_equal(part.expected, whole.expected[:cut], equal_nan=True)
        assert np.array_equal(part.z, whole.z[:cut], equal_nan=True)
    changed = values.copy()
    changed[200] = 1e9
    later = shifts.expect(changed, 7, np.zeros(365))
    assert np.array_equal(later.expected[:201], whole.expected[:201], equal_nan=True) and later.z[200] > 1e6
    assert abs(later.expected[201] - whole.expected[201]) < 2, "one wild value moves no mean far"


def test_expectations_by_hand() -> None:
    """A level of 10, Sundays 20: the mean of four weeks, and what Sundays differ from it."""
    values = np.where(np.arange(150) % 7 == 6, 20.0, 10.0)
    found = shifts.expect(values, 7, np.ones(150))
    assert np.isnan(found.expected[:14]).all()
    assert found.expected[90:] == pytest.approx(values[90:]) and found.z[90:] == pytest.approx(0)
    values[144] += 5
    assert shifts.expect(values, 7, np.ones(150)).z[144] == pytest.approx(5)  # in its own standard errors
    assert shifts.expect(values, 7, np.full(150, 2.5)).z[144] == pytest.approx(2)
    assert shifts.expect(values, 7, None).z[144] == pytest.approx(5 / 10**0.5)  # a count's


def test_gaps_stay_gaps() -> None:
    values = noise(1)
    values[50:60] = np.nan
    found = shifts.expect(values, 7, np.zeros(365))
    assert np.isnan(found.z[50:60]).all() and np.isfinite(found.z[60:]).all()
    assert np.isnan(shifts.expect(np.full(30, np.nan), 1, np.zeros(30)).z).all()
    assert len(shifts.expect(np.zeros(0), 1, np.zeros(0)).z) == 0


def test_alerts_of_noise_are_rare_and_of_jumps_are_not() -> None:
    z = np.concatenate([shifts.expect(noise(seed) + WEEK, 7, np.zeros(365)).z for seed in range(20)])
    assert np.nanmean(np.abs(z) > 4) < 2e-3
    jumped = [noise(seed) + WEEK + 7 * (np.arange(365) == 300) for seed in range(20)]
    assert np.mean([shifts.expect(values, 7, np.zeros(365)).z[300] > 4 for values in jumped]) > 0.8


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_changes_of_level(memory: float) -> None:
    made = [noise(seed, memory=memory) + WEEK for seed in range(30)]
    assert sum(len(shifts.changes(values, 7, 7)) > 0 for values in made) <= 6
    step = 2.0 * (np.arange(365) >= 200)
    found = [shifts.changes(values + step, 7, 7) for values in made]
    assert sum(bool((np.abs(starts - 200) <= 7).any()) for starts in found) >= 25


def test_changes_are_the_best_segmentation() -> None:
    """Against all segmentations of a short series into pieces of three, at the same price."""
    values = np.array([0.1, -0.2, 0.0, 0.2, 5.1, 5.0, 4.8, 5.2, 4.9, 0.0, 0.1, -0.1, 0.2])

    def cost(edges: list[int]) -> float:
        return sum(float(values[a:b].var() * (b - a)) for a, b in pairwise(edges))

    tried = [[0, a, b, 13] for a in range(3, 8) for b in range(a + 3, 11)]
    best = min(tried, key=cost)[1:-1]
    assert shifts.changes(values, 1, 3).tolist() == best == [4, 9]


def test_series_without_a_change() -> None:
    for values in (np.zeros(0), np.zeros(5), np.full(100, 3.0), np.r_[np.zeros(99), 1e12]):
        assert shifts.changes(values, 7, 7).tolist() == []
    assert shifts.changes(np.r_[np.zeros(50), np.ones(50)], 7, 7).tolist() == [50]
    assert shifts.levels(np.array([1, np.nan, 3, 10.0]), np.array([3])).tolist() == [2, 2, 2, 10]


def test_lead_is_found_and_chance_is_told() -> None:
    x = noise(3, 200)
    y = np.roll(x, 3) + noise(4, 200)
    found = lead_lag.lead(x, y, 5)
    assert found is not None and found.lag == 3 and found.p < 0.01
    assert found.correlation == pytest.approx(np.corrcoef(x[1:197], y[4:200])[0, 1], abs=0.1)
    behind = lead_lag.lead(y, x, 5)
    assert behind is not None and behind.lag == -3 and behind.correlation == pytest.approx(found.correlation)


def test_p_values_are_uniform_where_nothing_leads() -> None:
    """Of random walks, too, which correlate by chance, and over all lags at once."""
    for made in (lambda seed: noise(seed, 160), lambda seed: np.cumsum(noise(seed, 160))):
        p = np.array([lead_lag.lead(made(2 * i), made(2 * i + 1), 4).p for i in range(300)])  # type: ignore[union-attr]
        assert 0.02 < (p < 0.05).mean() < 0.09 and 0.42 < np.median(p) < 0.58


def test_too_little_to_tell() -> None:
    assert lead_lag.lead(noise(0, 39), noise(1, 39), 5) is None
    assert lead_lag.lead(np.ones(100), noise(1, 100), 5) is None
    assert lead_lag.lead(np.arange(100.0), noise(1, 100), 0) is not None
