"""The forecasting methods that a combination is made of, each as one function of a history.

A member takes a regular history without gaps and returns point forecasts from several origins:
`member(y, season, horizon, origins) -> (origins, horizon)`. Origins ascend. Parameters of the costly ones are
estimated at the first origin and kept while the origin rolls. A member may raise; the caller then does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Member = Callable[[Array, int, int, Sequence[int]], Array]


def seasonal_naive(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """The value one season before, again and again; the last value where a whole season is not there."""
    lag = [season if origin >= season else 1 for origin in origins]
    return np.stack([np.resize(y[origin - m : origin], horizon) for origin, m in zip(origins, lag, strict=True)])


def year_before(y: Array, season: int, horizon: int, origins: Sequence[int], year: int = 364) -> Array:
    """The same weeks of last year, at this year's level; `year` is a multiple of the season, so weekdays stay.

    The level is the ratio of the last four seasons to the same ones a year earlier, drawn half way to 1 in logarithms,
    for one ratio of four weeks is noisy. Raises ValueError without a year and four seasons before the first origin.
    """
    span = 4 * season
    if origins[0] < year + span or horizon > year:
        raise ValueError("less than a year of history")
    rows = []
    for origin in origins:
        now, then = y[origin - span : origin].mean(), y[origin - year - span : origin - year].mean()
        level = np.sqrt(now / then) if now > 0 and then > 0 else 1.0
        rows.append(y[origin - year : origin - year + horizon] * np.clip(level, 0.5, 2.0))
    return np.stack(rows)


def damped_trend(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Damped-trend smoothing of the seasonally adjusted history, in logarithms where every value is positive.

    Gardner & McKenzie (1985), with parameters from a coarse grid by one-step squared error; seasonal indices by
    classical decomposition, drawn towards none by the James–Stein rule of Miller & Williams (2003), since indices
    from a few seasons are noisy.
    """
    positive = bool(y.min() > 0)
    z = np.log(y) if positive else y
    rows = np.stack([_damped_once(z[:origin], season, horizon) for origin in origins])
    return np.exp(rows) if positive else rows


