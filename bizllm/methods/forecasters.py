"""One series' forecast: a pool of methods, their mean, held to at least seasonal naive's accuracy in a backtest.

The mean of a few good methods beats the best of them, and a choice by backtest beats neither (Makridakis, Spiliotis &
Assimakopoulos 2020; Petropoulos & Svetunkov 2020). Which methods make up a pool was tuned on M3 yearly and quarterly
series and on the training parts of the monthly ones; benchmarks/forecast.py scores the result.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from bizllm.evaluate.backtest import realised, rolling_origins
from bizllm.evaluate.metrics import naive_scale, smape
from bizllm.methods import intermittent, members, smoothing, theta
from bizllm.methods.intervals import quantiles
from bizllm.methods.members import Member

Array = npt.NDArray[np.float64]

# Syntetos & Boylan (2005): above this mean interval between demands a series is intermittent.
INTERMITTENT_INTERVAL = 1.32
# Methods see so many seasons of the history: more cost time and tell of another business (a year of days, four weeks of
# hours, twenty years of months); 60 of a season that is none of these.
FIT_SEASONS = {1: 400, 4: 40, 12: 20, 7: 52, 24: 28, 52: 8}

# Seasons above that are too long for exponential smoothing with a season (the library drops or misfits it), and means
# of whole ones too old to tell the level: weeks of a year.
LONGEST_SEASON = 24
# Histories of one length that are computed together: more no longer fit a core's cache.
TOGETHER = 8
# What a mean may be drawn towards without being part of it.
ANCHORS = ("seasonal_naive", "zero")


class NoForecast(Exception):
    """No method, not even seasonal naive, gave finite numbers."""


@dataclass(frozen=True)
class Forecast:
    """mean: (horizon,); quantiles: (levels, horizon); scores are None where the history was too short to tell."""

    mean: Array
    quantiles: Array
    method: str
    smape: float | None
    mase: float | None


@dataclass(frozen=True)
class Request:
    """What is asked of every series of a step."""

    season: int
    horizon: int
    levels: tuple[float, ...]
    year: int | None = None  # periods of a year in whole seasons, where that is another season than `season`


def is_intermittent(y: Array) -> bool:
    """Whether demand comes so rarely that its size and its timing are to be forecast apart."""
    demands = np.count_nonzero(y)
    return bool(demands > 0 and len(y) / demands > INTERMITTENT_INTERVAL)


def pool(y: Array, request: Request) -> dict[str, Member]:
    """The methods that are combined for a series of that kind, by name."""
    season = request.season
    if is_intermittent(y):
        found: dict[str, Member] = {
            "croston_sba": intermittent.croston_sba,
            "tsb": intermittent.tsb,
            "adida": intermittent.adida,
        }
        if season > 1:
            found["recent_mean"] = intermittent.recent_mean
        return found
    found = {"theta": theta.theta, "damped_trend": smoothing.damped_trend}
    if season < 7:
        found["theta_standard"] = theta.theta_standard
    if season <= LONGEST_SEASON:
        found["ets"] = smoothing.ets
        if season >= 7:
            found["seasonal_totals"] = members.seasonal_totals
    if request.year:
        found["year_before"] = partial(members.year_before, year=request.year)
    return found


def cutoffs(y: Array, request: Request) -> list[int]:
    """How many periods of the history are known at each origin of its backtest, ascending, and last at its end.

    A trained model is asked at each for `forecast`'s `learned`. None where no model is needed.
    """
    if y.size == 0 or np.ptp(y) == 0:
        return []
    _, tail, origins, _ = _backtest(y, request)
    return [len(y) - len(tail) + known for known in [*origins, len(tail)]]


def forecast(y: Array, request: Request, non_negative: bool = False, learned: Array | None = None) -> Forecast:
    """`forecast_many` of one history. Raises NoForecast where even seasonal naive fails."""
    made = forecast_many([y], [request], [non_negative], [learned])[0]
    if made is None:
        raise NoForecast
    return made


@np.errstate(all="ignore")  # numbers near the end of the range overflow; what comes out is checked to be finite
def forecast_many(
    histories: Sequence[Array],
    requests: Sequence[Request],
    non_negative: Sequence[bool],
    learned: Sequence[Array | None],
) -> list[Forecast | None]:
    """Forecast regular histories without gaps, oldest first, each by itself; None where even seasonal naive fails.

    Histories of one length are computed together, which takes less time; what one gets does not depend on the others.
    A method that raises or gives numbers that are not finite is left out. Where the mean of the others has a larger
    absolute error in the backtest than seasonal naive, it is drawn towards the method with the least one until it no
    longer has; the MASE that is reported is therefore never larger than seasonal naive's on the same windows.
    learned: (cutoffs, horizon) what a trained model says at each of `cutoffs`. It counts for half where that makes the
    absolute error in the backtest smaller, and not at all elsewhere.
    """
    ys = [np.ascontiguousarray(y, np.float64) for y in histories]
    made: list[Forecast | None] = [None] * len(ys)
    alike: dict[tuple[int, bool, Request], list[int]] = {}
    for i, (y, request) in enumerate(zip(ys, requests, strict=True)):
        if y.size == 0 or not np.isfinite(y).all():
            continue
        if np.ptp(y) == 0:
            mean = np.full(request.horizon, y[-1])
            scores = (0.0, None) if len(y) > 1 else (None, None)
            made[i] = Forecast(mean, np.tile(mean, (len(request.levels), 1)), "constant", *scores)
            continue
        alike.setdefault((len(y), is_intermittent(_backtest(y, request)[1]), request), []).append(i)
    for (_, _, request), places in alike.items():
        for first in range(0, len(places), TOGETHER):
            some = places[first : first + TOGETHER]
            paths = _paths(np.stack([ys[i] for i in some]), request)
            for i, path in zip(some, paths, strict=True):
                made[i] = _combined(ys[i], request, path, non_negative[i], learned[i])
    return made


def _combined(
    y: Array, request: Request, paths: dict[str, Array], non_negative: bool, learned: Array | None
) -> Forecast | None:
    season, tail, origins, ahead = _backtest(y, request)
    if non_negative:
        paths = {name: np.maximum(path, 0.0) for name, path in paths.items()}
        learned = None if learned is None else np.maximum(learned, 0.0)
    truth = realised(tail, origins, ahead) if origins else np.zeros((0, 0))
    path, method = _combine(paths, truth)
    if learned is not None and np.abs(learned).max() <= _limit(y) and truth.size:
        mixed = (path + learned) / 2
        if _loss(truth, mixed) < _loss(truth, path):
            path, method = mixed, f"0.5*({method})+0.5*model"
    mean, past = path[-1], path[:-1, :ahead]
    errors = truth - past
    seen = len(tail) - origins[0] if origins else 0
    bands = quantiles(mean, errors, seen, naive_scale(tail, 1), request.levels)
    if non_negative:
        bands = np.maximum(bands, 0.0)
    if not np.isfinite(bands).all():
        return None
    if not origins:
        return Forecast(mean, bands, method, None, None)
    scale, known = naive_scale(tail[: origins[0]], season), np.isfinite(truth)
    mase = float(np.nanmean(np.abs(errors)) / scale) if scale > 0 else None
    return Forecast(mean, bands, method, float(smape(truth[known], past[known])), mase)


def _backtest(y: Array, request: Request) -> tuple[int, Array, list[int], int]:
    """(season, the tail of the history that methods see, origins in it, most periods ahead)."""
    season = request.season if len(y) >= 2 * request.season else 1
    tail = y[-FIT_SEASONS.get(season, 60) * season :]
    return season, tail, *rolling_origins(len(tail), request.horizon, season)


def _limit(y: Array) -> float:
    """What a method's forecast must not exceed: such numbers are no forecast, but a method that diverged."""
    return 10.0 * float(np.abs(y).max())


