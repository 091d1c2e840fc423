"""Errors of point and quantile forecasts, in the definitions of the forecasting competitions.

Every function takes actual values and forecasts whose last axis is the horizon, and returns one number a series; a
set of series is scored by the mean of those numbers, as the competitions do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def smape(actual: npt.ArrayLike, forecast: npt.ArrayLike) -> Array:
    """Symmetric mean absolute percentage error, 0 … 200: the mean of 200 |y − f| / (|y| + |f|).

    Makridakis & Hibon (2000), the M3 competition. A pair of zeros is a perfect forecast and counts as 0.
    """
    y, f = np.broadcast_arrays(np.asarray(actual, np.float64), np.asarray(forecast, np.float64))
    size = np.abs(y) + np.abs(f)
    ratio = np.divide(np.abs(y - f), size, out=np.zeros(size.shape), where=size > 0)
    return np.asarray(200.0 * ratio.mean(axis=-1))


def naive_scale(history: npt.ArrayLike, season: int, power: int = 1) -> float:
    """The seasonal naive method's mean |error|^power over the history, in sample; NaN under one season and a value."""
    y = np.asarray(history, np.float64)
    if len(y) <= season:
        return float("nan")
    return float(np.mean(np.abs(y[season:] - y[:-season]) ** power))


def mase(actual: npt.ArrayLike, forecast: npt.ArrayLike, history: npt.ArrayLike, season: int) -> Array:
    """Mean absolute scaled error: the mean of |y − f| over `naive_scale` of the history before it.

    Hyndman & Koehler (2006), with the seasonal scale of M4. NaN where the scale is zero or not known.
    """
    error = np.abs(np.asarray(actual, np.float64) - np.asarray(forecast, np.float64)).mean(axis=-1)
    return _over(error, naive_scale(history, season))


def rmsse(actual: npt.ArrayLike, forecast: npt.ArrayLike, history: npt.ArrayLike, season: int = 1) -> Array:
    """Root mean squared scaled error of M5 (Makridakis, Spiliotis & Assimakopoulos 2022); NaN where MASE is."""
    error = ((np.asarray(actual, np.float64) - np.asarray(forecast, np.float64)) ** 2).mean(axis=-1)
    return np.sqrt(_over(error, naive_scale(history, season, power=2)))


def pinball(actual: npt.ArrayLike, quantile: npt.ArrayLike, level: float) -> Array:
    """Quantile loss at a level in (0, 1): level (y − q) above the quantile, (1 − level)(q − y) below.

    Koenker & Bassett (1978). In the unit of the series; its expectation is least at the true quantile.
    """
    gap = np.asarray(actual, np.float64) - np.asarray(quantile, np.float64)
    return np.asarray(np.maximum(level * gap, (level - 1.0) * gap).mean(axis=-1))


def coverage(actual: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Array:
    """Share of the actual values that lie in [low, high]."""
    y = np.asarray(actual, np.float64)
    return np.asarray(((y >= np.asarray(low)) & (y <= np.asarray(high))).mean(axis=-1))


def owa(smape_: float, mase_: float, smape_naive2: float, mase_naive2: float) -> float:
    """Overall weighted average of M4: the mean of sMAPE and MASE, each over Naive 2's; of whole sets of series."""
    return 0.5 * (smape_ / smape_naive2 + mase_ / mase_naive2)


def _over(error: npt.ArrayLike, scale: float) -> Array:
    return np.asarray(error) / scale if scale > 0 else np.full(np.shape(error), np.nan)
