"""Methods for demand that comes rarely: size and timing forecast apart, at all origins in one pass.

Nothing is estimated but ADIDA's smoothing, at every origin anew: it makes no difference which origins belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from bizllm.methods.members import each
from bizllm.methods.smoothing import simple

Array = npt.NDArray[np.float64]


@each
def croston_sba(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Croston's method with the bias correction of Syntetos & Boylan (2005); 0 before the first sale."""
    sold = np.flatnonzero(y)
    sizes, intervals = _smoothed(y[sold], 0.1), _smoothed(np.diff(sold, prepend=-1), 0.1)
    rates = np.concatenate([[0.0], 0.95 * sizes / intervals])
    return _flat(rates[np.searchsorted(sold, _origins(fits))], horizon)


@each
def tsb(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Teunter, Syntetos & Babai (2011): the chance of a sale fades while nothing sells; 0 before the first."""
    sold = np.flatnonzero(y)
    sizes = np.concatenate([[0.0], _smoothed(y[sold], 0.1)])
    chances = _smoothed(y != 0, 0.05)
    at = _origins(fits)
    return _flat(chances[at - 1] * sizes[np.searchsorted(sold, at)], horizon)


@each
def adida(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Aggregate to the mean interval between demands, smooth, spread evenly (Nikolopoulos et al. 2011)."""
    at = _origins(fits)
    sold = np.flatnonzero(y)
    counts = np.searchsorted(sold, at)
    last = np.where(counts > 0, sold[np.maximum(counts, 1) - 1] + 1 if sold.size else 0, 0)
    periods = np.maximum(np.round(last / np.maximum(counts, 1)), 1).astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    # Whole chunks that end at the origin, right-aligned; before the first stands the first, which adds no error.
    many = at // periods
    back = np.minimum(np.arange(int(many.max()), 0, -1), many[:, None])
    ends = at[:, None] - (back - 1) * periods[:, None]
    chunks = sums[ends] - sums[ends - periods[:, None]]  # (origins, chunks)
    alphas = np.linspace(0.1, 0.3, 21)
    level, squares = simple(chunks, alphas)
    best = level[np.arange(len(at)), np.argmin(squares, axis=1)]
    return _flat(best / periods, horizon)


@each
def recent_mean(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """The mean of each place in the season over the last eight seasons, drawn half way to their common mean.

    Raises ValueError without a season before the first origin.
    """
    rows = []
    for origin in _origins(fits).tolist():
        span = min(8, origin // season) * season
        if not span:
            raise ValueError("less than a season")
        profile = y[origin - span : origin].reshape(-1, season).sum(axis=0) * (season / span)
        rows.append((profile + profile.sum() / season) / 2)
    return np.stack(rows)[:, np.arange(horizon) % season]


def _origins(fits: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    return np.array([origin for fit in fits for origin in fit], np.int64)


def _flat(rates: Array, horizon: int) -> Array:
    return np.repeat(rates[:, None], horizon, axis=1)


def _smoothed(x: npt.NDArray[np.generic], alpha: float) -> Array:
    """(n,) level after each value of x by simple exponential smoothing; it begins with the first value."""
    return np.array(
        list(accumulate(x.astype(np.float64).tolist(), lambda level, value: level + alpha * (value - level)))
    )
