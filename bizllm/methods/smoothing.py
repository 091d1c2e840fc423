"""Exponential smoothing with parameters from a grid: all of them, all estimations and several series in one pass.

Per period the recursion is half a dozen operations on arrays of some hundred to thousand candidates, which numpy does
in a few microseconds; an optimizer that tries them one after the other takes ten times as long to be as accurate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bizllm.methods import seasonal

Array = npt.NDArray[np.float64]
Choose = Callable[[int, "list[_View]", Array, int], tuple[int, int]]


@dataclass(frozen=True)
class _View:
    """A history as one candidate sees it. x: (periods,); index: (season,) at the start, zeros for none."""

    x: Array
    index: Array
    level: float
    trend: float
    log: bool
    seasonal: bool


def damped_trend(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Damped-trend smoothing of the seasonally adjusted history, in logarithms where every value is positive.

    Gardner & McKenzie (1985), with parameters from a coarse grid by one-step squared error; seasonal indices by
    classical decomposition, shrunken.
    """
    views: list[list[list[_View]]] = [[] for _ in fits]
    for one in y:
        for of, view in zip(views, _adjusted(one, season, fits), strict=True):
            of.append([view])
    grid = _grid((0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99), (0.0, 0.03, 0.1, 0.2, 0.4), (0.0,), DAMPED)

    def choose(_: int, of: list[_View], squares: Array, known: int) -> tuple[int, int]:
        return 0, int(np.argmin(squares[0]))

    return _search(views, fits, grid, horizon, choose, rolling=False)


def _adjusted(y: Array, season: int, fits: Sequence[Sequence[int]]) -> list[_View]:
    """The seasonally adjusted history y (periods,) of each estimation, and a line from its first to its 13th value."""
    firsts = [fit[0] for fit in fits]
    positive = [bool(y[: fit[-1]].min() > 0) for fit in fits]
    logs = np.log(np.where(y > 0, y, 1.0))
    found = {
        log: seasonal.indices(logs if log else y, season, firsts, multiplicative=False)[1] for log in set(positive)
    }
    views = []
    for place, (first, log) in enumerate(zip(firsts, positive, strict=True)):
        index = found[log][place]
        x = (logs if log else y) - index[np.arange(len(y)) % len(index)]
        warm = min(12, first - 1)
        views.append(_View(x, index, float(x[0]), float(x[warm] - x[0]) / max(warm, 1), log, seasonal=False))
    return views


def simple(x: Array, alphas: Array) -> tuple[Array, Array]:
    """Simple smoothing of the rows of x (rows, periods) from their first value, with each alpha: the last level and the
    sum of the squared one-step errors, each (rows, alphas)."""
    level = np.repeat(x[:, :1], len(alphas), axis=1)
    squares = np.zeros_like(level)
    for value in x.T[1:, :, None]:
        error = value - level
        squares += error * error
        level += alphas * error
    return level, squares


DAMPED = (0.0, 0.8, 0.9, 0.95, 1.0)
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99)
THREE = (0.01, 0.1, 0.3)


