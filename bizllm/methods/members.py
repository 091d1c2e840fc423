"""What a forecasting method is, and those that estimate nothing or little.

A member takes regular histories without gaps, all of one length, and returns point forecasts from several origins:
`member(y (series, periods), season, horizon, fits) -> (series, origins, horizon)`. `fits` are the origins, ascending,
in groups: parameters are estimated at the first origin of each group and kept for its others. What a series gets does
not depend on the others. A member may raise; the caller then does without it. No member knows anything of what comes
after an origin but whether it is positive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from bizllm.methods import seasonal, smoothing

Array = npt.NDArray[np.float64]
Member = Callable[[Array, int, int, Sequence[Sequence[int]]], Array]
One = TypeVar("One", bound=Callable[..., Array])


def each(of_one: One) -> One:
    """A member out of a function of a single history, (periods,) to (origins, horizon)."""

    @wraps(of_one)
    def member(y: Array, *others: Any, **more: Any) -> Array:
        return np.stack([of_one(one, *others, **more) for one in y])

    return cast(One, member)


@each
def seasonal_naive(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """The value one season before, again and again; the last value where a whole season is not there."""
    origins = np.array([origin for fit in fits for origin in fit])
    lag = np.where(origins >= season, season, 1)[:, None]
    return y[origins[:, None] - lag + np.arange(horizon) % lag]


@each
def year_before(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]], year: int = 364) -> Array:
    """The same weeks of last year, at this year's level; `year` is a multiple of the season, so weekdays stay.

    The level is the ratio of the last four seasons to the same ones a year earlier, drawn half way to 1 in logarithms,
    for one ratio of four weeks is noisy. Raises ValueError without a year and four seasons before the first origin.
    """
    span = 4 * season
    if fits[0][0] < year + span or horizon > year:
        raise ValueError("less than a year of history")
    rows = []
    for origin in (origin for fit in fits for origin in fit):
        now, then = y[origin - span : origin].mean(), y[origin - year - span : origin - year].mean()
        level = np.sqrt(now / then) if now > 0 and then > 0 else 1.0
        rows.append(y[origin - year : origin - year + horizon] * min(max(level, 0.5), 2.0))
    return np.stack(rows)


@each
def seasonal_totals(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Means of whole seasons, extrapolated by Theta, spread by the seasonal profile.

    Aggregation in time strengthens what is slow and removes what is seasonal (Kourentzes, Petropoulos & Trapero 2014);
    at the level of seasons simple exponential smoothing with half the linear trend as drift is the Theta method
    (Hyndman & Billah 2003). Raises ValueError where the first origin has fewer than three whole seasons.
    """
    origins = np.array([origin for fit in fits for origin in fit])
    if season < 2 or origins[0] < 3 * season:
        raise ValueError("fewer than three seasons")
    seasons = origins // season
    # Whole seasons that end at the origin, right-aligned; before the first stands the first, which adds no error.
    back = np.minimum(np.arange(int(seasons[-1]), 0, -1), seasons[:, None])
    sums = np.concatenate([[0.0], np.cumsum(y)])
    ends = origins[:, None] - (back - 1) * season
    means = (sums[ends] - sums[ends - season]) / season  # (origins, seasons)
    alphas = np.arange(0.1, 0.95, 0.1)
    level, squares = smoothing.simple(means, alphas)
    best = np.argmin(squares, axis=1)
    alpha, level = alphas[best], level[np.arange(len(best)), best]
    places = np.arange(means.shape[1], 0, -1) <= seasons[:, None]  # which are no copies of the first
    steps = np.where(places, (seasons[:, None] + 1) / 2 - back, 0.0)
    drift = (steps * means).sum(axis=1) / (steps * steps).sum(axis=1) / 2
    bend = (1 - (1 - alpha) ** seasons) / alpha  # equation 6 of Hyndman & Billah
    ahead = np.arange(-(-horizon // season) + 1)
    knots = np.concatenate([means[:, -1:], level[:, None] + drift[:, None] * (ahead + bend[:, None])], axis=1)
    # A season's mean stands at its middle; between the middles the level is a straight line.
    place = (np.arange(horizon) + (season + 1) / 2) / season
    left = place.astype(np.int64)
    path: Array = knots[:, left] + (place - left) * (knots[:, left + 1] - knots[:, left])
    positive = np.minimum.accumulate(y)[origins - 1] > 0
    if positive.any():
        index = seasonal.indices(y, season, origins.tolist(), multiplicative=True)[1]
        path[positive] *= seasonal.ahead(index, origins.tolist(), horizon)[positive]
    if not positive.all():
        index = seasonal.indices(y, season, origins.tolist(), multiplicative=False)[1]
        path[~positive] += seasonal.ahead(index, origins.tolist(), horizon)[~positive]
    return path
