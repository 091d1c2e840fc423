"""Parts that add up, of made-up series whose level, change, season and trend are known."""

from __future__ import annotations

import numpy as np
import pytest

from bizllm.methods import drivers

WEEKEND = np.array([0.0, 0, 0, 0, 0, 14, 14]) - 4.0  # sums to no more than its level over a week


def of(y: np.ndarray, mean: np.ndarray, season: int = 7, gap: int = 0) -> dict[str, np.ndarray]:
    found = drivers.of_forecast(y, mean, season, gap)
    np.testing.assert_allclose(np.sum(list(found.values()), axis=0), mean, rtol=1e-12, atol=1e-12)
    return found


def test_a_season_is_told_apart_from_the_level() -> None:
    found = of(100 + np.tile(WEEKEND, 20), 100 + np.tile(WEEKEND, 2))
    np.testing.assert_allclose(found["level"], 100)
    np.testing.assert_allclose(found["season"], np.tile(WEEKEND, 2), atol=1e-9)
    np.testing.assert_allclose(found["recent"], 0, atol=1e-9)
    np.testing.assert_allclose(found["trend"], 0, atol=1e-9)


def test_the_season_goes_on_after_a_gap_and_a_part_of_a_week() -> None:
    y = (100 + np.tile(WEEKEND, 21))[:144]  # ends with the fourth day of a week
    found = of(y, 100 + np.tile(WEEKEND, 3)[144 % 7 + 2 :][:5], gap=2)
    np.testing.assert_allclose(found["season"], np.tile(WEEKEND, 3)[144 % 7 + 2 :][:5], atol=1e-9)


def test_a_change_of_the_last_weeks_is_recent() -> None:
    y = np.concatenate([np.full(70, 10.0), np.full(14, 40.0)]) + np.tile(WEEKEND, 12)
    found = of(y, np.full(14, 40.0))
    np.testing.assert_allclose(found["level"], 15)  # 10 of twelve weeks at 10, two at 40
    np.testing.assert_allclose(found["recent"], 25)


def test_a_trend_is_what_goes_beyond_the_recent_mean() -> None:
    y = np.arange(40.0)
    found = of(y, np.arange(40.0, 44.0), season=1)
    assert "season" not in found
    np.testing.assert_allclose(found["level"], 19.5)
    np.testing.assert_allclose(found["recent"], 37.5 - 19.5)
    np.testing.assert_allclose(found["trend"], np.arange(40.0, 44.0) - 37.5)


@pytest.mark.parametrize(
    "y", [np.zeros(3), np.array([5.0]), np.array([1.0, 2.0, 3.0]), np.full(9, 8e307), -np.ones(30)]
)
def test_short_constant_and_huge_histories(y: np.ndarray) -> None:
    found = of(y, np.full(4, y[-1]))
    assert all(np.isfinite(effect).all() for effect in found.values())
    assert found["level"] == pytest.approx(y.mean() if len(y) < 9 else y[0])


def test_old_seasons_are_no_part_of_the_level() -> None:
    y = np.concatenate([np.full(700, 1_000.0), np.full(7 * drivers.SEASONS, 10.0)])
    np.testing.assert_allclose(of(y, np.full(7, 10.0))["level"], 10)
