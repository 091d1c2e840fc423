"""Rolling-origin evaluation: where the origins lie, and what came after each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rolling_origins(length: int, horizon: int, season: int, windows: int = 12) -> tuple[list[int], int]:
    """(origins in ascending order, most periods ahead) for a history of that length; no origins where it is too short.

    An origin o stands for: y[:o] is known, y[o:o + ahead] is forecast, as far as the history goes. Origins spread
    evenly over the second half of the history up to its last period, so that the windows of the last ones are shorter
    (Tashman 2000): of the 12 windows of ten years of months most have all 18 months, the others tell of the near ones.
    Origins of the last two horizons alone see one mood of the series, and favour what fits it by chance.
    The first origin has three seasons before it, or one and two periods where the history has no more.
    """
    least = max(3 * season, 5, (length + 1) // 2)
    if length - least < 2:
        least = max(season + 2, 4)  # two thirds of a year of months are better than no backtest
    room = length - least
    if room < 1:
        return [], 0
    origins = np.linspace(least, length - 1, min(windows, room)).round().astype(int).tolist()
    return origins, min(horizon, room)


def realised(y: Array, origins: Sequence[int], ahead: int) -> Array:
    """(origins, ahead) what came after each origin; NaN after the end of the history."""
    return np.concatenate([y, np.full(ahead, np.nan)])[np.add.outer(origins, np.arange(ahead))]
