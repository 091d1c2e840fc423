"""Rolling-origin evaluation: where the origins lie, and what came after each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rolling_origins(length: int, horizon: int, season: int, windows: int = 6) -> tuple[list[int], int]:
    """(origins in ascending order, periods ahead) for a history of that length; no origins where it is too short.

    An origin o stands for: y[:o] is known, y[o:o + ahead] is forecast. The last window ends with the history. Windows
    overlap where there is no room for separate ones (Tashman 2000). The first origin keeps three seasons and six tenths
    of the history before it, so that a method's parameters there are worth judging; a history too short for that is
    asked for fewer periods ahead.
    """
    least = max(3 * season, 5, (6 * length + 9) // 10)
    if length <= least:
        least = max(season + 2, 4)  # two thirds of a year of months are better than no backtest
    room = length - least
    if room < 1:
        return [], 0
    ahead = min(horizon, room)
    step = max(1, min(ahead, (room - ahead) // max(1, windows - 1)))
    count = min(windows, 1 + (room - ahead) // step)
    last = length - ahead
    return [last - step * i for i in range(count)][::-1], ahead


def realised(y: Array, origins: list[int], ahead: int) -> Array:
    """(origins, ahead) what came after each origin."""
    return np.stack([y[origin : origin + ahead] for origin in origins])
