"""Shares and means of few observations, with how sure they are, and differences that are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_LEAST_VARIANCE = 1e-4  # scores are not more exact than a hundredth
_PRIOR = 5.0  # observations' worth of what all groups together vary by, in the variance of a small one


@dataclass(frozen=True)
class Sums:
    """Of observations: how many, their sum, and the sum of their squares. Sums of parts add up."""

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float:
        """NaN of nothing."""
        return self.total / self.n if self.n else float("nan")

    @property
    def spread(self) -> float:
        """Sum of squared deviations from the mean."""
        return max(0.0, self.squares - self.total**2 / self.n) if self.n else 0.0

    def variance(self, usual: float) -> float:
        """Drawn towards what is usual: three equal scores are no proof that a fourth would be equal."""
        return max(_LEAST_VARIANCE, (self.spread + _PRIOR * usual) / (max(0.0, self.n - 1) + _PRIOR))


def share_interval(hits: float, n: float, confidence: float) -> tuple[float, float]:
    """(low, high) of a share: Wilson's score interval (1927), which holds for small n and shares of 0 and 1, too."""
    from scipy.stats import norm

    if not n:
        return 0.0, 1.0
    z2, p = float(norm.ppf((1 + confidence) / 2)) ** 2, hits / n
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (p * (1 - p) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(of: Sums, usual: float, confidence: float) -> tuple[float, float]:
    """(low, high) of a mean: Student's, with the variance of `Sums.variance`."""
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, max(0.0, of.n - 1) + _PRIOR)) * (of.variance(usual) / of.n) ** 0.5
    return of.mean - half, of.mean + half


def mean_p(one: Sums, other: Sums, usual: float) -> float:
    """How often chance parts two equal means so far: Welch's test (1947) with those variances. NaN of nothing."""
    from scipy.stats import t

    if not one.n or not other.n:
        return float("nan")
    parts = [of.variance(usual) / of.n for of in (one, other)]
    error = sum(parts)
    freedom = error**2 / sum(p**2 / (max(0.0, of.n - 1) + _PRIOR) for p, of in zip(parts, (one, other), strict=True))
    return float(2 * t.sf(abs(one.mean - other.mean) / error**0.5, freedom))


def share_p(hits: float, n: float, other_hits: float, other_n: float) -> float:
    """How often chance parts two equal shares so far: the pooled z test. NaN of nothing."""
    from scipy.stats import norm

    if not n or not other_n:
        return float("nan")
    pooled = (hits + other_hits) / (n + other_n)
    error = (pooled * (1 - pooled) * (1 / n + 1 / other_n)) ** 0.5
    return float(2 * norm.sf(abs(hits / n - other_hits / other_n) / error)) if error > 0 else 1.0


def adjusted(p_values: Sequence[float]) -> Array:
    """(n,) p-values that keep the share of false discoveries under the threshold they are held against, of all that are
    looked at together (Benjamini & Hochberg 1995); NaN, which was not tested, stays NaN."""
    p = np.array(p_values, np.float64)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    found = np.full(len(p), np.nan)
    found[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return found
