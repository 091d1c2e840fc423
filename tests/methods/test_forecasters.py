"""Members against known series; the combination never worse than seasonal naive; quantiles never cross."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.evaluate.backtest import rolling_origins
from bizllm.evaluate.metrics import coverage, naive_scale
from bizllm.methods import forecasters, intermittent, members, smoothing, theta
from bizllm.methods.forecasters import NoForecast, Request, forecast
from bizllm.methods.intervals import quantiles
from bizllm.methods.members import Member

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
MONTHS = Request(12, 12, LEVELS)


def _one(member: Member, y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
    return member(y[None], season, horizon, fits)[0]


def _monthly(years: int = 8, seed: int = 0, noise: float = 2.0) -> np.ndarray:
    t = np.arange(12 * years)
    return 100 + 0.5 * t + 20 * np.sin(2 * np.pi * t / 12) + np.random.default_rng(seed).normal(0, noise, len(t))


def test_seasonal_naive_repeats_the_last_season() -> None:
    path = _one(members.seasonal_naive, np.arange(10.0), 4, 6, [[3], [10]])
    assert path.tolist() == [[2, 2, 2, 2, 2, 2], [6, 7, 8, 9, 6, 7]]


REGULAR = [smoothing.damped_trend, smoothing.ets, theta.theta, theta.theta_standard, members.seasonal_totals]
RARE = [intermittent.croston_sba, intermittent.tsb, intermittent.adida, intermittent.recent_mean]


@pytest.mark.parametrize("member", REGULAR)
def test_members_follow_trend_and_season(member: Member) -> None:
    y = _monthly(9, noise=1.0)
    path = _one(member, y[:96], 12, 12, [[72, 84], [96]])
    assert path.shape == (3, 12)
    naive = np.abs(y[84:96] - y[96:108]).mean()
    assert np.abs(path[-1] - y[96:108]).mean() < 0.8 * naive


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 7, 12]), st.booleans())
def test_a_members_past_origins_see_only_their_past(seed: int, season: int, positive: bool) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 1, 96).cumsum() + (60 if positive else 0)
    other = np.concatenate([y[:80], y[80:] + rng.normal(50, 9, 16)])
    for member in [*REGULAR, *RARE, members.seasonal_naive]:
        if season == 1 and member is members.seasonal_totals:
            continue
        before, changed = (_one(member, z, season, 6, [[60, 70], [76, 80], [96]]) for z in (y, other))
        assert before[:4] == pytest.approx(changed[:4], rel=1e-9, abs=1e-9), member
        assert not np.array_equal(before[4], changed[4])


@pytest.mark.parametrize("member", [*REGULAR, *RARE])
def test_estimations_that_are_asked_for_together_are_those_asked_for_alone(member: Member) -> None:
    y = _monthly()
    fits = [[48, 60, 72], [76, 90], [96]]
    together, alone = _one(member, y, 12, 6, fits), [_one(member, y[: fit[-1]], 12, 6, [fit]) for fit in fits]
    assert together == pytest.approx(np.concatenate(alone), rel=1e-9)


def test_year_before_keeps_weekdays_and_takes_half_the_growth() -> None:
    y = np.tile([1.0, 2, 3, 4, 5, 6, 7], 120)
    y[-364:] *= 4.0
    path = _one(members.year_before, y, 7, 14, [[len(y)]])[0]
    assert path == pytest.approx(np.tile([1.0, 2, 3, 4, 5, 6, 7], 2) * 4 * 2)


def test_seasonal_totals_of_a_repeating_year_repeat_it() -> None:
    y = np.tile(np.arange(1.0, 13.0), 6)
    assert _one(members.seasonal_totals, y, 12, 12, [[72]])[0] == pytest.approx(np.arange(1.0, 13.0), rel=0.05)


def test_the_forecast_beats_seasonal_naive_on_a_growing_season() -> None:
    y = _monthly(9)
    made = forecast(y[:96], MONTHS)
    assert made.mase is not None and made.mase < 1
    assert np.abs(made.mean - y[96:]).mean() < np.abs(y[84:96] - y[96:]).mean()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 70), st.sampled_from([(1, 6), (4, 8), (7, 10)]), st.booleans())
def test_the_reported_mase_never_exceeds_seasonal_naives(
    seed: int, length: int, of: tuple[int, int], rare: bool
) -> None:
    season, horizon = of
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 1, length).cumsum() + 50
    if rare:
        y = np.where(rng.random(length) < 0.3, np.abs(y), 0.0)
    made = forecast(y, Request(season, horizon, (0.5,)), non_negative=rare)
    if made.mase is None:
        return
    season = season if length >= 2 * season else 1
    origins, ahead = rolling_origins(length, horizon, season)
    scale = naive_scale(y[: origins[0]], season)
    errors = [  # of seasonal naive, by its definition
        abs(y[origin + k] - y[origin + k - season * (k // season + 1)])
        for origin in origins
        for k in range(min(ahead, length - origin))
    ]
    assert made.mase <= np.mean(errors) / scale * (1 + 1e-12)


def test_a_mean_that_loses_is_drawn_towards_the_best_no_further_than_needed() -> None:
    truth, naive = np.zeros((2, 2)), np.full((3, 2), 1.0)
    paths = {"seasonal_naive": naive, "bad": np.full((3, 2), 5.0), "good": np.full((3, 2), 0.5)}
    path, method = forecasters._combine(paths, truth)  # the mean is 2.75; 0.5 s + 2.75 (1 - s) <= 1 from s = 0.78
    assert method == "0.22*(bad+good)+0.78*good"
    assert path == pytest.approx(0.995)
    paths["good"][0] = np.nan  # not judged where it had no answer: there the mean, 5, stands in
    assert forecasters._combine(paths, truth)[1] == "seasonal_naive"
    assert forecasters._combine({**paths, "bad": naive}, truth)[1] == "bad+good"


def test_a_method_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> np.ndarray:
        raise RuntimeError("any fault of a library")

    def endless(y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
        return np.full((len(y), sum(map(len, fits)), horizon), np.inf)

    monkeypatch.setattr(theta, "theta", broken)
    monkeypatch.setattr(smoothing, "ets", endless)
    assert forecast(_monthly(), MONTHS).method == "damped_trend+seasonal_totals"
    monkeypatch.setattr(forecasters, "pool", lambda *_: {"broken": broken})
    assert forecast(_monthly(), MONTHS).method == "seasonal_naive"


def test_a_method_that_needs_a_long_history_answers_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
        if fits[0][0] < 70:
            raise ValueError("too short")
        return smoothing.damped_trend(y, season, horizon, fits)

    y = _monthly()  # origins from 48 on; the second estimation is at 74
    monkeypatch.setattr(forecasters, "pool", lambda *_: {"late": late})
    paths = forecasters._paths(y[None], MONTHS)[0]
    assert np.isfinite(paths["late"]).all(axis=1).tolist() == [False] * 6 + [True] * 7
    made = forecast(y, MONTHS)
    assert made.method == "late"
    assert np.array_equal(made.mean, _one(smoothing.damped_trend, y, 12, 12, [[96]])[0])


def _learned(y: np.ndarray, request: Request, future: np.ndarray) -> np.ndarray:
    """What a model that knows everything says at each cut-off."""
    whole = np.concatenate([y, future])
    return np.stack([whole[cut : cut + request.horizon] for cut in forecasters.cutoffs(y, request)])


def test_cutoffs_are_the_backtests_origins_and_the_end() -> None:
    y = _monthly(30)  # of 360 months the methods see 240
    origins, _ = rolling_origins(240, 12, 12)
    assert forecasters.cutoffs(y, MONTHS) == [*(120 + origin for origin in origins), 360]
    assert forecasters.cutoffs(np.full(40, 7.0), MONTHS) == forecasters.cutoffs(np.zeros(0), MONTHS) == []


def test_a_trained_model_takes_part_where_it_wins_the_backtest() -> None:
    y = _monthly(9, noise=8.0)
    plain = forecast(y[:96], MONTHS)
    made = forecast(y[:96], MONTHS, learned=_learned(y[:96], MONTHS, y[96:]))
    assert made.method == f"0.5*({plain.method})+0.5*model"
    assert made.mean == pytest.approx((plain.mean + y[96:]) / 2)
    assert made.mase == pytest.approx(plain.mase / 2)  # it makes no error itself


@pytest.mark.parametrize("fault", ["worse", "nan", "huge"])
def test_a_trained_model_that_loses_or_fails_changes_nothing(fault: str) -> None:
    y = _monthly(9)
    learned = _learned(y[:96], MONTHS, y[96:])
    if fault == "worse":
        learned = learned + 60.0
    else:  # the past is right all the same
        learned[-1, 3] = np.nan if fault == "nan" else 1e6
    plain, made = forecast(y[:96], MONTHS), forecast(y[:96], MONTHS, learned=learned)
    assert made.method == plain.method and np.array_equal(made.quantiles, plain.quantiles)


def test_a_trained_model_falls_under_zero_no_more_than_the_others() -> None:
    y = np.maximum(0.0, 30 - np.arange(60) * 0.6 + np.random.default_rng(1).normal(0, 3, 60))
    request = Request(1, 12, LEVELS)
    learned = _learned(y, request, np.zeros(12)) - 0.01
    made = forecast(y, request, True, learned)
    assert made.method.endswith("0.5*model") and made.mean.min() >= 0


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


def test_weeks_of_many_years_start_from_the_last_level() -> None:
    y = 1000 + np.random.default_rng(5).normal(0, 10, 520).cumsum()
    y[-26:] += 300  # half a year ago: neither last year's values nor its mean tell the level
    made = forecast(y, Request(52, 13, LEVELS))
    assert abs(made.mean[0] - y[-1]) < 50


def test_non_negative_holds_for_mean_and_quantiles() -> None:
    y = np.maximum(0.0, 30 - np.arange(60) * 0.6 + np.random.default_rng(1).normal(0, 3, 60))
    made = forecast(y, Request(1, 12, LEVELS), non_negative=True)
    assert made.mean.min() >= 0 and made.quantiles.min() >= 0


def test_the_same_history_gives_the_same_forecast() -> None:
    first, second = forecast(_monthly(), MONTHS), forecast(_monthly(), MONTHS)
    assert np.array_equal(first.mean, second.mean) and np.array_equal(first.quantiles, second.quantiles)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 7, 12]), st.integers(5, 90))
def test_what_a_series_gets_does_not_depend_on_the_others(seed: int, season: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    request = Request(season, 6, LEVELS)
    ys = [rng.normal(0, 1, length).cumsum() + rng.choice([0, 60]) for _ in range(9)]
    ys += [rng.poisson(0.3, length).astype(float), ys[0][:-1], np.full(length, 3.0), np.array([np.nan])]
    together = forecasters.forecast_many(ys, [request] * len(ys), [False] * len(ys), [None] * len(ys))
    assert together[-1] is None
    for y, made in zip(ys[:-1], together[:-1], strict=True):
        alone = forecast(y, request)
        assert made is not None and made.method == alone.method
        assert np.array_equal(made.mean, alone.mean) and np.array_equal(made.quantiles, alone.quantiles)


def test_a_method_that_fails_on_one_series_answers_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
        if (y[:, 0] > 150).any():
            raise ValueError("too high")
        return smoothing.damped_trend(y, season, horizon, fits)

    monkeypatch.setattr(forecasters, "pool", lambda *_: {"picky": picky})
    ys = [_monthly(seed=1), _monthly(seed=2) + 100, _monthly(seed=3)]
    made = forecasters.forecast_many(ys, [MONTHS] * 3, [False] * 3, [None] * 3)
    assert [one and one.method for one in made] == ["picky", "seasonal_naive", "picky"]


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
    bands = quantiles(mean, errors, 20, scale, levels)
    assert bands.shape == (len(levels), horizon)
    assert np.isfinite(bands).all()
    assert (np.diff(bands, axis=0) >= 0).all()


def test_intervals_of_white_noise_cover_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        bands = quantiles(np.zeros(14), rng.normal(0, 3, (6, 14)), 84, 3.0, [0.1, 0.9])
        hits.append(coverage(rng.normal(0, 3, 14), bands[0], bands[1]))
    assert 0.78 < np.mean(hits) < 0.92
