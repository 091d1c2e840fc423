"""The pass over a grid against the recursion written down, and against the library's exponential smoothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import seasonal, smoothing
from bizllm.methods.members import Member


def _one(member: Member, y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
    return member(y[None], season, horizon, fits)[0]


def _walk(seed: int, length: int, season: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 80 + rng.normal(0, 1, length).cumsum() + 6 * np.sin(2 * np.pi * np.arange(length) / season)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 12]))
def test_damped_trend_is_the_best_of_its_grid_and_rolls_on(seed: int, season: int) -> None:
    y = _walk(seed, 60, max(season, 2))
    z = np.log(y)
    index = seasonal.indices(z, season, [40], multiplicative=False)[1][0]
    x = z - np.resize(index, 60)
    tried = []
    for alpha in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99):
        for beta in (0.0, 0.03, 0.1, 0.2, 0.4):
            for phi in smoothing.DAMPED:
                level, trend, squares, paths = x[0], (x[12] - x[0]) / 12, 0.0, []
                for t in range(60):
                    if t in (40, 50):
                        steps = np.cumsum(phi ** np.arange(1, 6))
                        paths.append(np.exp(level + trend * steps + np.resize(np.roll(index, -t), 5)))
                    error = x[t] - level - phi * trend
                    squares += error**2 if t < 40 else 0.0
                    level, trend = level + phi * trend + alpha * error, phi * trend + alpha * beta * error
                tried.append((squares, paths))
    made = _one(smoothing.damped_trend, y, season, 5, [[40, 50]])
    least = min(squares for squares, _ in tried)
    assert any(made == pytest.approx(np.array(paths)) for squares, paths in tried if squares <= least * (1 + 1e-9))


def test_ets_is_about_as_right_as_the_librarys() -> None:
    from statsforecast.models import AutoETS

    ours, theirs = [], []
    for seed in range(12):
        y = _walk(seed, 96, 12)
        ours.append(np.abs(_one(smoothing.ets, y[:84], 12, 12, [[84]])[0] - y[84:]).mean())
        theirs.append(np.abs(AutoETS(season_length=12, damped=True).forecast(y[:84], 12)["mean"] - y[84:]).mean())
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_ets_multiplies_where_the_season_grows_with_the_level() -> None:
    t = np.arange(108)
    y = np.exp(4 + 0.02 * t + 0.3 * np.sin(2 * np.pi * t / 12) + np.random.default_rng(0).normal(0, 0.01, 108))
    assert _one(smoothing.ets, y[:96], 12, 12, [[96]])[0] == pytest.approx(y[96:], rel=0.1)


def test_ets_has_no_season_where_there_is_none() -> None:
    y = 100 + np.random.default_rng(2).normal(0, 5, 80)
    assert np.ptp(_one(smoothing.ets, y, 12, 12, [[80]])[0]) < 2


def test_ets_of_years_takes_a_straight_trend() -> None:
    y = 10.0 + 3 * np.arange(20) + np.random.default_rng(0).normal(0, 0.1, 20)
    assert _one(smoothing.ets, y, 1, 5, [[20]])[0] == pytest.approx(10 + 3 * np.arange(20, 25), abs=0.6)


@pytest.mark.parametrize("shift", [0.0, 1e7])
def test_a_long_history_has_a_season_and_no_trend(shift: float) -> None:
    y = shift + np.tile([5.0, 5, 5, 5, 5, 9, 12], 60) + np.random.default_rng(0).normal(0, 0.1, 420)
    assert _one(smoothing.ets, y, 7, 14, [[300, 350], [420]]) - shift == pytest.approx(
        np.stack([np.resize(np.roll([5.0, 5, 5, 5, 5, 9, 12], -at % 7), 14) for at in (300, 350, 420)]), abs=0.5
    )


@pytest.mark.parametrize("length", [2, 3, 5, 8, 13])
def test_short_histories_are_answered(length: int) -> None:
    for season in (1, 4, 12):
        for member in (smoothing.ets, smoothing.damped_trend):
            assert np.isfinite(_one(member, _walk(0, length, 4), season, 6, [[length]])).all()
