"""When to order and how much: demand until an order could arrive, drawn from a forecast's quantiles, and a policy.

Demand is drawn with the same ranks for every item, so that an answer depends on its item alone. A policy is (R, s, S):
at each review, where what is there and on order is at most s, order up to S (Silver, Pyke & Thomas, Inventory and
Production Management in Supply Chains, 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

DRAWS = 1000
SEED = 20110531
WEEK = 7
# Days of history whose sums stand beside the forecast's, and their say where all of them are known.
PAST_DAYS, PAST_SHARE = 168, 0.5
RECENT_DAYS = 56  # half way to whose mean those sums are moved


@dataclass(frozen=True)
class Demand:
    """Demand from now on, drawn.

    ends: (periods + 1,) days from now at which each period ends, ascending from 0.
    total: (periods + 1, draws) demand until then.
    """

    ends: Array
    total: Array

    def until(self, days: Array) -> Array:
        """(draws,) demand until so many days from now in each draw; within a period it comes evenly.

        days: (draws,) none after the last period's end.
        """
        after = np.clip(np.searchsorted(self.ends, days, side="left"), 1, len(self.ends) - 1)
        draw = np.arange(len(days))
        low, high = self.total[after - 1, draw], self.total[after, draw]
        share = (days - self.ends[after - 1]) / (self.ends[after] - self.ends[after - 1])
        return np.asarray(low + share * (high - low))

    def days_for(self, units: float) -> float | None:
        """Days until mean demand has used up so many units; after the last period at that one's rate, or that of the
        last week's days. None where there is no demand to do it."""
        mean = self.total.mean(axis=1)
        if units <= 0:
            return 0.0
        if units <= mean[-1]:
            return float(np.interp(units, mean, self.ends))
        back = int(np.searchsorted(self.ends, self.ends[-1] - WEEK, side="right")) - 1
        back = min(max(back, 0), len(mean) - 2)
        rate = (mean[-1] - mean[back]) / (self.ends[-1] - self.ends[back])
        return float(self.ends[-1] + (units - mean[-1]) / rate) if rate > 0 else None


@dataclass(frozen=True)
class Terms:
    """What an item's orders cost and how they come.

    service: the probability that a cycle has no stock-out, or the share of demand that is met (`fill`), where no
        shortage cost is known. holding, shortage, order: cost of a unit and day, of a unit that is short, of an order;
        None is not known. most_days: of demand that one order may cover for its cost's sake.
    """

    review: float
    service: float = 0.95
    fill: bool = False
    holding: float | None = None
    shortage: float | None = None
    order: float = 0.0
    least: float = 0.0
    pack: float = 1.0
    most_days: float = 90.0


@dataclass(frozen=True)
class Policy:
    """reorder: s; up_to: S; lot: the mean order Q. mean: demand over lead time and review. within: the probability with
    which it stays within s. cost: of a day under this policy, None where holding has no cost."""

    reorder: float
    up_to: float
    lot: float
    mean: float
    within: float
    cost: float | None

    def order(self, position: float, terms: Terms) -> float:
        """Units to order now: in whole packs, at least the least order; 0 above the reorder point."""
        need = self.up_to - position
        if position > self.reorder or need <= 1e-9:
            return 0.0
        # A millionth of a pack is no reason for one more.
        return max(ceil(max(need, terms.least) / terms.pack - 1e-6), 1) * terms.pack


def demand(
    mean: Array, quantiles: Array, levels: Sequence[float], ends: Array, correlation: float, at_least: float = 0.0
) -> Demand:
    """Demand until the end of each period.

    mean: (periods,). quantiles: (levels, periods) at ascending levels. ends: (periods,) days from now.
    correlation: of two periods' forecast errors, in ranks. at_least: days that are needed; periods are repeated for
    them, the last seven where they are days, else the last one.
    """
    ends = np.concatenate([[0.0], ends])
    each = _marginals(mean, quantiles, tuple(levels))
    if at_least > ends[-1]:
        last = WEEK if len(mean) >= WEEK and np.allclose(np.diff(ends)[-WEEK:], 1.0) else 1
        lengths, needed = np.diff(ends)[-last:], at_least - ends[-1]
        again = np.arange(ceil(needed / lengths.sum()) * last) % last
        each = np.concatenate([each, each[len(mean) - last + again]])
        ends = np.concatenate([ends, ends[-1] + np.cumsum(lengths[again])])
    drawn = np.take_along_axis(each, _ranks(len(each), correlation), axis=1)
    return Demand(ends, np.concatenate([np.zeros((1, DRAWS)), np.cumsum(drawn, axis=0)]))


