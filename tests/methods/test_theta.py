"""The closed form against a search of the same errors, and against the library's Theta."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import theta
from bizllm.methods.members import Member


def _one(member: Member, y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
    return member(y[None], season, horizon, fits)[0]


def _errors(x: np.ndarray, alpha: float, start: float, share: float) -> np.ndarray:
    """One-step errors of dynamic Theta, equations 10 to 15 of Fiorucci et al. (2016)."""
    level, errors = start, []
    for t, value in enumerate(x):
        known = x[:t]
        slope, intercept = np.polyfit(np.arange(1, t + 1), known, 1) if t > 1 else (0.0, x[0] if t else 0.0)
        fade = 1 - alpha
        errors.append(value - level - share * (intercept * fade**t + slope * (1 - fade ** (t + 1)) / alpha))
        level = alpha * value + fade * level
    return np.array(errors[theta.BURNED :])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_no_level_at_the_start_has_smaller_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = 50 + rng.normal(0.3, 1, 30).cumsum()
    k, start, share = theta._estimate(x, theta._smoothed(x[None])[:30, 0], dynamic=True)
    least = (_errors(x, theta.ALPHAS[k], start, share) ** 2).sum()
    assert 0 <= share <= 1
    for _ in range(20):
        other = (_errors(x, theta.ALPHAS[k], start + rng.normal(0, 3), share) ** 2).sum()
        assert least <= other * (1 + 1e-9)


def test_theta_is_the_librarys_but_for_the_pull_towards_two(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsforecast.models import AutoTheta

    monkeypatch.setattr(theta, "DRAWN", 0.0)
    gaps = {"DOTM": [], "STM": []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        t = np.arange(96)
        y = (100 + 0.4 * t + rng.normal(0, 2, 96).cumsum()) * (1 + 0.2 * np.sin(2 * np.pi * t / 12))
        for model, member in (("DOTM", theta.theta), ("STM", theta.theta_standard)):
            library = AutoTheta(season_length=12, decomposition_type="multiplicative", model=model)
            gaps[model].append(np.abs(_one(member, y, 12, 12, [[96]])[0] / library.forecast(y, 12)["mean"] - 1).mean())
    assert np.median(gaps["DOTM"]) < 0.01 and np.median(gaps["STM"]) < 0.01


@pytest.mark.parametrize("member", [theta.theta, theta.theta_standard])
def test_a_line_is_continued_by_half_its_slope_or_more(member: Member) -> None:
    y = 20.0 + 2 * np.arange(40)
    steps = np.diff(_one(member, y, 1, 6, [[40]])[0])
    assert (steps > 0.9).all() and (steps < 2.1).all()


def test_a_season_with_zeros_is_added() -> None:
    y = np.tile([0.0, 4, 8, 4], 12) + np.random.default_rng(0).normal(0, 0.1, 48)
    y[::4] = 0.0
    assert _one(theta.theta, y, 4, 4, [[48]])[0] == pytest.approx([0, 4, 8, 4], abs=0.4)


def test_three_periods_are_too_few() -> None:
    with pytest.raises(ValueError, match="three periods"):
        _one(theta.theta, np.array([1.0, 2, 4, 3]), 1, 2, [[3], [4]])
