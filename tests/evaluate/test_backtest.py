import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.evaluate.backtest import realised, rolling_origins


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(1, 60), st.sampled_from([1, 4, 7, 12, 24, 52]))
def test_every_window_lies_in_the_history_and_the_last_ends_with_it(length: int, horizon: int, season: int) -> None:
    origins, ahead = rolling_origins(length, horizon, season)
    if not origins:
        return
    assert origins == sorted(set(origins))
    assert 1 <= ahead <= horizon
    assert origins[0] >= 4
    assert length - horizon <= origins[-1] < length
    truth = realised(np.arange(float(length)), origins, ahead)
    assert truth.shape == (len(origins), ahead)
    for origin, row in zip(origins, truth, strict=True):
        known = min(ahead, length - origin)
        assert row[:known].tolist() == list(range(origin, origin + known))
        assert np.isnan(row[known:]).all()


def test_two_years_of_days_are_tested_over_the_second() -> None:
    origins, ahead = rolling_origins(730, 28, 7)
    assert (len(origins), origins[0], origins[-1], ahead) == (12, 365, 729, 28)
    assert set(np.diff(origins)) == {33, 34}


def test_ten_years_of_months_keep_five_for_the_first_fit() -> None:
    origins, ahead = rolling_origins(120, 18, 12)
    assert origins[0] == 60
    assert ahead == 18


def test_a_history_of_a_few_periods_has_no_backtest() -> None:
    assert rolling_origins(4, 3, 1) == ([], 0)
