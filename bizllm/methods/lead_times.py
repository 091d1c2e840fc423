"""How long deliveries take, by supplier, lane and the like: quantiles learned from those that came and those still out.

An accelerated failure time model: log(1 + days) is a level, a slope in the promised time, an effect of every value of a
factor and of every pair, and an error whose spread has such effects, too. Effects are drawn towards none by variances
that EM estimates (Laird & Ware, 1982): a supplier with two deliveries is told little apart from the others. What is
still out counts with its expected time (Buckley & James, 1979). Errors have no assumed shape: they are those of
deliveries that were held out, by Kaplan & Meier (1958), with an exponential tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

OUTER, INNER, FOLDS = 12, 12, 5
GRID = np.linspace(0.0, 0.95, 191)  # of the errors' quantiles; above stands the tail
OUTLIER = 4.0  # spreads from which on an error has no more influence
WIDEST = np.log(4.0)  # of the logarithm of a spread: how far it may be from the usual one
MOST_DAYS = 3650.0
MEAN_OF = 40  # quantiles that stand for all, for a mean
LOG_ABS_NORMAL_VARIANCE = np.pi**2 / 8  # of log |error|, were it normal: where EM for the spread begins


@dataclass(frozen=True)
class Effects:
    """values: of each group of columns, an effect by level. variances: how unsure each is. between, within: variances
    of effects by group, and of what they leave."""

    level: float
    slope: float
    values: list[Array]
    variances: list[Array]
    between: Array
    within: float

    def at(self, codes: Sequence[Whole], x: Array) -> Array:
        """(rows,) what is expected."""
        total = self.level + self.slope * x
        for effect, code in zip(self.values, codes, strict=True):
            total = total + np.append(effect, 0.0)[code]  # −1: an unknown level has none
        return total

    def unsure(self, codes: Sequence[Whole]) -> Array:
        """(rows,) variance of that, where an unknown level may be any."""
        total = np.zeros(len(codes[0]))
        for variance, code, between in zip(self.variances, codes, self.between, strict=True):
            total += np.append(variance, between)[code]
        return total


@dataclass(frozen=True)
class Deliveries:
    """Past ones. values: (rows, factors) names of levels, '' for none. promised: (rows,) days, NaN for none.
    days: (rows,) until it came, or until now. came: (rows,). weights: (rows,) how much each counts."""

    values: npt.NDArray[np.object_]
    promised: Array
    days: Array
    came: Flags
    weights: Array


@dataclass(frozen=True)
class Parts:
    """What makes up log(1 + days) of some orders.

    place, spread: (rows,). codes: by group, (rows,) each. promise: (rows,) of log(1 + days), centred. came: (rows,)
    past deliveries of the rarest pair; where there is one factor, of its level.
    """

    place: Array
    spread: Array
    codes: list[Whole]
    promise: Array
    came: Whole


@dataclass(frozen=True)
class LeadTimes:
    """What was learned.

    groups: the factors of each group: one, or a pair. names: their levels, ascending. came: past deliveries of each.
    centre: log(1 + days) that is promised on average. errors: their quantiles at GRID. tail: mean excess over the last.
    """

    groups: list[tuple[int, ...]]
    names: list[list[str]]
    centre: float
    place: Effects
    spread: Effects
    errors: Array
    tail: float
    came: list[Array]

    def parts(self, values: npt.NDArray[np.object_], promised: Array) -> Parts:
        """values: (rows, factors) names of levels. promised: (rows,) days, NaN for none."""
        codes = [_codes(values, group, names) for group, names in zip(self.groups, self.names, strict=True)]
        x = _centred(promised, self.centre)
        counts = [np.append(of, 0.0)[code] for code, of in zip(codes, self.came, strict=True)]
        rarest = np.min(counts, axis=0).astype(np.int64)
        return Parts(self.place.at(codes, x), _spread(self.place, self.spread, codes, x), codes, x, rarest)

    def moves(self, parts: Parts, median: Array) -> list[Array]:
        """Of each group, and last of the promise: (rows,) days by which it moves that median."""
        logs = [np.append(effect, 0.0)[code] for effect, code in zip(self.place.values, parts.codes, strict=True)]
        return [(1 + median) * -np.expm1(-log) for log in [*logs, self.place.slope * parts.promise]]

    def late(self, promised: Array, waited: Array, parts: Parts) -> tuple[Array, Array]:
        """((rows,) probability that it takes more days than promised, as it has not come in those that were waited;
        (rows,) mean days beyond). NaN where nothing was promised."""
        over = promised <= waited
        with np.errstate(invalid="ignore"):
            later = self.survival(np.maximum(promised, waited), parts) / self.survival(waited, parts)
        later = np.where(np.isnan(later), 1.0, later)  # waited for beyond all that is known
        beyond = np.zeros(len(waited))
        for i in range(MEAN_OF):
            days = self.quantile((i + 0.5) / MEAN_OF, waited, parts)
            beyond += np.maximum(np.floor(days + 0.5) - promised, 0.0) / MEAN_OF
        return np.where(np.isnan(promised), np.nan, np.where(over, 1.0, np.clip(later, 0.0, 1.0))), beyond

    def survival(self, days: Array, parts: Parts) -> Array:
        """(rows,) probability that it takes more than so many days."""
        error = (np.log1p(np.maximum(days + 0.5, 0.0)) - parts.place) / parts.spread
        body = 1.0 - np.interp(error, self.errors, GRID, left=0.0)
        beyond = np.maximum(error - self.errors[-1], 0.0)
        return np.where(beyond > 0, (1 - GRID[-1]) * np.exp(-beyond / self.tail), body)

    def quantile(self, level: float, waited: Array, parts: Parts) -> Array:
        """(rows,) days until it comes with that probability, where it has not come in the days that were waited."""
        left = self.survival(waited, parts) * (1.0 - level)
        with np.errstate(divide="ignore"):
            above = self.errors[-1] + self.tail * np.log((1 - GRID[-1]) / left)
        error = np.where(left < 1 - GRID[-1], above, np.interp(1.0 - left, GRID, self.errors))
        # A wait beyond all that is known leaves no probability to divide.
        error = np.where(left > 0, error, np.inf)
        found = np.expm1(np.minimum(parts.place + parts.spread * error, np.log1p(MOST_DAYS)))
        return np.clip(found, waited + 0.5, None)

    def state(self) -> dict[str, Any]:
        """As arrays and JSON."""
        made: dict[str, Any] = {
            "groups": [list(group) for group in self.groups],
            "names": self.names,
            "numbers": {"centre": self.centre, "tail": self.tail},
            "errors": self.errors,
        }
        for part, effects in (("place", self.place), ("spread", self.spread)):
            made["numbers"][part] = [effects.level, effects.slope, effects.within]
            made[f"{part}_between"] = effects.between
            made[f"{part}_values"] = np.concatenate(effects.values)
            made[f"{part}_variances"] = np.concatenate(effects.variances)
        return made | {"came": np.concatenate(self.came)}

    @classmethod
    def of(cls, state: dict[str, Any]) -> LeadTimes:
        """From what `state` gave."""
        cuts = np.cumsum([len(names) for names in state["names"]])[:-1]

        def effects(part: str) -> Effects:
            level, slope, within = state["numbers"][part]
            values, variances = (np.split(state[f"{part}_{name}"], cuts) for name in ("values", "variances"))
            return Effects(level, slope, values, variances, state[f"{part}_between"], within)

        numbers = state["numbers"]
        groups = [tuple(group) for group in state["groups"]]
        came = np.split(state["came"], cuts)
        place, spread = effects("place"), effects("spread")
        return cls(groups, state["names"], numbers["centre"], place, spread, state["errors"], numbers["tail"], came)


def learn(past: Deliveries) -> LeadTimes:
    """What there is to learn; some deliveries must have come."""
    factors = past.values.shape[1]
    groups: list[tuple[int, ...]] = [(f,) for f in range(factors)]
    groups += list(combinations(range(factors), 2))
    joined = [_joined(past.values, group) for group in groups]
    names = [sorted(set(of) - {""}) for of in joined]
    codes = [_codes(past.values, group, known) for group, known in zip(groups, names, strict=True)]
    said = np.log1p(past.promised)
    centre = float(np.nanmean(said)) if np.isfinite(said).any() else 0.0
    x = _centred(past.promised, centre)
    place, spread = _fit(past, codes, x, [len(known) for known in names])
    errors = (np.log1p(past.days) - place.at(codes, x)) / _spread(place, spread, codes, x)
    fold = np.arange(len(x)) % FOLDS
    for number in range(FOLDS):
        held = fold == number
        kept = Deliveries(*(getattr(past, name)[~held] for name in Deliveries.__dataclass_fields__))
        own = [code[~held] for code in codes]
        if not kept.came.any():
            continue
        away, wide = _fit(kept, own, x[~held], [len(known) for known in names], (place, spread))
        there = [code[held] for code in codes]
        errors[held] = (np.log1p(past.days[held]) - away.at(there, x[held])) / _spread(away, wide, there, x[held])
    quantiles, tail = _distribution(errors, past.came, past.weights)
    came = [
        np.bincount(code[(code >= 0) & past.came], minlength=len(known)).astype(np.float64)
        for code, known in zip(codes, names, strict=True)
    ]
    return LeadTimes(groups, names, centre, place, spread, quantiles, tail, came)


def _fit(
    past: Deliveries, codes: list[Whole], x: Array, sizes: list[int], known: tuple[Effects, Effects] | None = None
) -> tuple[Effects, Effects]:
    """(place, spread) of log(1 + days). known: effects whose variances stand, and where to begin."""
    y, came, weights = np.log1p(past.days), past.came, past.weights
    target = y.copy()
    place, spread = known or (None, None)
    for _ in range(OUTER if known is None else 2):
        place = _effects(target, weights, codes, x, sizes, place, fixed=known is not None)
        error = y - place.at(codes, x)
        # Spreads are learned from what came. A twentieth of the usual one keeps a perfect guess from having none.
        size = np.log(np.abs(error) + 0.05 * np.sqrt(place.within) + 1e-6)
        spread = _effects(size, weights * came, codes, np.zeros_like(x), sizes, spread, known is not None, spread=True)
        wide = _spread(place, spread, codes, x)
        if came.all():
            target = y
            continue
        target = np.where(came, y, place.at(codes, x) + wide * _expected_after(error / wide, came, weights))
    assert place is not None and spread is not None
    return place, spread


def _effects(
    target: Array,
    weights: Array,
    codes: list[Whole],
    x: Array,
    sizes: list[int],
    start: Effects | None,
    fixed: bool,
    spread: bool = False,
) -> Effects:
    """EM by backfitting. fixed: variances stay those of `start`."""
    total = weights.sum()
    mean = float(weights @ target / total)
    variance = max(float(weights @ (target - mean) ** 2 / total), 1e-8)
    if start is None:
        within = LOG_ABS_NORMAL_VARIANCE if spread else variance / 2
        start = Effects(mean, 0.0, [np.zeros(n) for n in sizes], [], np.full(len(sizes), variance / 4), within)
    level, slope, within = start.level, start.slope, start.within
    values, between = [effect.copy() for effect in start.values], start.between.copy()
    variances = [np.zeros(n) for n in sizes]
    counts = [np.bincount(c[c >= 0], weights[c >= 0], n) for c, n in zip(codes, sizes, strict=True)]

    def fitted() -> Array:
        return Effects(level, slope, values, variances, between, within).at(codes, x)

    spread_x = float(weights @ x**2)
    for _ in range(INNER):
        now = fitted()
        limit = OUTLIER * np.sqrt(within)
        left = np.clip(target - now, -limit, limit)
        for g, code in enumerate(codes):
            there = code >= 0
            shrink = within / between[g]
            sums = np.bincount(code[there], (weights * left)[there], sizes[g]) + counts[g] * values[g]
            new = sums / (counts[g] + shrink)
            left[there] -= (new - values[g])[code[there]]
            values[g], variances[g] = new, within / (counts[g] + shrink)
            if not fixed and sizes[g]:
                between[g] = max(float(np.mean(new**2 + variances[g])), 1e-8)
        step = float(weights @ left / total)
        level, left = level + step, left - step
        if spread_x > 0:
            # A promise is drawn towards no influence as if by a delivery of the usual distance.
            turn = float((weights @ (left * x) - 0.01 * slope) / (spread_x + 0.01))
            slope, left = slope + turn, left - turn * x
        if not fixed:
            unsure = Effects(level, slope, values, variances, between, within).unsure(codes)
            within = max(float(weights @ (left**2 + unsure) / total), 1e-8)
    return Effects(level, slope, values, variances, between, within)


def _spread(place: Effects, spread: Effects, codes: list[Whole], x: Array) -> Array:
    """(rows,) how far errors of log(1 + days) spread, what is not known of the place included."""
    log = np.clip(spread.at(codes, np.zeros_like(x)), spread.level - WIDEST, spread.level + WIDEST)
    return np.asarray(np.exp(log) * np.sqrt(1 + place.unsure(codes) / place.within))


def _expected_after(errors: Array, came: Flags, weights: Array) -> Array:
    """(rows,) the mean of errors greater than each, as far as any came."""
    order = np.argsort(errors, kind="stable")
    ascending, mass = errors[order], _mass(errors, came, weights)[order]
    above = np.cumsum(mass[::-1])[::-1]
    sums = np.cumsum((mass * ascending)[::-1])[::-1]
    at = np.searchsorted(ascending, errors, side="right")
    found = errors.copy()
    some = at < len(errors)
    some[some] = above[at[some]] > 1e-12
    found[some] = sums[at[some]] / above[at[some]]
    usual = np.sqrt(np.average(errors**2, weights=weights * came))
    return np.asarray(np.minimum(found, np.maximum(errors, OUTLIER * usual)))


def _mass(errors: Array, came: Flags, weights: Array) -> Array:
    """(rows,) Kaplan and Meier's probability of each error, those that did not come having none; the greatest of all
    counts as if it had come (Efron, 1967)."""
    # Of equal errors, those of what came are first: what is still out was out until then.
    order = np.lexsort((~came, errors))
    w, event = weights[order], came[order].copy()
    event[-1] = True
    at_risk = np.cumsum(w[::-1])[::-1]
    stays = np.where(event, 1.0 - w / at_risk, 1.0)
    survival = np.concatenate([[1.0], np.cumprod(stays)])
    mass = np.empty(len(errors))
    mass[order] = survival[:-1] - survival[1:]
    return mass


def _distribution(errors: Array, came: Flags, weights: Array) -> tuple[Array, float]:
    """(quantiles at GRID, mean excess over the last)."""
    order = np.argsort(errors, kind="stable")
    mass = np.cumsum(_mass(errors, came, weights)[order])
    middle = (mass + np.concatenate([[0.0], mass[:-1]])) / 2
    step = np.flatnonzero(np.diff(mass, prepend=0.0) > 0)
    quantiles = np.interp(GRID, middle[step], errors[order][step])
    quantiles = np.maximum.accumulate(quantiles + 1e-9 * np.arange(len(quantiles)))
    beyond = errors > quantiles[-1]
    events = float(weights[beyond & came].sum())
    excess = float(weights[beyond] @ (errors[beyond] - quantiles[-1]))
    # As if one more had been as far out as the body's last tenth says.
    usual = max(float(quantiles[-1] - quantiles[-21]) / np.log(3), 1e-3)
    return quantiles, (excess + usual) / (events + 1.0)


def _centred(promised: Array, centre: float) -> Array:
    """(rows,) 0 where nothing was promised."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(promised), np.log1p(np.maximum(promised, 0.0)) - centre, 0.0)


def _joined(values: npt.NDArray[np.object_], group: tuple[int, ...]) -> list[str]:
    """(rows,) the level of a group; '' where one of its factors has none."""
    if len(group) == 1:
        return [str(value) for value in values[:, group[0]]]
    rows = values[:, list(group)].tolist()
    return ["" if "" in row else "\x1f".join(row) for row in rows]


def _codes(values: npt.NDArray[np.object_], group: tuple[int, ...], names: Sequence[str]) -> Whole:
    """(rows,) the place of each level; −1 of one that is not known."""
    place = {name: i for i, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in _joined(values, group)], np.int64)
