"""The Theta method, with the level at the start and the slope's share in closed form for every smoothing parameter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bizllm.methods import seasonal

Array = npt.NDArray[np.float64]

ALPHAS = np.linspace(0.1, 0.99, 30)
BURNED = 3  # errors of the first periods don't count: their lines are drawn through one or two values
DRAWN = 8.0  # periods that the standard slope's share, a half, is worth


def theta(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Dynamic optimised Theta (Fiorucci et al. 2016) of the seasonally adjusted history.

    Its one-step forecast (equation 10 there) is l + w D: the smoothed level, and the line through what is known so far
    times w = 1 - 1/theta. For a given alpha it is linear in w and in the level at the start, whose least squares are
    found for each alpha of a grid. w is drawn towards that of theta = 2, since a few years tell little of it.
    Raises ValueError with three periods or fewer before the first origin.
    """
    return _theta(y, season, horizon, fits, dynamic=True)


def theta_standard(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """The Theta method with its line at 2 (Assimakopoulos & Nikolopoulos 2000), drawn through the whole history.

    Raises ValueError with three periods or fewer before the first origin.
    """
    return _theta(y, season, horizon, fits, dynamic=False)


def _theta(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]], dynamic: bool) -> Array:
    origins = [origin for fit in fits for origin in fit]
    if origins[0] <= BURNED:
        raise ValueError("three periods or fewer")
    firsts = np.cumsum([0, *(len(fit) for fit in fits[:-1])])
    adjusted = [_adjusted(one, season, origins) for one in y]
    smoothed = _smoothed(np.concatenate([x[firsts] for x, _, _ in adjusted]))
    states = []
    for series, (x, _, _) in enumerate(adjusted):
        for place, (fit, first) in enumerate(zip(fits, firsts, strict=True)):
            levels = smoothed[: fit[0], series * len(fits) + place]
            k, start, share = _estimate(x[first, : fit[0]], levels, dynamic)
            weights = _powers(len(x[0]))[: fit[-1] + 1, k]
            for row, origin in enumerate(fit, first):
                known = x[row, :origin]
                level = ALPHAS[k] * float(weights[:origin][::-1] @ known) + weights[origin] * start
                moment = float(np.arange(1, origin + 1) @ known)
                states.append((ALPHAS[k], share, level, float(known.mean()), moment / origin))
    path = _ahead(np.array(states).T, np.tile(origins, len(y)), horizon, dynamic)
    path = path.reshape(len(y), len(origins), horizon)
    for part, (_, index, ratio) in zip(path, adjusted, strict=True):
        season_ahead = seasonal.ahead(index, origins, horizon)
        part[...] = np.where(ratio[:, None], part * season_ahead, part + season_ahead)
    return path


def _adjusted(y: Array, season: int, origins: Sequence[int]) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """(y without its season as each origin sees it (origins, periods), indices (origins, season), do they multiply)."""
    index, ratio = _index(y, season, origins)
    over = index[:, np.arange(len(y)) % index.shape[1]]
    return y / np.where(ratio[:, None], over, 1.0) - np.where(ratio[:, None], 0.0, over), index, ratio


def _index(y: Array, season: int, origins: Sequence[int]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """((origins, season) plain indices, whether they multiply); neutral where no season is significant."""
    found = seasonal.has_season(y, season, origins)
    index, ratio = np.zeros((len(origins), max(season, 1))), np.zeros(len(origins), bool)
    if found.any():
        positive = np.minimum.accumulate(y)[np.array(origins) - 1] > 0
        if positive.any():
            times = seasonal.indices(y, season, origins, multiplicative=True)[0]
            ratio = found & positive & (times >= 0.01).all(axis=1)
            index[ratio] = times[ratio]
        if (rest := found & ~ratio).any():
            index[rest] = seasonal.indices(y, season, origins, multiplicative=False)[0][rest]
    return index, ratio


@lru_cache(maxsize=64)
def _powers(length: int) -> Array:
    """(length + 1, alphas) powers of 1 - alpha."""
    powers: Array = (1 - ALPHAS) ** np.arange(length + 1)[:, None]
    powers.setflags(write=False)
    return powers


def _smoothed(x: Array) -> Array:
    """(periods + 1, rows, alphas) level before each period of x (rows, periods) and at its end, from 0 at the start."""
    levels = np.zeros((x.shape[1] + 1, len(x), len(ALPHAS)))
    parts, fade = np.multiply.outer(x.T, ALPHAS), 1 - ALPHAS
    for (before, after), part in zip(pairwise(levels), parts, strict=True):
        np.multiply(before, fade, out=after)
        after += part
    return levels


def _line(mean: Array, moment: Array, count: Array) -> tuple[Array, Array]:
    """(intercept, slope) of the line through 1..count; moment is the mean of value times place."""
    slope = 6 * (2 * moment - (1 + count) * mean) / np.maximum(count * count - 1.0, 1.0)
    return mean - (count + 1) * slope / 2, slope


def _estimate(x: Array, levels: Array, dynamic: bool) -> tuple[int, float, float]:
    """(place in ALPHAS, level at the start, w) with the least squared one-step error."""
    known = len(x)
    count = np.arange(1.0, known + 1)
    means, moments = np.cumsum(x) / count, np.cumsum(x * count) / count
    if dynamic:
        intercept, slope = (np.concatenate([[0.0], part[:-1]]) for part in _line(means, moments, count))
    else:
        intercept, slope = (np.full(known, part[-1]) for part in _line(means, moments, count))
    powers = _powers(known)
    u = powers[BURNED:known]  # what the level at the start still counts for
    line = intercept[BURNED:, None] * u + slope[BURNED:, None] * ((1 - powers[BURNED + 1 :]) / ALPHAS)
    error = x[BURNED:, None] - levels[BURNED:]
    uu, eu, du = _dot(u, u), _dot(error, u), _dot(line, u)
    if dynamic:
        dd = _dot(line, line)
        ridge = DRAWN / known * dd
        inverse = uu * (dd + ridge) - du * du
        share = np.where(inverse > 1e-9 * uu * dd, (uu * (_dot(error, line) + ridge / 2) - du * eu) / inverse, 0.5)
        share = np.clip(share, 0.0, 1.0)
    else:
        share = np.full(len(ALPHAS), 0.5)
    start = (eu - share * du) / uu
    rest = error - start * u - share * line
    best = int(np.argmin(_dot(rest, rest)))
    return best, float(start[best]), float(share[best])


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->j", a, b))


def _ahead(states: Array, known: Array, horizon: int, dynamic: bool) -> Array:
    """(origins, horizon) from alpha, w, level, mean and moment of each origin; forecasts become part of the line."""
    alpha, share, level, mean, moment = states
    intercept, slope = _line(mean, moment, known)
    fade, path = 1 - alpha, np.empty((len(known), horizon))
    power, count = fade**known, known.astype(np.float64)
    for step in range(horizon):
        value = level + share * (intercept * power + slope * (1 - power * fade) / alpha)
        path[:, step] = value
        level = alpha * value + fade * level
        power = power * fade
        if dynamic:
            mean, moment = (count * mean + value) / (count + 1), (count * moment + value * (count + 1)) / (count + 1)
            count = count + 1
            intercept, slope = _line(mean, moment, count)
    return path
