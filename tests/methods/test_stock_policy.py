"""Demand and policies against closed forms, other libraries and brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from bizllm.methods import stock_policy as sp
from bizllm.methods.stock_policy import Demand, Policy, Terms

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def normal(mean: float, sd: float, days: int, correlation: float = 0.0, at_least: float = 0.0) -> Demand:
    quantiles = np.tile(stats.norm(mean, sd).ppf(LEVELS)[:, None], days)
    return sp.demand(np.full(days, mean), quantiles, LEVELS, np.arange(1.0, days + 1), correlation, at_least)


def test_independent_normals_add_up() -> None:
    total = normal(50, 5, 14).total[-1]
    assert total.mean() == pytest.approx(700, rel=1e-9)
    assert total.std() == pytest.approx(5 * np.sqrt(14), rel=0.06)
    for level in (0.05, 0.5, 0.9, 0.98):
        assert np.quantile(total, level) == pytest.approx(stats.norm(700, 5 * np.sqrt(14)).ppf(level), abs=4)


def test_correlated_normals_spread_as_far_as_they_should() -> None:
    correlation, n = 0.3, 14
    expected = 5 * np.sqrt(n + n * (n - 1) * correlation)
    assert normal(50, 5, n, correlation).total[-1].std() == pytest.approx(expected, rel=0.08)


def test_a_single_period_has_exactly_the_forecasts_quantiles() -> None:
    drawn = normal(50, 5, 1).total[1]
    assert np.quantile(drawn, LEVELS) == pytest.approx(stats.norm(50, 5).ppf(LEVELS), abs=0.05)
    assert np.quantile(drawn, 0.99) == pytest.approx(stats.norm(50, 5).ppf(0.99), abs=0.1)


@pytest.mark.parametrize(
    ("mean", "quantiles"),
    [
        (0.3, [0, 0, 0, 0, 0]),  # sells one day in twenty: all of the mean is above the highest level
        (0.3, [0, 0, 0, 0.8, 2]),  # the forecast was cut at zero and says too much
        (4.0, [0, 1, 3, 5, 8]),
        (4.0, [0.1, 1, 3, 5, 30]),  # moved down, some draws would be under zero
        (0.0, [0, 0, 0, 0, 0]),
        (0.0, [0, 0, 1, 2, 3]),
    ],
)
def test_the_mean_is_kept_and_nothing_is_negative(mean: float, quantiles: list[float]) -> None:
    given = np.tile(np.array(quantiles, float)[:, None], 10)
    found = sp.demand(np.full(10, mean), given, LEVELS, np.arange(1.0, 11), 0.3)
    each = np.diff(found.total, axis=0)
    assert each.min() >= 0
    assert each.mean(axis=1) == pytest.approx(np.full(10, mean), rel=1e-9, abs=1e-12)


def test_returns_may_make_demand_negative() -> None:
    found = sp.demand(np.array([-1.0]), np.array([[-5.0], [3.0]]), (0.1, 0.9), np.array([1.0]), 0.0)
    assert found.total[1].min() < -5 and found.total[1].mean() == pytest.approx(-1)


def test_the_last_week_is_repeated_for_late_deliveries() -> None:
    mean = np.array([1.0, 1, 1, 1, 1, 1, 1, 7, 1, 1, 1, 1, 1, 1])
    quantiles = np.tile(mean, (2, 1)) + np.array([[-0.5], [0.5]])
    found = sp.demand(mean, quantiles, (0.1, 0.9), np.arange(1.0, 15), 0.0, 16.0)
    assert found.ends.tolist() == list(range(22))
    assert np.diff(found.total.mean(axis=1))[14:16] == pytest.approx([7, 1])
    weeks = sp.demand(np.array([10.0]), np.array([[9.0], [11.0]]), (0.1, 0.9), np.array([7.0]), 0.0, 20.0)
    assert weeks.total[:, :].mean(axis=1) == pytest.approx([0, 10, 20, 30])


def test_demand_within_a_period_comes_evenly() -> None:
    found = normal(10, 1, 3)
    days = np.linspace(0, 3, sp.DRAWS)
    expected = [np.interp(day, found.ends, found.total[:, i]) for i, day in enumerate(days)]
    assert found.until(days) == pytest.approx(np.array(expected))


def test_days_of_cover() -> None:
    found = normal(10, 1, 14)
    assert found.days_for(25) == pytest.approx(2.5)
    assert found.days_for(200) == pytest.approx(20)  # at the last week's rate
    assert found.days_for(0) == found.days_for(-3) == 0
    none = sp.demand(np.zeros(3), np.zeros((2, 3)), (0.1, 0.9), np.arange(1.0, 4), 0.0)
    assert none.days_for(1) is None


@pytest.mark.parametrize(("mean", "sd"), [(7.0, 2.0), (30.0, 12.0), (2.0, 3.0)])
def test_lead_times_are_a_gammas(mean: float, sd: float) -> None:
    drawn = sp.lead_times(mean, sd)
    expected = np.ceil(stats.gamma((mean / sd) ** 2, scale=sd**2 / mean).ppf((np.arange(sp.DRAWS) + 0.5) / sp.DRAWS))
    assert np.sort(drawn) == pytest.approx(expected)
    assert set(sp.lead_times(6.2, 0)) == {7} and set(sp.lead_times(6, 0)) == {6} and set(sp.lead_times(0, 0)) == {0}


def test_the_past_has_its_share() -> None:
    past = np.tile([0.0, 0, 0, 0, 0, 0, 14], 24)  # all of a week is sold on its last day
    days = np.full(sp.DRAWS, 7.0)
    assert sp.with_past(np.full(sp.DRAWS, 30.0), past, days) == pytest.approx(np.full(sp.DRAWS, 22.0))
    assert sp.with_past(np.full(sp.DRAWS, 30.0), past[-84:], days) == pytest.approx(np.full(sp.DRAWS, 26.0))
    assert sp.with_past(np.full(sp.DRAWS, 30.0), past[-13:], days) == pytest.approx(np.full(sp.DRAWS, 30.0))
    older = np.concatenate([np.full(500, 1e6), past])
    assert (
        sp.with_past(np.full(sp.DRAWS, 30.0), older, days) == sp.with_past(np.full(sp.DRAWS, 30.0), past, days)
    ).all()


def test_the_past_follows_the_last_weeks_half_way() -> None:
    past = np.concatenate([np.full(112, 2.0), np.full(56, 5.0)])
    found = sp.with_past(np.zeros(sp.DRAWS), past, np.full(sp.DRAWS, 1.0)) / sp.PAST_SHARE
    assert found.mean() == pytest.approx((3 + 5) / 2, abs=0.01)
    falling = sp.with_past(np.zeros(sp.DRAWS), past[::-1].copy(), np.full(sp.DRAWS, 1.0))
    assert falling.min() >= 0


def test_every_window_of_the_past_counts_alike() -> None:
    past = np.random.default_rng(1).poisson(3.0, 168).astype(float)
    sums = np.convolve(past, np.ones(14), "valid") + (past[-56:].mean() - past.mean()) / 2 * 14
    found = sp.with_past(np.zeros(sp.DRAWS), past, np.full(sp.DRAWS, 14.0)) / sp.PAST_SHARE
    for level in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(found, level) == pytest.approx(np.quantile(sums, level), abs=1)


def over(mean: float = 100.0, sd: float = 20.0) -> np.ndarray:
    return stats.norm(mean, sd).ppf((np.arange(sp.DRAWS) + 0.5) / sp.DRAWS)


def test_the_newsvendors_fractile_where_each_review_orders() -> None:
    terms = Terms(review=7, holding=0.02, shortage=1.26)
    found = sp.policy(over(), 10.0, terms)
    fractile = 1.26 / (1.26 + 0.02 * 7)  # underage over underage and overage
    assert found.reorder == pytest.approx(stats.norm(100, 20).ppf(fractile), abs=0.2)
    assert found.within == pytest.approx(fractile, abs=0.002) and found.up_to == found.reorder and found.lot == 70


def test_no_other_reorder_point_costs_less() -> None:
    """Brute force over the cost that the fractile is to make least, where shortages are backordered."""
    terms = Terms(review=1, holding=0.5, shortage=40.0, order=200.0)
    drawn, rate = over(), 10.0
    found = sp.policy(drawn, rate, terms)
    assert found.lot == pytest.approx(np.sqrt(2 * 200 * 10 / 0.5))

    def cost(reorder: float) -> float:
        short = np.maximum(drawn - reorder, 0).mean()
        # A unit that is lost is not there to be held either: the term that lost sales add.
        return 0.5 * (reorder - drawn.mean() + short) + 40 * short * rate / found.lot

    tried = np.linspace(60, 200, 1401)
    assert found.reorder == pytest.approx(tried[np.argmin([cost(r) for r in tried])], abs=0.3)


@pytest.mark.parametrize("service", [0.5, 0.9, 0.95, 0.99])
def test_service_levels(service: float) -> None:
    cycle = sp.policy(over(), 10.0, Terms(review=7, service=service))
    assert cycle.reorder == pytest.approx(stats.norm(100, 20).ppf(service), abs=0.4)
    fill = sp.policy(over(), 10.0, Terms(review=7, service=service, fill=True))
    z = (fill.reorder - 100) / 20
    short = 20 * (stats.norm.pdf(z) - z * stats.norm.sf(z))  # the normal's loss
    assert short == pytest.approx((1 - service) * 70, rel=0.02, abs=0.02)


def test_a_fill_rate_that_needs_no_stock() -> None:
    found = sp.policy(over(), 1000.0, Terms(review=7, service=0.5, fill=True))
    assert found.reorder == 0.0


def test_lots() -> None:
    drawn = over()
    assert sp.policy(drawn, 10, Terms(review=7, pack=12)).lot == 70
    assert sp.policy(drawn, 10, Terms(review=7, least=500)).lot == 500
    assert sp.policy(drawn, 10, Terms(review=7, order=1e6, holding=0.001)).lot == 900  # ninety days
    lots = [sp.policy(drawn, 10, Terms(review=1, order=k, holding=0.01)).lot for k in (0, 1, 10, 100)]
    assert all(a < b for a, b in pairwise(lots))


def test_costs_are_those_of_a_day() -> None:
    found = sp.policy(np.full(sp.DRAWS, 100.0), 10.0, Terms(review=10, holding=0.1, order=5, service=0.9))
    assert found.lot == 100 and found.cost == pytest.approx(0.1 * 50 + 5 / 10)
    assert sp.policy(over(), 10.0, Terms(review=7)).cost is None


def test_orders_are_whole_packs_at_or_under_the_reorder_point() -> None:
    found = Policy(reorder=40, up_to=100, lot=60, mean=30, within=0.9, cost=None)
    assert found.order(41, Terms(7)) == 0 and found.order(40, Terms(7)) == 60
    assert found.order(39.5, Terms(7)) == 61
    assert found.order(40, Terms(7, pack=24)) == 72 and found.order(40, Terms(7, pack=60)) == 60
    assert found.order(40, Terms(7, pack=24, least=100)) == 120
    assert found.order(-10, Terms(7)) == 110
    assert found.order(40, Terms(7, pack=0.25)) == 60


def test_no_demand_orders_what_is_owed_and_no_more() -> None:
    found = sp.policy(np.zeros(sp.DRAWS), 0.0, Terms(7, pack=12, holding=0.1))
    assert found.order(0, Terms(7)) == 0 and found.order(5, Terms(7)) == 0 and found.order(-3, Terms(7)) == 3
    assert found.cost == 0 and found.within == 1


def test_a_rare_seller_keeps_one_in_stock() -> None:
    quantiles = np.zeros((2, 28))
    found = sp.demand(np.full(28, 0.02), quantiles, (0.1, 0.9), np.arange(1.0, 29), 0.0)
    drawn = found.until(np.full(sp.DRAWS, 10.0))
    policy = sp.policy(drawn, 0.02, Terms(1, holding=0.001, shortage=5.0))
    assert policy.order(0, Terms(1)) >= 1 and policy.order(3, Terms(1)) == 0


def test_draws_are_the_same_every_time() -> None:
    one = normal(10, 3, 20, 0.3).total
    sp._ranks.cache_clear()
    assert (normal(10, 3, 20, 0.3).total == one).all()