def _paths(ys: Array, request: Request) -> list[dict[str, Array]]:
    """Of each series (origins + 1, horizon) forecasts of seasonal naive and of every method of the pool that works.

    Methods see the tail of the history, and origins count in it; only last year's values come from before. Parameters
    are estimated at the first and at the middle origin, and at the end of the history for what gets published: a
    method judged by the parameters of its shortest history alone looks worse than it is. Rows are NaN where a method
    could not answer; it is left out altogether where that is the last one.
    """
    season, tail, origins, _ = _backtest(ys[0], request)
    tails = ys[:, len(ys[0]) - len(tail) :]
    half = (len(origins) + 1) // 2
    fits = [fit for fit in (origins[:half], origins[half:], [len(tail)]) if fit]
    naive = members.seasonal_naive(tails, season, request.horizon, fits)
    found = [{"seasonal_naive": path} for path in naive]
    if is_intermittent(tail):
        # Rare demand's absolute error is least for none at all: where the mean loses by it, a small share of zero mends
        # that, while seasonal naive would make up sales on last week's days.
        for paths in found:
            paths["zero"] = np.zeros_like(naive[0])
    for name, member in pool(tail, request).items():
        histories, before = (ys, len(ys[0]) - len(tail)) if name == "year_before" else (tails, 0)
        rows = _rows(member, histories, season, request.horizon, [[before + o for o in fit] for fit in fits])
        for y, path, paths in zip(ys, rows, found, strict=True):
            path[~(np.abs(path).max(axis=1) <= _limit(y))] = np.nan
            if np.isfinite(path[-1]).all():
                paths[name] = path
    return found


