"""Methods for rare demand against the library's, which answers one origin at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import intermittent
from bizllm.methods.members import Member


def _one(member: Member, y: np.ndarray, season: int, horizon: int, fits: list[list[int]]) -> np.ndarray:
    return member(y[None], season, horizon, fits)[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(10, 200), st.floats(0.02, 0.6))
def test_rates_are_the_librarys_at_every_origin(seed: int, length: int, rate: float) -> None:
    from statsforecast.models import TSB, CrostonSBA

    rng = np.random.default_rng(seed)
    y = rng.poisson(rate, length) * rng.integers(1, 9, length).astype(float)
    origins = [length // 2, length // 2 + 3, length]
    for library, member in (
        (CrostonSBA(), intermittent.croston_sba),
        (TSB(alpha_d=0.1, alpha_p=0.05), intermittent.tsb),
    ):
        made = _one(member, y, 7, 3, [origins[:2], origins[2:]])
        for row, origin in zip(made, origins, strict=True):
            assert row == pytest.approx(library.forecast(y[:origin], 3)["mean"], rel=1e-9, abs=1e-12), member


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(10, 200), st.floats(0.02, 0.6))
def test_adida_smooths_chunks_of_the_mean_interval(seed: int, length: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    y = rng.poisson(rate, length) * rng.integers(1, 9, length).astype(float)
    origins = [length // 2, length]
    for made, origin in zip(_one(intermittent.adida, y, 7, 1, [origins]), origins, strict=True):
        known = y[:origin]
        sold = np.flatnonzero(known)
        if not sold.size:
            assert made == [0]
            continue
        size = max(round((sold[-1] + 1) / len(sold)), 1)
        chunks = known[len(known) % size :].reshape(-1, size).sum(axis=1)
        tried = []
        for alpha in np.linspace(0.1, 0.3, 21):
            level, squares = chunks[0], 0.0
            for chunk in chunks[1:]:
                squares, level = squares + (chunk - level) ** 2, level + alpha * (chunk - level)
            tried.append((squares, level / size))
        least = min(tried)[0]
        assert any(made[0] == pytest.approx(rate) for squares, rate in tried if squares <= least * (1 + 1e-9))


def test_recent_mean_is_half_way_between_place_and_common_mean() -> None:
    y = np.tile([0.0, 0, 0, 0, 0, 3, 4], 20)
    assert _one(intermittent.recent_mean, y, 7, 8, [[140]])[0] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 2, 2.5, 0.5])
    with pytest.raises(ValueError, match="season"):
        _one(intermittent.recent_mean, y, 7, 8, [[6]])
