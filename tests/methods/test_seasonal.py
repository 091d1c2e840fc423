"""Indices of many origins against those of each history alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import seasonal


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 4, 7, 12]), st.booleans())
def test_plain_indices_are_statsmodels_at_every_origin(seed: int, season: int, multiplicative: bool) -> None:
    from statsmodels.tsa.seasonal import seasonal_decompose

    rng = np.random.default_rng(seed)
    y = 40 + rng.normal(0, 1, 8 * season).cumsum() + 3 * np.sin(2 * np.pi * np.arange(8 * season) / season)
    origins = [2 * season, 3 * season + 1, 8 * season]
    made, shrunken = seasonal.indices(y, season, origins, multiplicative)
    neutral = 1.0 if multiplicative else 0.0
    for row, drawn, origin in zip(made, shrunken, origins, strict=True):
        model = "multiplicative" if multiplicative else "additive"
        expected = seasonal_decompose(y[:origin], model=model, period=season).seasonal[:season]
        assert row == pytest.approx(expected, rel=1e-7, abs=1e-9)
        assert np.abs(drawn - neutral).max() <= np.abs(row - neutral).max() + 1e-12


def test_a_season_is_seen_and_noise_is_not() -> None:
    noise = np.random.default_rng(1).normal(0, 1, 120)
    wave = noise + 5 * np.sin(2 * np.pi * np.arange(120) / 12)
    assert seasonal.has_season(wave, 12, [20, 60, 120]).tolist() == [False, True, True]
    assert not seasonal.has_season(noise, 12, [60, 120]).any()
    assert not seasonal.has_season(wave, 3, [120]).any()


def test_less_than_two_seasons_have_neutral_indices() -> None:
    y = np.arange(1.0, 30.0)
    assert (seasonal.indices(y, 12, [23], multiplicative=True)[1] == 1).all()
    assert (seasonal.indices(y, 1, [23], multiplicative=False)[0] == 0).all()


def test_indices_ahead_begin_after_each_origin() -> None:
    index = np.array([[0.0, 1, 2], [10, 11, 12]])
    assert seasonal.ahead(index, [4, 6], 4).tolist() == [[1, 2, 0, 1], [10, 11, 12, 10]]
