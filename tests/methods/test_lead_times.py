"""Lead times against worlds whose truth is known, other libraries, and closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from bizllm.methods import lead_times
from bizllm.methods.lead_times import Deliveries, LeadTimes


def deliveries(
    n: int = 2000,
    seed: int = 0,
    until: float = np.inf,
    effects: tuple[float, ...] = (0.5, 0.0, -0.4),
    spread: float = 0.2,
) -> Deliveries:
    """Lognormal lead times of three suppliers on two lanes, seen for so many days."""
    rng = np.random.default_rng(seed)
    supplier, lane = rng.integers(0, len(effects), n), rng.integers(0, 2, n)
    days = np.round(np.exp(3.0 + np.array(effects)[supplier] + 0.3 * lane + spread * rng.standard_normal(n)))
    values = np.array([[f"s{s}", f"l{k}"] for s, k in zip(supplier, lane, strict=True)], object)
    return Deliveries(values, np.full(n, np.nan), days, np.full(n, True), np.ones(n))


def asked(
    model: LeadTimes, supplier: str, lane: str, level: float, waited: float = -1, promised: float = np.nan
) -> float:
    parts = model.parts(np.array([[supplier, lane]], object), np.array([promised]))
    return float(model.quantile(level, np.array([waited]), parts)[0])


@pytest.mark.parametrize("level", [0.05, 0.1, 0.5, 0.9, 0.95, 0.99])
def test_quantiles_of_a_known_world(level: float) -> None:
    model = lead_times.learn(deliveries())
    for supplier, effect in (("s0", 0.5), ("s1", 0.0), ("s2", -0.4)):
        expected = stats.lognorm(0.2, scale=np.exp(3.3 + effect)).ppf(level)
        assert asked(model, supplier, "l1", level) == pytest.approx(expected, rel=0.07)


def seen(past: Deliveries, until: np.ndarray) -> Deliveries:
    """As it looked after so many days of each."""
    return replace(past, days=np.minimum(past.days, until), came=past.days <= until)


def test_what_has_not_come_is_not_forgotten() -> None:
    """Three fifths are still out, ordered in the last 40 days; quantiles are near those of all."""
    past = deliveries()
    whole = lead_times.learn(past)
    now = seen(past, np.random.default_rng(1).uniform(0, 40, len(past.days)).round())
    assert now.came.mean() < 0.45
    model = lead_times.learn(now)
    for supplier, lane in (("s0", "l1"), ("s1", "l0"), ("s2", "l0")):
        for level in (0.1, 0.5, 0.9):
            expected = asked(whole, supplier, lane, level)
            assert asked(model, supplier, lane, level) == pytest.approx(expected, rel=0.12)
    came = Deliveries(*(getattr(now, name)[now.came] for name in Deliveries.__dataclass_fields__))
    assert asked(lead_times.learn(came), "s0", "l1", 0.5) < 0.85 * asked(whole, "s0", "l1", 0.5)


def test_a_supplier_of_whom_nothing_came_is_slow_and_unsure() -> None:
    model = lead_times.learn(seen(deliveries(), np.full(2000, 25.0)))
    low, middle, high = (asked(model, "s0", "l1", level) for level in (0.1, 0.5, 0.9))
    assert 25 < middle < 400 and high > 4 * low and np.isfinite(high)
    assert asked(model, "s2", "l0", 0.5) == pytest.approx(np.exp(2.6), rel=0.12)


def test_a_wait_moves_the_rest_as_the_truth_does() -> None:
    model = lead_times.learn(deliveries(4000))
    truth = stats.lognorm(0.2, scale=np.exp(3.0))
    parts = model.parts(np.array([["s1", "l0"]] * 3, object), np.array([22.0, 22.0, 22.0]))
    waited = np.array([0.0, 18.0, 22.0])
    probability, beyond = model.late(np.array([22.0, 22.0, 22.0]), waited, parts)
    for i, days in enumerate(waited[:2]):
        expected = truth.sf(22.5) / truth.sf(days + 0.5)
        assert probability[i] == pytest.approx(expected, abs=0.04)
    assert probability[2] == 1.0
    drawn = np.round(truth.rvs(200_000, random_state=1))
    for i, days in enumerate(waited):
        assert beyond[i] == pytest.approx(np.maximum(drawn[drawn > days] - 22, 0).mean(), rel=0.2)


def test_few_deliveries_are_drawn_towards_the_others() -> None:
    past = deliveries()
    values = past.values.copy()
    values[:3, 0], values[3:300, 0] = "new", "known"
    days = past.days.copy()
    days[:300] = 100.0
    model = lead_times.learn(replace(past, values=values, days=days))
    many, few = asked(model, "known", "l0", 0.5), asked(model, "new", "l0", 0.5)
    never = asked(model, "nobody", "l0", 0.5)
    assert never < few < many and many == pytest.approx(100, rel=0.12)
    wide = asked(model, "nobody", "l0", 0.9) / asked(model, "nobody", "l0", 0.1)
    assert wide > 1.5 * asked(model, "s1", "l0", 0.9) / asked(model, "s1", "l0", 0.1)


def test_a_promise_that_tells_much_is_believed() -> None:
    rng = np.random.default_rng(4)
    past = deliveries(effects=(0.0, 0.0, 0.0), spread=0.0)
    promised = np.round(rng.uniform(5, 60, len(past.days)))
    days = np.maximum(np.round(promised * 1.5 * np.exp(0.05 * rng.standard_normal(len(promised)))), 1)
    model = lead_times.learn(replace(past, promised=promised, days=days))
    for promise in (10.0, 40.0):
        assert asked(model, "s0", "l0", 0.5, promised=promise) == pytest.approx(1.5 * promise, rel=0.08)
    parts = model.parts(np.array([["s0", "l0"]], object), np.array([40.0]))
    moved = [float(days[0]) for days in model.moves(parts, np.array([60.0]))]
    assert max(moved, key=abs) == moved[-1] > 10  # the promise, not the supplier


def test_spreads_differ_by_supplier() -> None:
    calm, wild = deliveries(1500, 1, spread=0.08), deliveries(1500, 2, spread=0.5)
    values = np.concatenate([calm.values, wild.values])
    values[:1500, 0], values[1500:, 0] = "calm", "wild"
    both = [
        np.concatenate([getattr(calm, name), getattr(wild, name)]) for name in ("promised", "days", "came", "weights")
    ]
    model = lead_times.learn(Deliveries(values, *both))
    ratio = {s: asked(model, s, "l0", 0.9) / asked(model, s, "l0", 0.1) for s in ("calm", "wild")}
    assert ratio["wild"] > 1.5 * ratio["calm"]


def test_errors_are_kaplan_and_meiers() -> None:
    """Against scipy's own estimate of the same censored sample."""
    rng = np.random.default_rng(5)
    errors, limit = rng.standard_normal(400), rng.normal(0.8, 1, 400)
    came = errors <= limit
    seen = np.minimum(errors, limit)
    mass = lead_times._mass(seen, came, np.ones(400))
    assert mass.sum() == pytest.approx(1) and (mass[~came & (seen < seen.max())] == 0).all()
    ours = stats.ecdf(stats.CensoredData(uncensored=seen[came], right=seen[~came])).cdf
    for x in (-1.0, 0.0, 0.5, 1.0):
        assert mass[seen <= x].sum() == pytest.approx(float(ours.evaluate(x)), abs=1e-9)