def _rows(member: Member, ys: Array, season: int, horizon: int, fits: Sequence[Sequence[int]]) -> Array:
    """(series, origins, horizon) of all estimations, NaN for those that fail."""
    try:
        return member(ys, season, horizon, fits)
    except Exception:  # a method may fail in any way on odd data; the others answer
        if len(ys) > 1:
            return np.concatenate([_rows(member, one[None], season, horizon, fits) for one in ys])
        if len(fits) > 1:  # it may be that the first estimation alone has too little before it
            return np.concatenate([_rows(member, ys, season, horizon, [fit]) for fit in fits], axis=1)
        return np.full((1, len(fits[0]), horizon), np.nan)


def _combine(paths: dict[str, Array], truth: Array) -> tuple[Array, str]:
    """(path, name) of the pool's mean with the least share of its best method that makes it no worse than naive."""
    naive = paths["seasonal_naive"]
    name = "+".join(name for name in paths if name not in ANCHORS)
    if not name:
        return naive, "seasonal_naive"
    others = np.stack([path for name, path in paths.items() if name not in ANCHORS])
    there = np.isfinite(others).all(axis=2, keepdims=True)  # (methods, origins + 1, 1)
    answers = there.sum(axis=0)
    mean = np.where(answers > 0, np.where(there, others, 0.0).sum(axis=0) / np.maximum(answers, 1), naive)
    if not truth.size:
        return mean, name
    bar = _loss(truth, naive)
    if _loss(truth, mean) <= bar:
        return mean, name
    # Where a method could not answer, the mean stands in for it: all are judged on the same windows.
    whole = {member: np.where(np.isfinite(path), path, mean) for member, path in paths.items()}
    best = min(whole, key=lambda member: _loss(truth, whole[member]))

    def mixed(share: int) -> Array:
        return np.asarray((share * whole[best] + (100 - share) * mean) / 100)

    # The loss is convex in the share, above the bar without the best one and not above it with nothing else.
    share = bisect_left(range(1, 100), True, key=lambda share: _loss(truth, mixed(share)) <= bar) + 1
    if share == 100:
        return whole[best], best
    return mixed(share), f"{1 - share / 100:.2g}*({name})+{share / 100:g}*{best}"


def _loss(truth: Array, path: Array) -> float:
    """Mean absolute error over what is known; truth (origins, ahead) is NaN after the end of the history."""
    known = np.isfinite(truth)
    return float(np.abs(truth - path[: len(truth), : truth.shape[1]])[known].mean())
