"""Items that go together, against sums written out, implicit's own solver and scikit-learn's NDCG."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix
from sklearn.metrics import ndcg_score

from bizllm.methods import together
from bizllm.methods.together import Events, Mix


def planted(customers: int = 80, seed: int = 0, again: bool = False) -> Events:
    """Two shelves of twelve items; a customer buys from one of them, on days up to 100 ago, never an item twice, or
    (`again`) the same two items over and over."""
    rng = np.random.default_rng(seed)
    rows = []
    for customer in range(customers):
        shelf = 12 * (customer % 2) + rng.permutation(12)
        if again:
            rows += [(customer, shelf[i % 2], age) for i, age in enumerate(range(1, 100, 12))]
        else:
            rows += [(customer, item, int(age)) for item, age in zip(shelf[:8], rng.integers(0, 100, 8), strict=True)]
    who, what, age = (np.array(column, np.int64) for column in zip(*sorted(set(rows)), strict=True))
    return Events(who, what, age, np.ones(len(who)), customers, 24)


def test_tastes_are_the_largest_decayed_weight() -> None:
    events = Events(*(np.array(v) for v in ([0, 0, 1], [1, 1, 0], [10, 0, 5])), np.array([4.0, 1.0, 2.0]), 2, 2)
    taste = events.taste(20.0).toarray()
    assert taste[0].tolist() == [0, pytest.approx(max(4 * np.exp(-0.5), 1.0))]
    assert taste[1].tolist() == [pytest.approx(2 * np.exp(-0.25)), 0]
    assert events.days().toarray().tolist() == [[0, 2], [1, 0]]


def test_likeness_is_the_weighed_cosine_and_both_a_count() -> None:
    events = planted(30)
    model = together.learn(events, 90)
    taste = events.taste(90).toarray()
    weighed = taste / np.sqrt(taste.sum(axis=1, keepdims=True))
    for one, other in ((0, 1), (3, 9), (2, 14), (5, 5)):
        a, b = weighed[:, one], weighed[:, other]
        expected = 0 if one == other else a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 0.5)
        assert float(model.likeness[one, other]) == pytest.approx(expected, abs=1e-3)
        assert model.both[one, other] == ((taste[:, one] > 0) & (taste[:, other] > 0)).sum()
    assert np.array_equal(model.likeness, model.likeness.T)


def test_a_customers_factors_are_those_of_implicit() -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    taste = csr_matrix(planted(40).taste(90))
    sure = taste.copy().astype(np.float32)
    sure.data = 1 + np.float32(20) * sure.data
    model = AlternatingLeastSquares(
        factors=64, regularization=1.0, alpha=1.0, iterations=15, num_threads=1, random_state=0, use_cg=False
    )
    model.fit(sure, show_progress=False)
    theirs = model.recalculate_user(np.arange(40), sure)
    ours = together.folded_in(np.ascontiguousarray(model.item_factors), csr_array(taste))
    assert np.allclose(ours, theirs, atol=2e-3)
    assert not together.folded_in(model.item_factors, csr_array((2, 24))).any(), "who bought nothing has none"


def test_ndcg_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, wanted = rng.random((50, 30)), rng.random((50, 30)) < 0.2
    wanted[:, 0] |= ~wanted.any(axis=1)
    ours = together.ndcg(together.best(scores, 10), wanted)
    theirs = [ndcg_score([of], [said], k=10) for of, said in zip(wanted.astype(int), scores, strict=True)]
    assert np.allclose(ours, theirs)


def test_the_best_are_those_of_a_stable_sort() -> None:
    scores = np.random.default_rng(2).random((20, 40))
    assert np.array_equal(together.best(scores, 7), np.argsort(-scores, axis=1, kind="stable")[:, :7])
    assert together.best(np.array([[1.0, 2.0, 1.0]]), 5).tolist() == [[1, 0, 2]]
    assert together.best(np.zeros((3, 0)), 5).shape == (3, 0)


def test_a_backtest_finds_the_shelves() -> None:
    found = together.backtest(planted(), 28, 5, again=False)
    assert found.mix.method != "popular" and found.mix.own == 0 and found.customers > 60
    assert found.ndcg is not None and found.popular is not None
    assert 0.2 < found.popular < found.ndcg - 0.2 < 0.8


def test_a_backtest_finds_the_habit() -> None:
    found = together.backtest(planted(again=True), 28, 2, again=True)
    assert found.mix.own > 0 and found.ndcg == pytest.approx(1.0), "everybody buys the same two items again"


def test_a_backtest_is_not_flattered_by_its_choice() -> None:
    """Where nobody has a taste, the mix that happens to suit one half is no better on the other: as good as popular."""
    rng, gains = np.random.default_rng(3), []
    for _ in range(6):
        rows = sorted({(int(c), int(rng.integers(0, 40)), int(rng.integers(0, 90))) for c in np.repeat(range(150), 8)})
        who, what, age = (np.array(column, np.int64) for column in zip(*rows, strict=True))
        found = together.backtest(Events(who, what, age, np.ones(len(who)), 150, 40), 28, 5, again=False)
        assert found.ndcg is not None and found.popular is not None
        gains.append(found.ndcg - found.popular)
    assert abs(np.mean(gains)) < 0.03


def test_too_few_customers_make_no_backtest() -> None:
    found = together.backtest(planted(12), 28, 5, again=True)
    assert (found.ndcg, found.popular, found.customers, found.mix) == (None, None, 0, together.DEFAULT)


def test_the_last_days_are_not_known_to_a_backtest() -> None:
    """What is learned for it is learned of the days before: other purchases since move no score of the parts."""
    events = planted()
    past = events.where(events.age >= 28, 28)
    assert past.age.min() >= 0 and len(past.age) == (events.age >= 28).sum()
    late = events.age < 28
    moved = Events(events.customer, np.where(late, 23 - events.item, events.item), events.age, events.weight, 80, 24)
    one, other = together.learn(past, 90), together.learn(moved.where(moved.age >= 28, 28), 90)
    assert np.array_equal(one.likeness, other.likeness) and np.array_equal(one.factors, other.factors)


def test_the_same_events_give_the_same_twice() -> None:
    one, other = together.learn(planted(), 90), together.learn(planted(), 90)
    assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@pytest.mark.parametrize("items", [0, 1, 24])
def test_nothing_was_sold(items: int) -> None:
    none = np.zeros(0, np.int64)
    events = Events(none, none, none, np.zeros(0), 3, items)
    model = together.learn(events, 90)
    ((rows, parts),) = model.parts(events.taste(90))
    for method in (*together.METHODS, "popular"):
        scores = model.mixed(Mix(method, 1.0, 1.0), parts, np.zeros((3, items)))
        assert scores.shape == (3, items) and not scores.any()
    assert (rows.start, rows.stop) == (0, 3)
    assert together.backtest(events, 28, 5, again=True).ndcg is None
