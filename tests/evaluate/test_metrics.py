"""Against numbers worked out by hand, and against a published table of the M4 competition's definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.evaluate import metrics

HISTORY = [10.0, 12.0, 14.0, 13.0, 15.0, 18.0]
ACTUAL, FORECAST = [20.0, 10.0], [18.0, 18.0]


def test_smape_by_hand() -> None:
    assert metrics.smape(ACTUAL, FORECAST) == pytest.approx((200 * 2 / 38 + 200 * 8 / 28) / 2)


def test_smape_of_zeros_is_zero() -> None:
    assert metrics.smape([0.0, 0.0], [0.0, 0.0]) == 0.0
    assert metrics.smape([0.0, 1.0], [1.0, 1.0]) == 100.0


def test_mase_by_hand() -> None:
    scale = (2 + 2 + 1 + 2 + 3) / 5
    assert metrics.mase(ACTUAL, FORECAST, HISTORY, 1) == pytest.approx((2 + 8) / 2 / scale)
    seasonal = (4 + 1 + 1 + 5) / 4
    assert metrics.mase(ACTUAL, FORECAST, HISTORY, 2) == pytest.approx(5 / seasonal)


def test_rmsse_by_hand() -> None:
    scale = (4 + 4 + 1 + 4 + 9) / 5
    assert metrics.rmsse(ACTUAL, FORECAST, HISTORY) == pytest.approx(((4 + 64) / 2 / scale) ** 0.5)


def test_scaled_errors_of_a_constant_history_are_unknown() -> None:
    assert np.isnan(metrics.mase([1.0], [2.0], [5.0, 5.0, 5.0], 1))
    assert np.isnan(metrics.mase([1.0], [2.0], [5.0], 1))


def test_axes_are_series_by_horizon() -> None:
    y = np.arange(1.0, 13.0).reshape(3, 4)
    scores = metrics.smape(y, y * 1.1)
    assert scores.shape == (3,)
    assert scores == pytest.approx([200 * 0.1 / 2.1] * 3)


def test_coverage_counts_both_ends() -> None:
    assert metrics.coverage([1.0, 2.0, 3.0, 4.0], [1.0] * 4, [3.0] * 4) == 0.75


def test_owa_of_the_published_rows_of_m4_weekly() -> None:
    # Official sheet of the M4 competition, weekly series: Naive2 9.161 / 2.777, Theta 9.093 / 2.637 → OWA 0.971;
    # Damped 8.866 / 2.404 → 0.917; Smyl 7.817 / 2.356 → 0.851.
    for smape, mase, published in ((9.093, 2.637, 0.971), (8.866, 2.404, 0.917), (7.817, 2.356, 0.851)):
        assert metrics.owa(smape, mase, 9.161, 2.777) == pytest.approx(published, abs=6e-4)


@settings(deadline=None)
@given(
    st.lists(st.floats(-100, 100), min_size=5, max_size=60),
    st.floats(-100, 100),
    st.sampled_from([0.1, 0.25, 0.5, 0.9]),
)
def test_pinball_is_least_at_the_empirical_quantile(values: list[float], other: float, level: float) -> None:
    best = np.quantile(values, level, method="inverted_cdf")
    assert metrics.pinball(values, best, level) <= metrics.pinball(values, other, level) + 1e-9
