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
    assert origins[-1] + ahead == length
    assert realised(np.arange(float(length)), origins, ahead).shape == (len(origins), ahead)


def test_two_years_of_days_give_six_separate_windows() -> None:
    assert rolling_origins(730, 28, 7) == ([562, 590, 618, 646, 674, 702], 28)


def test_ten_years_of_months_keep_six_tenths_for_the_first_fit() -> None:
    origins, ahead = rolling_origins(120, 18, 12)
    assert origins[0] >= 72
    assert ahead == 18


def test_a_history_of_a_few_periods_has_no_backtest() -> None:
    assert rolling_origins(4, 3, 1) == ([], 0)
