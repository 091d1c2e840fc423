"""How sure a score is, and whether one model is better than another: resampling of test rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.evaluate.calibration import Array, Ints

Rows = npt.NDArray[Any]  # (n, …): one entry a test row

_EQUAL = 1e-12  # scores closer than this are the same but for rounding


@dataclass(frozen=True)
class Comparison:
    """A challenger's and a champion's score on the same `rows`.

    gain: how much better the challenger is; above 0 is better for losses too.
    low, high: bounds that the gain exceeds, or stays below, with the confidence asked for, each taken by itself.
    p_value: how often a gain as large comes about between equal models.
    resampled: (at most samples,) gains on resampled rows, those that are numbers.
    """

    challenger: float
    champion: float
    gain: float
    low: float
    high: float
    p_value: float
    rows: int
    resampled: Array = field(repr=False, compare=False)

    def summary(self) -> dict[str, float]:
        """All but the resampled gains, for a result file."""
        names = ("challenger", "champion", "gain", "low", "high", "p_value", "rows")
        return {name: getattr(self, name) for name in names}


def macro_f1(truth: Ints, predicted: Ints, k: int) -> float:
    """Mean F1 over those of the k classes that occur in truth or predictions; quick enough to resample."""
    hits = np.bincount(truth[truth == predicted], minlength=k)
    seen = np.bincount(truth, minlength=k) + np.bincount(predicted, minlength=k)
    occurs = seen > 0
    return float((2.0 * hits[occurs] / seen[occurs]).mean())


def accuracy(truth: Rows, predicted: Rows) -> float:
    """Share of equal rows."""
    return float((truth == predicted).mean())


def interval(
    metric: Callable[..., float],
    arrays: Sequence[Rows],
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """(low, high) of metric(*arrays): percentile bootstrap over rows, two-sided (Efron & Tibshirani 1993, ch. 13).

    Samples of which the metric is NaN are left out; both bounds are NaN where all are.
    """
    draws = (metric(*(array[rows] for array in arrays)) for rows in _draws(len(arrays[0]), samples, seed))
    values = np.fromiter(draws, np.float64, samples)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired(
    metric: Callable[[Rows, Rows], float],
    truth: Rows,
    challenger: Rows,
    champion: Rows,
    *,
    higher_is_better: bool = True,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """The gain of challenger over champion in metric(truth, prediction), all three with an entry for each test row.

    The bounds are the paired bootstrap's: the same rows are drawn for both (Efron & Tibshirani 1993; Koehn 2004). Where
    only a few rows tell the models apart they are too narrow: five, all won, are enough at 99 % confidence, and equal
    models win five of five one time in 32. So the p-value is the paired randomisation test's, right for any number of
    rows: predictions change sides by the toss of a coin for each row (Noreen 1989; Yeh 2000).
    """
    assert len(truth) == len(challenger) == len(champion) > 0, "the same test rows, and at least one"
    sign = 1.0 if higher_is_better else -1.0

    def gain(truth: Rows, ours: Rows, theirs: Rows) -> float:
        return sign * (metric(truth, ours) - metric(truth, theirs))

    n = len(truth)
    observed = gain(truth, challenger, champion)
    resampled = np.array([gain(truth[rows], challenger[rows], champion[rows]) for rows in _draws(n, samples, seed)])
    rng = np.random.default_rng([seed, 1])
    reached = 0
    for _ in range(samples):
        change = (rng.random(n) < 0.5).reshape(-1, *[1] * (challenger.ndim - 1))
        swapped = gain(truth, np.where(change, champion, challenger), np.where(change, challenger, champion))
        reached += not swapped < observed - _EQUAL  # NaN speaks against the challenger
    resampled = resampled[np.isfinite(resampled)]  # a metric may not be defined on every draw
    low, high = np.quantile(resampled, [1 - confidence, confidence]) if len(resampled) else (np.nan, np.nan)
    return Comparison(
        challenger=metric(truth, challenger),
        champion=metric(truth, champion),
        gain=observed,
        low=float(low),
        high=float(high),
        p_value=(1 + reached) / (1 + samples),
        rows=n,
        resampled=resampled,
    )


def decide(comparison: Comparison, min_gain: float, confidence: float) -> tuple[bool, str]:
    """(whether to promote, the reason in words).

    Promoted where the gain exceeds min_gain with that confidence: its one-sided lower bound is strictly greater, so
    that the same model never replaces itself at min_gain 0. From min_gain 0 on the randomisation test must agree
    (p < 1 − confidence); below it, where a slightly worse model is allowed, that test asks another question.
    """
    scores = f"{comparison.challenger:.4f} against {comparison.champion:.4f} on {comparison.rows:,} rows"
    gain = f"{scores}: a gain of {comparison.gain:+.4f}"
    sure = f"{100 * confidence:g} % confidence"
    if not np.isfinite(comparison.gain) or not len(comparison.resampled):
        return False, f"{scores}: a score that is no number proves nothing"
    low = float(np.quantile(comparison.resampled, 1 - confidence))
    if not low > min_gain:
        return False, f"{gain}, with {sure} only above {low:+.4f}; more than {min_gain:+g} is asked for"
    if min_gain >= 0 and comparison.p_value >= 1 - confidence:
        return False, f"{gain}, which equal models reach too often for {sure} (p = {comparison.p_value:.3f})"
    return True, f"{gain}, with {sure} above {low:+.4f}; more than {min_gain:+g} was asked for"


def _draws(n: int, samples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return (rng.integers(n, size=n) for _ in range(samples))
