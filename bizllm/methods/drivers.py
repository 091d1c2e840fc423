"""What a forecast rests on, in parts that add up to it: level, recent change, season and trend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bizllm.methods import seasonal

Array = npt.NDArray[np.float64]

SEASONS = 52  # of the history that make the level: a year of weeks; older ones are another business


def of_forecast(y: Array, mean: Array, season: int, gap: int = 0) -> dict[str, Array]:
    """Effects (horizon,) that add up to `mean` (horizon,), whichever methods made it.

    level: the mean of the history's last whole seasons, at most SEASONS of them. recent: how far the mean of the last
    periods lies from it: as many as the horizon has, in whole seasons, at most half of those. season: the index of the
    period's place in the season (classical decomposition, in units of y, shrunken as the forecasts' own); there with
    two whole seasons. trend: what is left: how far the methods see the series go from its recent mean, by its trend,
    last year's weeks or a trained model. y: the history, gap: periods between it and the first of `mean`.
    """
    scale = max(float(np.abs(y).max()), float(np.abs(mean).max())) or 1.0  # sums of huge numbers stay finite
    y, mean = y / scale, mean / scale
    season = season if len(y) >= 2 * season else 1
    seasons = min(len(y) // season, SEASONS if season > 1 else len(y))
    tail = y[len(y) - seasons * season :]
    last = min(-(-len(mean) // season), max(1, seasons // 2)) * season
    level, recent = float(tail.mean()), float(tail[-last:].mean())
    effects = {"level": np.full(len(mean), level), "recent": np.full(len(mean), recent - level)}
    if season > 1:
        index = seasonal.indices(tail, season, [len(tail)], multiplicative=False)[1]
        effects["season"] = seasonal.ahead(index, [len(tail)], gap + len(mean))[0, gap:]
    effects["trend"] = mean - np.sum(list(effects.values()), axis=0)
    return {name: scale * effect for name, effect in effects.items()}