def test_the_tail_goes_on_where_nothing_was_seen() -> None:
    model = lead_times.learn(deliveries())
    quantiles = [asked(model, "s1", "l0", level) for level in (0.95, 0.99, 0.999, 0.9999)]
    assert all(a < b for a, b in pairwise(quantiles)) and np.isfinite(quantiles).all()
    for waited in (100.0, 1000.0, 3600.0, 1e6):
        found = [asked(model, "s1", "l0", level, waited) for level in (0.1, 0.5, 0.9)]
        assert all(waited < day for day in found) and found == sorted(found) and np.isfinite(found).all()


def test_weights_are_as_good_as_repetitions() -> None:
    past = deliveries(300)
    double = Deliveries(*(np.repeat(getattr(past, name), 2, axis=0) for name in Deliveries.__dataclass_fields__))
    heavy = lead_times.learn(replace(past, weights=np.full(300, 2.0)))
    assert asked(heavy, "s0", "l0", 0.5) == pytest.approx(asked(lead_times.learn(double), "s0", "l0", 0.5), rel=0.02)


def test_one_typing_error_moves_little() -> None:
    past = deliveries(300)
    days = past.days.copy()
    days[0] = 3650.0
    one, other = (asked(lead_times.learn(p), "s1", "l0", 0.5) for p in (past, replace(past, days=days)))
    assert other == pytest.approx(one, rel=0.03)


@pytest.mark.parametrize("days", [np.full(30, 7.0), np.zeros(30)])
def test_deliveries_that_all_take_the_same(days: np.ndarray) -> None:
    values = np.array([["a", "x"]] * 30, object)
    model = lead_times.learn(Deliveries(values, np.full(30, 7.0), days, np.full(30, True), np.ones(30)))
    assert asked(model, "a", "x", 0.5) == pytest.approx(days[0], abs=0.6)
    assert asked(model, "a", "x", 0.9) == pytest.approx(days[0], abs=1.5)


def test_missing_values_and_factors() -> None:
    past = deliveries(300)
    values = past.values.copy()
    values[::3, 0] = ""
    model = lead_times.learn(replace(past, values=values))
    assert np.isfinite(asked(model, "", "l0", 0.5)) and "" not in model.names[0]
    one = lead_times.learn(replace(past, values=past.values[:, :1]))
    assert one.groups == [(0,)]


def test_state_there_and_back() -> None:
    model = lead_times.learn(deliveries(200))
    again = LeadTimes.of(model.state())
    assert asked(again, "s0", "l1", 0.9, 12) == asked(model, "s0", "l1", 0.9, 12)
    assert [c.tolist() for c in again.came] == [c.tolist() for c in model.came]