def seasonal_totals(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Means of whole seasons, extrapolated by Theta, spread by the seasonal profile.

    Aggregation in time strengthens what is slow and removes what is seasonal (Kourentzes, Petropoulos & Trapero 2014);
    at the level of seasons simple exponential smoothing with half the linear trend as drift is the Theta method
    (Hyndman & Billah 2003). Raises ValueError where the first origin has fewer than three whole seasons.
    """
    if season < 2 or origins[0] < 3 * season:
        raise ValueError("fewer than three seasons")
    return np.stack([_totals_once(y[:origin], season, horizon) for origin in origins])


def ets(
    y: Array, season: int, horizon: int, origins: Sequence[int], model: str = "ZZZ", damped: bool | None = None
) -> Array:
    """Exponential smoothing in state space form, chosen by AICc (Hyndman et al. 2002).

    damped: True asks for a damped trend (Gardner & McKenzie 1985), False for an undamped one, None for the better.
    """
    from statsforecast.models import AutoETS

    return _rolled(lambda: AutoETS(season_length=season, model=model, damped=damped), y, horizon, origins)


def ces(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Complex exponential smoothing (Svetunkov, Kourentzes & Ord 2022)."""
    from statsforecast.models import AutoCES

    return _rolled(lambda: AutoCES(season_length=season), y, horizon, origins)


def theta(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Dynamic optimised Theta on a multiplicative decomposition (Fiorucci et al. 2016)."""
    return _theta("DOTM", "multiplicative", y, season, horizon, origins)


def theta_additive(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Dynamic optimised Theta on an additive decomposition."""
    return _theta("DOTM", "additive", y, season, horizon, origins)


def theta_standard(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """The Theta method with its line at 2 (Assimakopoulos & Nikolopoulos 2000)."""
    return _theta("STM", "multiplicative", y, season, horizon, origins)


def croston_sba(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Croston's method with the bias correction of Syntetos & Boylan (2005)."""
    from statsforecast.models import CrostonSBA

    return _anew(CrostonSBA, y, horizon, origins)


def tsb(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Teunter, Syntetos & Babai (2011): the chance of a sale fades while nothing sells."""
    from statsforecast.models import TSB

    return _anew(lambda: TSB(alpha_d=0.1, alpha_p=0.05), y, horizon, origins)


def adida(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """Aggregate, smooth, spread evenly (Nikolopoulos et al. 2011)."""
    from statsforecast.models import ADIDA

    return _anew(ADIDA, y, horizon, origins)


def recent_mean(y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    """The mean of each place in the season over the last eight seasons, drawn half way to their common mean."""
    rows = []
    for origin in origins:
        span = min(8, origin // season) * season
        if not span:
            raise ValueError("less than a season")
        profile = y[origin - span : origin].reshape(-1, season).mean(axis=0)
        rows.append(np.resize((profile + profile.mean()) / 2, horizon))
    return np.stack(rows)


def _theta(model: str, decomposition: str, y: Array, season: int, horizon: int, origins: Sequence[int]) -> Array:
    from statsforecast.models import AutoTheta

    def make() -> Any:
        return AutoTheta(season_length=season, decomposition_type=decomposition, model=model)

    return _rolled(make, y, horizon, origins)


def _rolled(make: Callable[[], Any], y: Array, horizon: int, origins: Sequence[int]) -> Array:
    """Fit at the first origin, roll its parameters over the others."""
    first, *others = origins
    if not others:
        return np.asarray(make().forecast(y[:first], horizon)["mean"], np.float64)[None]
    model = make().fit(y[:first])
    rows = [model.predict(horizon)["mean"], *(model.forward(y[:origin], horizon)["mean"] for origin in others)]
    return np.stack(rows).astype(np.float64)


def _anew(make: Callable[[], Any], y: Array, horizon: int, origins: Sequence[int]) -> Array:
    return np.stack([make().forecast(y[:origin], horizon)["mean"] for origin in origins]).astype(np.float64)


# The grid of `damped_trend`: level, trend and damping; damping 0 is a level without trend.
_LEVEL, _TREND, _DAMP = (
    axis.ravel()
    for axis in np.meshgrid(
        [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99],
        [0.0, 0.03, 0.1, 0.2, 0.4],
        [0.0, 0.8, 0.9, 0.95, 1.0],
        indexing="ij",
    )
)


def _damped_once(z: Array, season: int, horizon: int) -> Array:
    index = _seasonal_index(z, season, multiplicative=False)
    x = z - np.resize(index, len(z))
    warm = min(12, len(x) - 1)
    level = np.full(_LEVEL.shape, x[0])
    trend = np.where(_DAMP > 0, (x[warm] - x[0]) / max(warm, 1), 0.0)
    squares = np.zeros(_LEVEL.shape)
    for value in x[1:]:
        ahead = level + _DAMP * trend
        error = value - ahead
        squares += error * error
        level = ahead + _LEVEL * error
        trend = _DAMP * trend + _LEVEL * _TREND * error
    best = int(np.argmin(squares))
    path = level[best] + trend[best] * np.cumsum(_DAMP[best] ** np.arange(1, horizon + 1))
    return np.asarray(path + _ahead(index, len(z), horizon))


def _totals_once(y: Array, season: int, horizon: int) -> Array:
    seasons = len(y) // season
    means = y[len(y) - seasons * season :].reshape(seasons, season).mean(axis=1)
    alphas = np.arange(0.1, 0.95, 0.1)
    level, squares = np.full(alphas.shape, means[0]), np.zeros(alphas.shape)
    for value in means[1:]:
        squares += (value - level) ** 2
        level = level + alphas * (value - level)
    best = int(np.argmin(squares))
    drift = np.polyfit(np.arange(seasons), means, 1)[0] / 2
    steps = np.arange(1, -(-horizon // season) + 2)
    bend = (1 - (1 - alphas[best]) ** seasons) / alphas[best]  # equation 6 of Hyndman & Billah
    knots = np.concatenate([means[-1:], level[best] + drift * (steps - 1 + bend)])
    # A season's mean stands at its middle; between the middles the level is a straight line.
    middles = np.arange(len(knots)) * season - (season + 1) / 2
    path: Array = np.interp(np.arange(horizon), middles, knots)
    if y.min() > 0:
        return path * _ahead(_seasonal_index(y, season, multiplicative=True), len(y), horizon)
    return path + _ahead(_seasonal_index(y, season, multiplicative=False), len(y), horizon)


def _ahead(index: Array, length: int, horizon: int) -> Array:
    return index[(length + np.arange(horizon)) % len(index)]


def _seasonal_index(y: Array, season: int, multiplicative: bool) -> Array:
    """(season,) classical indices from a centred moving average, after shrinkage; neutral under two seasons."""
    neutral = 1.0 if multiplicative else 0.0
    if season < 2 or len(y) < 2 * season:
        return np.full(max(season, 1), neutral)
    window = np.ones(season + 1 - season % 2)
    if season % 2 == 0:
        window[[0, -1]] = 0.5
    trend = np.convolve(y, window / season, "valid")
    start = (len(y) - len(trend)) // 2
    inner = y[start : start + len(trend)]
    ratio = inner / trend if multiplicative else inner - trend
    place = (np.arange(len(trend)) + start) % season
    count = np.maximum(np.bincount(place, minlength=season), 1)
    index = np.bincount(place, ratio, season) / count
    spread = np.bincount(place, (ratio - index[place]) ** 2, season) / np.maximum(count - 1, 1) / count
    index = index / index.mean() if multiplicative else index - index.mean()
    if season > 3:
        between = np.sum((index - neutral) ** 2) / (season - 1)
        keep = max(0.0, 1.0 - (season - 3) / (season - 1) * spread.mean() / max(between, 1e-12))
        index = neutral + keep * (index - neutral)
    return np.asarray(index)
