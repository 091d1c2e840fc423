"""What is unusual in a series: periods far from what their past lets expect, and lasting changes of its level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

_MAD = 1.4826  # to a standard deviation, for normal noise
_SEASONS_BACK = 8
_WITHOUT_SEASON = 14  # periods of the level's window where there is no season
PENALTY = 3.0  # times the noise's long-run variance times log(n)
_LARGEST_CORRELATION = 0.8
_OUTLIER = 3.0  # standard deviations, to which what is further off is drawn back


@dataclass(frozen=True)
class Expected:
    """(n,) what each period's past let expect, and how many deviations off it was; NaN where the past is too short."""

    expected: Array
    z: Array


def usable_season(periods: int, season: int) -> int:
    """The season if the history has four of them, else 1."""
    return season if periods >= 4 * season else 1


def expect(values: Array, season: int, least: Array | None) -> Expected:
    """Hold each period against the ones before it, and only those.

    The level is the mean of the last four seasons (of one, where a season is long); the period's place in the season
    adds the mean of its deviations in the last eight seasons. The scale is the root mean square of the residuals of
    twice the level's time. All are winsorised, so that one wild period hides no later one.

    values: NaN where a period has none. least: (n,) no scale is less than this, a period's own sampling error; None for
    counts, whose error is the root of what is expected.
    """
    n = len(values)
    window = 4 * season if 1 < season < 12 else max(season, _WITHOUT_SEASON)
    level = _past(values, window, max(3, window // 2), _winsorised_mean)
    deviation = values - level
    seasonal = np.zeros(n)
    if season > 1:
        back = np.full((_SEASONS_BACK, n), np.nan)
        for k in range(1, _SEASONS_BACK + 1):
            if k * season < n:
                back[k - 1, k * season :] = deviation[: n - k * season]
        enough = np.isfinite(back).sum(axis=0) >= 3
        if enough.any():
            seasonal[enough] = _winsorised_mean(back[:, enough].T)
    expected = level + seasonal
    residual = values - expected
    scale = _past(residual, 2 * window, window // 2, _winsorised_root_mean_square)
    floor = np.sqrt(np.maximum(expected, 1)) if least is None else least
    return Expected(expected, residual / np.maximum(scale, np.maximum(floor, 1e-12)))


def changes(values: Array, season: int, shortest: int) -> Whole:
    """Positions where the level changes for good: the first period of each new level.

    Least squares over all segmentations with a price for each (PELT: Killick, Fearnhead & Eckley 2012), on the series
    without its season and its single outliers. The price is 3 s² log n: Yao's (1988) for a mean and a place, with some
    to spare; s² is the noise's long-run variance, from residuals about the running median and their correlation, so
    that noise with a memory is no change. values: finite. shortest: periods of a level, at least.
    """
    import ruptures

    n = len(values)
    if n < 2 * shortest:
        return np.zeros(0, np.int64)
    width = 2 * max(season, shortest // 2) + 1
    running = _running_median(values, width)
    plain = values - _seasonal(values - running, season)
    running = _running_median(plain, width)
    residual = plain - running
    noise = _MAD * float(np.median(np.abs(residual - np.median(residual))))
    if noise <= 0:  # most periods equal: the few others tell the scale
        noise = float(residual.std())
    if noise <= 0:
        noise = float(np.ptp(values)) * 1e-6
    if noise <= 0:
        return np.zeros(0, np.int64)
    plain = running + np.clip(residual, -_OUTLIER * noise, _OUTLIER * noise)
    kept = plain - running
    memory = float(np.clip(float(kept[1:] @ kept[:-1]) / max(float(kept @ kept), 1e-12), 0, _LARGEST_CORRELATION))
    penalty = PENALTY * np.log(n) * (1 + memory) / (1 - memory)
    found = ruptures.KernelCPD(kernel="linear", min_size=shortest, jump=1).fit((plain / noise)[:, None])
    return np.array(found.predict(pen=penalty)[:-1], np.int64)


def levels(values: Array, starts: Whole) -> Array:
    """(n,) the mean of the segment that each period is in; values may have NaN."""
    edges = np.concatenate([[0], starts, [len(values)]])
    return np.concatenate([np.full(b - a, values[a:b][np.isfinite(values[a:b])].mean()) for a, b in pairwise(edges)])


def _past(values: Array, window: int, least: int, of: Callable[[Array], Array]) -> Array:
    """(n,) a figure of the last `window` values before each; NaN where fewer than `least` are known."""
    if not len(values):
        return values
    padded = np.concatenate([np.full(window, np.nan), values])[:-1]
    views = np.lib.stride_tricks.sliding_window_view(padded, window)
    enough = np.isfinite(views).sum(axis=1) >= least
    found = np.full(len(values), np.nan)
    if enough.any():
        found[enough] = of(views[enough])
    return found


def _winsorised_mean(rows: Array) -> Array:
    """(rows,) the mean, values drawn back to three robust deviations from the median."""
    middle = np.nanmedian(rows, axis=1, keepdims=True)
    return np.asarray(middle[:, 0] + np.nanmean(_drawn_back(rows - middle), axis=1))


def _winsorised_root_mean_square(rows: Array) -> Array:
    return np.asarray(np.sqrt(np.nanmean(_drawn_back(rows) ** 2, axis=1)))


def _drawn_back(rows: Array) -> Array:
    """To three deviations: the median absolute one, or where that is 0, since most are equal, the root mean square."""
    robust = _MAD * np.nanmedian(np.abs(rows), axis=1, keepdims=True)
    deviation = np.where(robust > 0, robust, np.sqrt(np.nanmean(rows**2, axis=1, keepdims=True)))
    return np.clip(rows, -_OUTLIER * deviation, _OUTLIER * deviation)


def _running_median(values: Array, width: int) -> Array:
    half = width // 2
    padded = np.pad(values, half, mode="reflect" if len(values) > half else "edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1))


def _seasonal(residual: Array, season: int) -> Array:
    """(n,) the median residual of each place in the season."""
    if season == 1:
        return np.zeros(len(residual))
    place = np.arange(len(residual)) % season
    effect = np.array([np.median(residual[place == k]) for k in range(season)])
    return np.asarray(effect[place] - effect.mean())
