"""Whether one series tells of another beforehand, held against chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEAST = 40  # common periods under which nothing is said


@dataclass(frozen=True)
class Lead:
    """lag: periods by which the first series is ahead of the second (below 0: behind). correlation: at that lag, of
    what neither series' own last value foretells. p: how often chance gives as strong a one at any lag tried."""

    lag: int
    correlation: float
    p: float


def lead(first: Array, second: Array, most: int) -> Lead | None:
    """The lag of −most … most with the strongest correlation; None where the series are too short or constant.

    Each series is whitened by its own first-order autoregression (Haugh 1976), since two smooth series correlate by
    chance. The p-value is that of the strongest correlation at any lag, among all circular shifts of one series
    against the other that part them by more than `most`: so it needs no correction for the number of lags, and keeps
    what memory either series has left.
    """
    n = len(first)
    if n < max(LEAST, 6 * most + 3):
        return None
    x, y = _whitened(first), _whitened(second)
    if x is None or y is None:
        return None
    # correlation[s]: of x, moved s periods later, with y
    spectrum = np.fft.rfft(y) * np.conj(np.fft.rfft(x))
    correlation = np.fft.irfft(spectrum, len(x)) / len(x)
    lags = np.arange(-most, most + 1)
    strongest = np.abs(correlation[lags])
    best = int(strongest.argmax())
    shifts = np.arange(2 * most + 1, len(x) - 2 * most)
    chance = np.abs(correlation[(shifts[:, None] + lags) % len(x)]).max(axis=1)
    p = (1 + int((chance >= strongest[best] - 1e-12).sum())) / (1 + len(shifts))
    return Lead(int(lags[best]), float(correlation[lags[best]]), p)


def _whitened(values: Array) -> Array | None:
    """(n − 1,) what is left of each value after the one before it; mean 0, deviation 1."""
    centred = values - values.mean()
    power = float(centred[:-1] @ centred[:-1])
    if power <= 1e-18 * len(values):
        return None
    left = centred[1:] - float(centred[1:] @ centred[:-1]) / power * centred[:-1]
    left = left - left.mean()
    deviation = float(left.std())
    return left / deviation if deviation > 1e-12 else None