def ets(y: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """Additive exponential smoothing in state space form (Hyndman et al. 2002), the candidate of the least AICc.

    With and without a season; short seasons have damped trends or none, and years straight ones too. Seasons from a
    week on always have a damped trend, and are smoothed in logarithms too where every value is positive, whose
    likelihood is compared through the Jacobian of the logarithm. A history of over 200 periods with a season has none
    but the additive one and no trend. The states at the start are a line through the first two seasons and shrunken
    indices; the grids were chosen on M3 yearly and quarterly series and on the training parts of the monthly ones.
    """
    forms: tuple[bool, ...]  # with a season, without
    if season > 1 and y.shape[1] > 200:
        grid, log, forms = _grid((0.005, 0.01, *LEVELS), (0.0,), (0.001, 0.01, 0.03, 0.1, 0.3), (0.0,)), False, (True,)
    elif season >= 7:
        grid, log, forms = _grid(LEVELS, THREE, THREE, (0.8, 0.9, 0.98)), True, (True, False)
    elif season > 1:
        grid, log, forms = _grid(LEVELS, THREE, THREE, (0.0, 0.8, 0.9, 0.98)), False, (True, False)
    else:
        grid, log, forms = _grid(LEVELS, THREE[:2], (0.0,), (0.0, 0.8, 0.9, 0.98, 1.0)), False, (False,)
    logs = np.log(np.where(y > 0, y, 1.0)) if log else y
    views: list[list[list[_View]]] = [[] for _ in fits]
    for one, logged in zip(y, logs, strict=True):
        for of, view in zip(views, _starts(one, logged if log else None, season, fits, forms), strict=True):
            of.append(view)
    # alpha, the level and the variance; a trend has beta and a start, a damped one phi too
    trends = np.where(grid[3] == 0, 3.0, np.where(grid[3] == 1, 5.0, 6.0))
    jacobian = 2.0 * logs.cumsum(axis=1)

    def choose(series: int, of: list[_View], squares: Array, known: int) -> tuple[int, int]:
        count = trends + np.array([[season if view.seasonal else 0] for view in of])
        score = known * np.log(np.maximum(squares, 1e-300) / known)
        score += np.array([[jacobian[series, known - 1] if view.log else 0.0] for view in of])
        score += 2 * count + 2 * count * (count + 1) / np.maximum(known - count - 1, 0.5)
        form, candidate = np.unravel_index(np.argmin(score), score.shape)
        return int(form), int(candidate)

    return _search(views, fits, grid, horizon, choose, rolling=True)


def _starts(
    y: Array, logs: Array | None, season: int, fits: Sequence[Sequence[int]], forms: Sequence[bool]
) -> list[list[_View]]:
    """What ETS tries for each estimation: y and its logarithms, with and without a season."""
    firsts = [fit[0] for fit in fits]
    histories = [y] if logs is None else [y, logs]
    indices = [
        seasonal.indices(z, season, firsts, multiplicative=False)[1] if any(forms) else np.zeros((len(firsts), season))
        for z in histories
    ]
    return [
        [
            _start(histories[log], indices[log][place], fit[0], bool(log), form)
            for log in range(len(histories) if y[: fit[-1]].min() > 0 else 1)
            for form in forms
        ]
        for place, fit in enumerate(fits)
    ]


def _start(z: Array, index: Array, known: int, log: bool, with_season: bool) -> _View:
    season = len(index)
    span = min(max(10, 2 * season), known)
    index = index if with_season else np.zeros(season)
    x = z[:span] - index[np.arange(span) % season]
    steps = np.arange(1.0, span + 1) - (span + 1) / 2
    trend = float(steps @ x / max(float(steps @ steps), 1.0))
    return _View(z, index, float(x.mean()) - trend * (span + 1) / 2, trend, log, with_season)


@lru_cache(maxsize=16)
def _grid(
    levels: tuple[float, ...], trends: tuple[float, ...], seasons: tuple[float, ...], damping: tuple[float, ...]
) -> Array:
    """(4, candidates): alpha, beta, gamma, phi from alpha, beta/alpha, gamma/(1 - alpha), phi; phi 0 has no trend."""
    rows = [
        (alpha, alpha * beta, (1 - alpha) * gamma, phi)
        for alpha in levels
        for beta in trends
        for gamma in seasons
        for phi in damping
        if phi > 0 or beta == trends[0]
    ]
    return np.array(rows).T


def _search(
    views: list[list[list[_View]]],
    fits: Sequence[Sequence[int]],
    grid: Array,
    horizon: int,
    choose: Choose,
    rolling: bool,
) -> Array:
    """(series, origins, horizon) of the candidate that `choose` takes at the first origin of each estimation.

    views: of each estimation and series, one or more.
    choose: (series, its views, (views, candidates) squared errors, periods known) -> (view, candidate).
    rolling: whether seasonal indices are smoothed; else the views' histories are adjusted already.
    Rows of the last estimation come first, since the others end before: what goes on is always the first rows.
    """
    flat = [view for of_fit in reversed(views) for of in of_fit for view in of]
    stops = [stop for fit in fits for stop in fit]
    many, candidates = len(flat), grid.shape[1]
    x = np.stack([view.x for view in flat], axis=1)[:, :, None]  # (periods, views, 1)
    gains = np.broadcast_to(grid[:3, None], (3, many, candidates)).copy()
    gains[2, [not view.seasonal for view in flat]] = 0.0
    state = np.empty((2, many, candidates))  # level, trend
    state[0], state[1] = np.array([(view.level, view.trend) for view in flat]).T[:, :, None]
    index = np.stack([view.index for view in flat], axis=1)[:, :, None]  # (season, views, 1)
    if rolling:
        index = np.broadcast_to(index, (len(index), many, candidates)).copy()
    squares, change = np.zeros((many, candidates)), np.empty_like(gains)
    errors = np.empty((max(stop - before for before, stop in pairwise([0, *stops])), many, candidates))
    period, taken, seasons = 0, [], []
    for of_fit, fit in zip(views, fits, strict=True):
        rest = many - sum(map(len, of_fit))  # the rows of later estimations
        rows, best = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for stop in fit:
            made = errors[: stop - period, :many]
            _advance(
                x[period:stop, :many], period, state[:, :many], index[:, :many] if rolling else None, gains[:, :many],
                grid[3], made, change[:, :many],
            )  # fmt: skip
            period = stop
            made = made[:, : many if stop == fit[0] else rest]  # the others' parameters are known
            made *= made  # not einsum, whose last digits depend on how many series there are
            squares[: made.shape[1]] += made.sum(axis=0)
            if stop == fit[0]:
                ends = rest + np.cumsum([len(of) for of in of_fit])
                chosen = [
                    choose(series, of, squares[end - len(of) : end], stop)
                    for series, (of, end) in enumerate(zip(of_fit, ends, strict=True))
                ]
                rows = np.array([end - len(of) + view for of, end, (view, _) in zip(of_fit, ends, chosen, strict=True)])
                best = np.array([candidate for _, candidate in chosen])
            logs = [flat[row].log for row in rows]
            taken.append(np.stack([*state[:, rows, best], grid[3, best], logs]))
            seasons.append(index[:, rows, best if rolling else 0])
        many = rest
    level, trend, phi, log = np.stack(taken, axis=2)[..., None]  # each (series, origins, 1)
    path = level + trend * np.cumsum(phi ** np.arange(1, horizon + 1), axis=2)
    place = (np.array(stops)[:, None] + np.arange(horizon)) % len(index)  # (origins, horizon)
    path += np.stack(seasons)[np.arange(len(stops))[:, None], place].transpose(2, 0, 1)
    return np.asarray(np.exp(path, out=path, where=log > 0))


def _advance(
    x: Array, period: int, state: Array, index: Array | None, gains: Array, phi: Array, errors: Array, change: Array
) -> None:
    """Smooth over the rows of x (periods, views, 1), the first of them at `period`; state and index move on.

    errors: (periods, views, candidates), for the one-step errors.
    """
    level, trend = state
    if index is None:
        gains, change = gains[:2], change[:2]
    first_two = change[:2]
    for step, (value, error) in enumerate(zip(x, errors, strict=True)):
        trend *= phi
        level += trend
        np.subtract(value, level, out=error)
        if index is not None:
            places = index[(period + step) % len(index)]
            error -= places
        np.multiply(gains, error, out=change)
        state += first_two
        if index is not None:
            places += change[2]