def with_past(drawn: Array, past: Array, days: Array) -> Array:
    """(draws,) quantiles of demand, ascending: those drawn, averaged with those of what sold in as many days before.

    Averaged quantiles are sharper than a mixture (Lichtendahl, Grushka-Cockayne & Winkler, 2013). drawn: (draws,).
    past: (days,) units of each day up to now, the newest last; no more than PAST_DAYS count, moved half way to the last
    weeks' level. Where they are too few for two windows, they have no say. days: (draws,) that each draw covers.
    """
    past = past[-PAST_DAYS:]
    long = np.ceil(days - 1e-9).astype(np.int64)
    if len(past) < 2 * long.max():
        return np.sort(drawn)
    sums = np.concatenate([[0.0], np.cumsum(past)])
    # Each draw has a window of its length, spread evenly over the history.
    first = np.floor((len(past) - long + 1) * (_order()[::-1] + 0.5) / DRAWS).astype(np.int64)
    share = PAST_SHARE * len(past) / PAST_DAYS
    sold = sums[first + long] - sums[first] + (past[-RECENT_DAYS:].mean() - past.mean()) / 2 * days
    if past.min() >= 0:
        sold = np.maximum(sold, 0.0)
    return np.asarray((1 - share) * np.sort(drawn) + share * np.sort(sold))


def lead_times(mean: float, sd: float) -> Array:
    """(draws,) whole days until an order arrives: a gamma's quantiles (Burgin, 1975), in an order of their own."""
    if sd <= 0:
        return np.full(DRAWS, float(ceil(mean - 1e-9)))
    return np.asarray(np.ceil(mean * _gamma((mean / sd) ** 2) - 1e-9)[_order()])


def policy(over: Array, rate: float, terms: Terms) -> Policy:
    """over: (draws,) demand over lead time and review. rate: mean demand of a day.

    The mean order Q is the economic one (Harris, 1913), no less than a review's demand, the least order or a pack.
    With a shortage cost p, holding cost h and rate d, demand goes over s with probability hQ / (hQ + pd): the
    newsvendor's fractile where Q is the demand of one review (Hadley & Whitin, 1963, of lost sales).
    """
    drawn = np.sort(over)
    if rate <= 0:
        return Policy(0.0, 0.0, 0.0, 0.0, 1.0, None if terms.holding is None else 0.0)
    per_review = rate * terms.review
    lot = max(per_review, terms.least, terms.pack)
    if terms.holding and terms.order:
        lot = max(lot, min(sqrt(2 * terms.order * rate / terms.holding), rate * terms.most_days))
    if terms.shortage is not None and terms.holding is not None:
        within = 1.0 - terms.holding * lot / (terms.holding * lot + terms.shortage * rate)
        reorder = _at(drawn, within)
    elif terms.fill:
        reorder = _of_shortage(drawn, (1.0 - terms.service) * lot)
    else:
        reorder = _at(drawn, terms.service)
    left, short = np.maximum(reorder - drawn, 0.0).mean(), np.maximum(drawn - reorder, 0.0).mean()
    cost = None
    if terms.holding is not None:
        cycles = rate / lot
        cost = float(terms.holding * (left + lot / 2) + (terms.shortage or 0.0) * short * cycles + terms.order * cycles)
    within = float((drawn <= reorder + 1e-9).mean())
    return Policy(reorder, reorder + (lot - per_review), lot, float(drawn.mean()), within, cost)


def _at(drawn: Array, probability: float) -> float:
    return float(np.quantile(drawn, probability))


