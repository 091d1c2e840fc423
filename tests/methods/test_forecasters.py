"""Members against known series; the combination never worse than seasonal naive; quantiles never cross."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.evaluate.metrics import coverage, naive_scale
from bizllm.methods import forecasters, members
from bizllm.methods.forecasters import NoForecast, Request, forecast
from bizllm.methods.intervals import quantiles

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
MONTHS = Request(12, 12, LEVELS)


def _monthly(years: int = 8, seed: int = 0, noise: float = 2.0) -> np.ndarray:
    t = np.arange(12 * years)
    return 100 + 0.5 * t + 20 * np.sin(2 * np.pi * t / 12) + np.random.default_rng(seed).normal(0, noise, len(t))


def test_seasonal_naive_repeats_the_last_season() -> None:
    path = members.seasonal_naive(np.arange(10.0), 4, 6, [3, 10])
    assert path.tolist() == [[2, 2, 2, 2, 2, 2], [6, 7, 8, 9, 6, 7]]


@pytest.mark.parametrize("name", ["damped_trend", "seasonal_totals", "theta", "theta_additive", "ets", "ces"])
def test_members_follow_trend_and_season(name: str) -> None:
    y = _monthly(9, noise=1.0)
    path = getattr(members, name)(y[:96], 12, 12, [72, 84, 96])
    assert path.shape == (3, 12)
    naive = np.abs(y[84:96] - y[96:108]).mean()
    assert np.abs(path[-1] - y[96:108]).mean() < 0.8 * naive


def test_a_members_past_origins_see_only_their_past() -> None:
    y, other = _monthly(), _monthly()
    other[80:] += 500.0
    for name in ("damped_trend", "seasonal_totals", "theta", "ets", "ces", "seasonal_naive"):
        member = getattr(members, name)
        before, changed = member(y, 12, 6, [70, 80, 96]), member(other, 12, 6, [70, 80, 96])
        assert np.array_equal(before[:2], changed[:2]), name


def test_year_before_keeps_weekdays_and_takes_half_the_growth() -> None:
    y = np.tile([1.0, 2, 3, 4, 5, 6, 7], 120)
    y[-364:] *= 4.0
    path = members.year_before(y, 7, 14, [len(y)])[0]
    assert path == pytest.approx(np.tile([1.0, 2, 3, 4, 5, 6, 7], 2) * 4 * 2)


def test_seasonal_totals_of_a_repeating_year_repeat_it() -> None:
    y = np.tile(np.arange(1.0, 13.0), 6)
    assert members.seasonal_totals(y, 12, 12, [72])[0] == pytest.approx(np.arange(1.0, 13.0), rel=0.05)


def test_the_forecast_beats_seasonal_naive_on_a_growing_season() -> None:
    y = _monthly(9)
    made = forecast(y[:96], MONTHS)
    assert made.mase is not None and made.mase < 1
    assert np.abs(made.mean - y[96:]).mean() < np.abs(y[84:96] - y[96:]).mean()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 70))
def test_never_worse_than_seasonal_naive_in_the_backtest(seed: int, length: int) -> None:
    y = np.random.default_rng(seed).normal(0, 1, length).cumsum() + 50
    made = forecast(y, Request(1, 6, (0.5,)))
    origins, ahead = forecasters.rolling_origins(length, 6, 1)
    truth = forecasters.realised(y, origins, ahead)
    paths = forecasters._paths(y, y, Request(1, 6, (0.5,)), 1, origins)
    path, method = forecasters._combine(paths, truth)
    assert method == made.method
    naive = members.seasonal_naive(y, 1, ahead, origins)
    ours, theirs = truth - path[:-1, :ahead], truth - naive
    assert np.abs(ours).mean() <= np.abs(theirs).mean() or (ours**2).mean() <= (theirs**2).mean()
    assert made.mase == pytest.approx(np.abs(truth - path[:-1, :ahead]).mean() / naive_scale(y[: origins[0]], 1))


def test_a_method_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> np.ndarray:
        raise RuntimeError("any fault of a library")

    def endless(y: np.ndarray, season: int, horizon: int, origins: list[int]) -> np.ndarray:
        return np.full((len(origins), horizon), np.inf)

    monkeypatch.setattr(members, "theta", broken)
    monkeypatch.setattr(members, "ets", endless)
    made = forecast(_monthly(), MONTHS)
    assert "theta+" not in made.method.replace("theta_additive", "") and "ets" not in made.method
    monkeypatch.setattr(forecasters, "pool", lambda *_: {"broken": broken})
    assert forecast(_monthly(), MONTHS).method == "seasonal_naive"


@pytest.mark.parametrize(("y", "expected"), [([7.0] * 40, 7.0), ([0.0] * 40, 0.0), ([3.0], 3.0), ([-2.0, -2.0], -2.0)])
def test_constant_series_are_answered_with_the_constant(y: list[float], expected: float) -> None:
    made = forecast(np.array(y), MONTHS)
    assert made.method == "constant"
    assert (made.mean == expected).all() and (made.quantiles == expected).all()


def test_no_history_and_numbers_that_are_none_are_refused() -> None:
    for y in ([], [1.0, np.nan, 2.0], [1.0, np.inf]):
        with pytest.raises(NoForecast):
            forecast(np.array(y), MONTHS)


@pytest.mark.parametrize("length", [2, 3, 5, 9, 15, 26, 37])
def test_short_histories_get_an_answer(length: int) -> None:
    made = forecast(_monthly()[:length], MONTHS)
    assert np.isfinite(made.mean).all() and np.isfinite(made.quantiles).all()
    assert (np.diff(made.quantiles, axis=0) >= 0).all()


def test_intermittent_demand_has_its_own_pool_and_a_mean_near_the_rate() -> None:
    rng = np.random.default_rng(3)
    y = rng.poisson(4, 400) * (rng.random(400) < 0.2)
    made = forecast(y.astype(float), Request(7, 14, LEVELS), non_negative=True)
    assert made.mean.mean() == pytest.approx(0.8, rel=0.6)
    assert made.quantiles.min() >= 0


def test_non_negative_holds_for_mean_and_quantiles() -> None:
    y = np.maximum(0.0, 30 - np.arange(60) * 0.6 + np.random.default_rng(1).normal(0, 3, 60))
    made = forecast(y, Request(1, 12, LEVELS), non_negative=True)
    assert made.mean.min() >= 0 and made.quantiles.min() >= 0


def test_the_same_history_gives_the_same_forecast() -> None:
    first, second = forecast(_monthly(), MONTHS), forecast(_monthly(), MONTHS)
    assert np.array_equal(first.mean, second.mean) and np.array_equal(first.quantiles, second.quantiles)


def test_history_before_the_kept_seasons_changes_nothing() -> None:
    y = _monthly(30)
    longer = np.concatenate([np.full(24, 1e4), y[-240:]])
    made, other = forecast(longer, MONTHS), forecast(y[-240:], MONTHS)
    assert np.array_equal(made.mean, other.mean) and np.array_equal(made.quantiles, other.quantiles)


def test_a_horizon_of_most_of_the_kept_history_is_answered() -> None:
    y = 50 + 10 * np.tile(np.arange(7.0), 150) + np.random.default_rng(0).normal(0, 3, 1050)
    made = forecast(y, Request(7, 300, LEVELS, year=364))
    assert "year_before" in made.method
    assert made.mean.shape == (300,) and made.mean.mean() == pytest.approx(80, rel=0.1)


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(0, 6),
    st.lists(st.floats(0.001, 0.999), min_size=1, max_size=9, unique=True).map(sorted),
    st.floats(0, 1e6),
)
def test_quantiles_never_cross(seed: int, horizon: int, windows: int, levels: list[float], scale: float) -> None:
    rng = np.random.default_rng(seed)
    mean, errors = rng.normal(0, scale, horizon), rng.standard_t(2, (windows, min(horizon, 8))) * scale
    bands = quantiles(mean, errors, 1.5, scale, levels)
    assert bands.shape == (len(levels), horizon)
    assert np.isfinite(bands).all()
    assert (np.diff(bands, axis=0) >= 0).all()


def test_intervals_of_white_noise_cover_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        bands = quantiles(np.zeros(14), rng.normal(0, 3, (6, 14)), 6.0, 3.0, [0.1, 0.9])
        hits.append(coverage(rng.normal(0, 3, 14), bands[0], bands[1]))
    assert 0.78 < np.mean(hits) < 0.92
