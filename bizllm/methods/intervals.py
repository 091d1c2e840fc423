"""Quantiles of a forecast from the errors that the same method made in a backtest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Growth of the spread with the horizon where nothing is known, and what that is worth in periods seen. A random walk
# has 0.5; real series, with methods chosen on the same windows, have more.
GROWTH, GROWTH_WORTH = 0.7, 8.0
# The spread is widened by 1 + WIDEN / periods seen: ten years of a yearly series see less than the whole of it. Both
# lines were tuned for coverage and pinball loss on M3's yearly series and on cuts of the monthly training parts.
WIDEN = 4.0


def quantiles(mean: Array, errors: Array, seen: int, floor: float, levels: Sequence[float]) -> Array:
    """(levels, horizon) values below which the actual value stays with the probability of each level.

    mean:   (horizon,) point forecasts.
    errors: (windows, ahead) actual value minus forecast in the backtest, NaN after the end of the history; `ahead` may
        be less than the horizon, and there may be no window.
    seen:   periods of the history that the windows cover together; overlapping windows share their errors.
    floor:  one-step error of the naive method; a quarter of it is the least spread, and all of it where `errors` is
        empty.
    levels: ascending, each in (0, 1).

    The spread at step k is s k^g: one growth g for all steps, because a few windows tell little of a single one.
    Errors over their spread are pooled; their empirical quantiles are averaged with a normal's, and mirrored as far as
    the windows are few. Never crossing: one distribution's quantiles at ascending levels ascend.
    """
    steps = np.arange(1, len(mean) + 1, dtype=np.float64)
    z = _normal(tuple(levels))
    if errors.size == 0:
        return np.maximum.accumulate(mean + 2.0 * z[:, None] * floor * np.sqrt(steps), axis=0)
    known = np.isfinite(errors)
    growth = _growth(errors, known, seen)
    scaled = (errors / np.arange(1, errors.shape[1] + 1) ** growth)[known]
    base = max(float(np.sqrt(np.mean(scaled**2))), 0.25 * floor)
    if base > 0:
        windows = seen / errors.shape[1]
        z = 0.5 * z + 0.5 * _empirical(np.sort(scaled / base), windows, np.asarray(levels))
    widen = 1.0 + WIDEN / seen
    return np.maximum.accumulate(mean + widen * base * z[:, None] * steps**growth, axis=0)


@lru_cache(maxsize=64)
def _normal(levels: tuple[float, ...]) -> Array:
    return np.array([NormalDist().inv_cdf(level) for level in levels])


def _growth(errors: Array, known: npt.NDArray[np.bool_], seen: int) -> float:
    """g, so that the root mean square error at step k goes with k^g; drawn towards GROWTH as errors are few."""
    ahead = errors.shape[1]
    rms = np.sqrt((np.where(known, errors, 0.0) ** 2).sum(axis=0) / known.sum(axis=0))
    if ahead < 3 or not (rms > 0).all():
        return 0.5 if ahead < 3 else 0.0
    x = np.log(np.arange(1, ahead + 1))
    x -= x.mean()
    slope = float(x @ np.log(rms) / (x @ x))
    return min(max((seen * slope + GROWTH_WORTH * GROWTH) / (seen + GROWTH_WORTH), 0.0), 1.0)


def _empirical(pooled: Array, windows: float, levels: Array) -> Array:
    """Quantiles of the errors, which ascend, mirrored as far as the windows that do not overlap are few."""
    mirrored = _at(np.sort(np.concatenate([pooled, -pooled])), levels)
    trust = windows / (windows + 10.0)
    return np.asarray(trust * _at(pooled, levels) + (1.0 - trust) * mirrored)


def _at(ascending: Array, levels: Array) -> Array:
    """Quantiles with linear interpolation, as numpy's, whose function takes longer than all else here."""
    place = levels * (len(ascending) - 1)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, len(ascending) - 1)
    return np.asarray(ascending[low] + (place - low) * (ascending[high] - ascending[low]))