def _of_shortage(drawn: Array, most: float) -> float:
    """The least level over which demand goes by no more than `most` on average."""
    # Between two draws the mean excess is linear: (sum of the draws above - level x how many) / all.
    above = np.concatenate([np.cumsum(drawn[::-1])[::-1], [0.0]])
    count = len(drawn) - np.arange(len(drawn))
    excess = (above[:-1] - drawn * count) / len(drawn)  # at each draw, descending
    i = int(np.searchsorted(-excess, -most))
    if i == 0:
        return max(float(drawn.mean() - most), 0.0)
    return float((above[i] - most * len(drawn)) / (len(drawn) - i))


def _marginals(mean: Array, quantiles: Array, levels: tuple[float, ...]) -> Array:
    """(periods, draws) the quantiles of each period at the middle of every draw's share, ascending, with its mean.

    Between and beyond the levels they lie on a line in the normal's quantiles, and all move by what the mean is off.
    Where the lowest quantile is 0 a forecast was cut there, and says too often that something sells: as many of the
    smallest draws are 0 as bring the mean down, or the largest grow until it is reached.
    """
    values = quantiles.T @ _weights(levels)
    uncut = quantiles[0] > 0
    values[uncut] += (mean - values.mean(axis=1))[uncut, None]
    if (quantiles >= 0).all():
        values = np.maximum(values, 0.0)
        for row, wanted in zip(values, mean, strict=True):
            off = row.mean() - wanted
            if off > 0:
                _thin(row, max(wanted, 0.0) * DRAWS)
            elif off < 0:
                tail = _exponential(levels[-1])
                row -= off / tail.mean() * tail
    return values


def _thin(row: Array, total: float) -> None:
    """Set the smallest to 0, and the next to a part of itself, so that all add up to the total. row: ascending."""
    from_top = np.cumsum(row[::-1])
    kept = int(np.searchsorted(from_top, total))
    cut = len(row) - kept - 1
    row[: cut + 1] = 0.0
    row[cut] = total - (from_top[kept - 1] if kept else 0.0)


@lru_cache(maxsize=8)
def _weights(levels: tuple[float, ...]) -> Array:
    """(levels, draws) so that quantiles @ weights interpolates in the normal's quantiles."""
    normal = NormalDist()
    known = np.array([normal.inv_cdf(level) for level in levels])
    asked = np.array([normal.inv_cdf((i + 0.5) / DRAWS) for i in range(DRAWS)])
    high = np.clip(np.searchsorted(known, asked), 1, len(known) - 1)
    share = (asked - known[high - 1]) / (known[high] - known[high - 1])
    weights = np.zeros((len(known), DRAWS))
    weights[high - 1, np.arange(DRAWS)] = 1 - share
    weights[high, np.arange(DRAWS)] += share
    return weights


@lru_cache(maxsize=8)
def _exponential(level: float) -> Array:
    """(draws,) 0 up to the level, an exponential's quantiles above."""
    above = (np.arange(DRAWS) + 0.5) / DRAWS
    first = min(level, 1 - 1.5 / DRAWS)
    return np.asarray(np.where(above > first, np.log((1 - first) / (1 - above)), 0.0))


@lru_cache(maxsize=64)
def _ranks(periods: int, correlation: float) -> Whole:
    """(periods, draws) each row a permutation: ranks of normals that share a factor."""
    rng = np.random.default_rng(SEED)
    shared = rng.standard_normal(DRAWS)
    rows = [sqrt(correlation) * shared + sqrt(1 - correlation) * rng.standard_normal(DRAWS) for _ in range(periods)]
    return np.stack([np.argsort(np.argsort(row)) for row in rows])


@lru_cache(maxsize=1)
def _order() -> Whole:
    return np.random.default_rng(SEED + 1).permutation(DRAWS)


@lru_cache(maxsize=4096)
def _gamma(shape: float) -> Array:
    """(draws,) quantiles of a gamma with mean 1."""
    from scipy.special import gammaincinv

    return np.asarray(gammaincinv(shape, (np.arange(DRAWS) + 0.5) / DRAWS) / shape)
