"""Seasonal indices of a history at many origins at once.

A centred moving average at one place is the same whatever the origin, so that the sums for all origins come out of one
running sum; nothing after an origin enters its indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SEASONAL_AT = 1.6448536269514722  # 95 % quantile of the normal distribution


def indices(y: Array, season: int, origins: Sequence[int], multiplicative: bool) -> tuple[Array, Array]:
    """(plain, shrunken) indices by classical decomposition of y[:origin], each (origins, season).

    The shrunken ones are drawn towards none by the James–Stein rule of Miller & Williams (2003), since indices from a
    few seasons are noisy. Neutral, 1 or 0, where an origin has less than two seasons before it.
    """
    neutral = 1.0 if multiplicative else 0.0
    plain = np.full((len(origins), max(season, 1)), neutral)
    at = np.array(origins)
    whole = at >= 2 * season
    if season < 2 or not whole.any():
        return plain, plain
    window = np.ones(season + 1 - season % 2)
    if season % 2 == 0:
        window[[0, -1]] = 0.5
    trend = np.convolve(y, window / season, "valid")
    start = (len(y) - len(trend)) // 2
    inner = y[start : start + len(trend)]
    ratio = inner / trend if multiplicative else inner - trend
    running = np.zeros((3, len(trend) + 1, season))  # of the ratios at each place of the season, their squares, ones
    steps = np.arange(len(trend))
    place = (steps + start) % season
    running[:, steps + 1, place] = ratio, ratio * ratio, np.ones(len(trend))
    total, squares, count = running.cumsum(axis=1)[:, at[whole] - 2 * start]
    count = np.maximum(count, 1.0)
    index = total / count
    spread = np.maximum(squares - total * index, 0.0) / np.maximum(count - 1.0, 1.0) / count
    middle = index.mean(axis=1, keepdims=True)
    index = index / middle if multiplicative else index - middle
    plain[whole] = index
    if season <= 3:
        return plain, plain
    between = np.sum((index - neutral) ** 2, axis=1) / (season - 1)
    keep = 1.0 - (season - 3) / (season - 1) * spread.mean(axis=1) / np.maximum(between, 1e-12)
    shrunken = plain.copy()
    shrunken[whole] = neutral + np.maximum(keep, 0.0)[:, None] * (index - neutral)
    return plain, shrunken


def has_season(y: Array, season: int, origins: Sequence[int]) -> npt.NDArray[np.bool_]:
    """(origins,) whether the autocorrelation at a season's lag is significant at 10 % (Fiorucci et al. 2016)."""
    at = np.array(origins)
    if season < 4:
        return np.zeros(len(at), bool)
    z = y - y[: at[0]].mean()  # near 0, so that the differences of sums below keep their digits
    lags = np.arange(1, season + 1)
    late = np.concatenate([np.zeros(season), z])[season - lags[:, None] + np.arange(len(z))]  # (lags, n), z[t - lag]
    products = (late * z).cumsum(axis=1)[:, at - 1]  # (lags, origins)
    sums = np.concatenate([[0.0], z.cumsum()])
    mean = sums[at] / at
    both = sums[np.maximum(at - lags[:, None], 0)] + sums[at] - sums[np.minimum(lags, len(z))][:, None]
    covariance = products - mean * both + (at - lags[:, None]) * mean**2
    variance = (z * z).cumsum()[at - 1] - at * mean**2
    r = covariance / variance
    limit = np.sqrt((1 + 2 * np.sum(r[:-1] ** 2, axis=0)) / at)
    return np.asarray((at >= 2 * season) & (np.abs(r[-1]) > SEASONAL_AT * limit))


def ahead(index: Array, origins: Sequence[int], horizon: int) -> Array:
    """(origins, horizon) of the indices (origins, season) in the periods after each origin."""
    season = index.shape[1]
    return np.take_along_axis(index, (np.array(origins)[:, None] + np.arange(horizon)) % season, axis=1)
