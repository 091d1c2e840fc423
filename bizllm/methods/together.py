"""What a customer may want next, from who bought what and when: items that go together, and what sells right now.

Four parts are mixed, as suited what customers bought in the last days of the history when only the days before were
known:

* neighbours: items that the same customers bought, by cosine (Sarwar et al., WWW 2001); a customer with many items
  tells less of each (1/sqrt of all), and what was bought long ago tells less (exp(-age/memory)).
* factors: matrix factorization of implicit feedback (Hu, Koren and Volinsky, ICDM 2008); a customer's factors are
  solved for when they are asked for, so that only those of items are kept.
* trend: sales of the last two weeks over those of the last quarter; scores are multiplied by a power of it.
* own: on how many days the customer bought the item; only where what was bought may be recommended again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sparse = Any  # scipy.sparse.csr_array

MOST_ITEMS = 5_000  # that are learned of: (items, items) numbers must fit one worker
MOST_ASKED = 1_000  # customers of a backtest
LEAST_ASKED = 20
BLOCK = 512  # customers that are scored at once
# Chosen on cuts of online_retail before its last four weeks; see benchmarks/results/tasks.md.
NOW_DAYS, LONG_DAYS = 14, 90
MEMORIES, TRENDS, OWNS = (90, 365), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0)
METHODS = {"neighbours": (1, 0), "factors": (0, 1), "neighbours and factors": (1, 1)}
_SHRINK = 0.5
_FACTORS, _REGULARIZATION, _CONFIDENCE, _ITERATIONS, _SEED = 64, 1.0, 20.0, 15, 0


@dataclass(frozen=True)
class Events:
    """Who bought what on which day, each once; (events,) each: customer, item (numbers from 0), age in days, weight."""

    customer: Ints
    item: Ints
    age: Ints
    weight: Array
    customers: int
    items: int

    def where(self, mask: npt.NDArray[np.bool_], days: int = 0) -> Events:
        """These events alone, as they were seen so many days ago."""
        return replace(
            self,
            customer=self.customer[mask],
            item=self.item[mask],
            age=self.age[mask] - days,
            weight=self.weight[mask],
        )

    def taste(self, memory: float) -> Sparse:
        """(customers, items): the largest weight * exp(-age / memory) of each."""
        value = self.weight * np.exp(-self.age / memory)
        order = np.lexsort((value, self.item, self.customer))
        customer, item = self.customer[order], self.item[order]
        last = np.r_[(np.diff(customer) != 0) | (np.diff(item) != 0), True] if len(order) else np.zeros(0, bool)
        return self._matrix(value[order][last], customer[last], item[last])

    def days(self) -> Sparse:
        """(customers, items): on how many days."""
        return self._matrix(np.ones(len(self.item)), self.customer, self.item)

    def sold(self, memory: float) -> Array:
        """(items,) days with a sale to a customer, old ones less."""
        return np.asarray(np.bincount(self.item, np.exp(-self.age / memory), self.items), np.float64)

    def _matrix(self, values: Array, rows: Ints, columns: Ints) -> Sparse:
        from scipy.sparse import csr_array

        return csr_array((values, (rows, columns)), shape=(self.customers, self.items))


@dataclass(frozen=True)
class Mix:
    """How the parts are mixed. method: a key of METHODS, or "popular". own: 0 where nothing is recommended again."""

    method: str
    trend: float = 0.0
    own: float = 0.0
    memory: int = MEMORIES[0]


DEFAULT = Mix("neighbours", 0.5, 0.5)


@dataclass(frozen=True)
class Backtest:
    """The mix that suited best. ndcg: what such mixes got from customers that had no part in choosing them; popular: of
    the items that sell most. Both None where too few customers could be asked."""

    mix: Mix
    ndcg: float | None = None
    popular: float | None = None
    customers: int = 0


@dataclass(frozen=True)
class Together:
    """What was learned of events.

    likeness: (items, items) float16 cosine, 0 with itself. both: (items, items) uint16 customers who bought both.
    factors: (items, _FACTORS). popular: (items,) sales of late. trend: (items,) of late over of long.
    """

    memory: int
    likeness: npt.NDArray[np.float16]
    both: npt.NDArray[np.uint16]
    factors: npt.NDArray[np.float32]
    popular: Array
    trend: Array

    def parts(self, tastes: Sparse, method: str | None = None) -> Iterator[tuple[slice, list[Array]]]:
        """Blocks of customers: where they stand, and the scores (customers, items) by neighbours and by factors, 0 of
        those that the method does not ask."""
        near, solve = (1, 1) if method is None else METHODS.get(method, (0, 0))
        likeness = self.likeness.astype(np.float32)
        for start in range(0, tastes.shape[0], BLOCK):
            rows = slice(start, min(start + BLOCK, tastes.shape[0]))
            block = tastes[rows]
            found = np.asarray(block @ likeness, np.float64) if near else np.zeros(block.shape)
            solved = folded_in(self.factors, block) @ self.factors.T if solve else np.zeros(block.shape)
            yield rows, [_scaled(found), _scaled(solved.round(10))]  # a product's last digits depend on the block

    def mixed(self, mix: Mix, parts: Sequence[Array], days: Array) -> Array:
        """(customers, items) scores of a block; days: on how many days each customer bought each item.

        Where nothing else tells two items apart, what sells more comes first.
        """
        popular = self.popular / max(float(self.popular.max(initial=0)), 1e-9)
        if mix.method == "popular":
            return np.tile(popular, (len(days), 1))
        scores: Array = np.zeros(days.shape)
        for say, part in zip(METHODS[mix.method], parts, strict=True):
            scores += say * part
        if mix.trend:
            scores = scores * self.trend**mix.trend
        scores = _scaled(scores)
        if mix.own:
            scores = scores + mix.own * _scaled(days) * self.trend ** (mix.trend / 2)
        return scores + 1e-6 * popular


def learn(events: Events, memory: int) -> Together:
    """Likeness, factors and sales of the items. O(items²) memory."""
    tastes = events.taste(memory)
    size = np.asarray(tastes.sum(axis=1)).ravel()
    weighed = (tastes.multiply((1 / np.sqrt(np.maximum(size, 1e-12)))[:, None])).tocsr()
    product = np.asarray((weighed.T @ weighed).todense(), np.float64)
    length = np.sqrt(np.diag(product))
    likeness = product / (np.outer(length, length) + _SHRINK)
    np.fill_diagonal(likeness, 0.0)
    bought = tastes.copy()
    bought.data = np.ones_like(bought.data)
    both = np.asarray((bought.T @ bought).todense())
    now, long = events.sold(NOW_DAYS), events.sold(LONG_DAYS)
    return Together(
        memory,
        likeness.astype(np.float16),
        np.minimum(both, np.iinfo(np.uint16).max).astype(np.uint16),
        _factors(tastes),
        now,
        (now / NOW_DAYS + 1 / NOW_DAYS) / (long / LONG_DAYS + 1 / NOW_DAYS),
    )


def backtest(events: Events, horizon: int, k: int, again: bool) -> Backtest:
    """Mix the parts as suits what was bought in the last `horizon` days by customers known before them.

    again: whether what a customer bought before counts. Score: the mean NDCG@k; that of a half of the customers is told
    of the mix that suits the other half.
    """
    past = events.where(events.age >= horizon, horizon)
    truth, known = events.where(events.age < horizon).days(), past.days()
    if not again:
        truth = truth - truth.multiply(known > 0)
    truth = (truth > 0).tocsr()
    able = np.flatnonzero((np.asarray(known.sum(axis=1)).ravel() > 0) & (np.asarray(truth.sum(axis=1)).ravel() > 0))
    asked = np.sort(np.random.default_rng(_SEED).permutation(able)[:MOST_ASKED])
    if len(asked) < LEAST_ASKED:
        return Backtest(DEFAULT if again else replace(DEFAULT, own=0.0))
    mixes = [Mix("popular")]
    for memory in MEMORIES:
        owns = OWNS if again else (0.0,)
        mixes += [Mix(method, trend, own, memory) for method in METHODS for trend in TRENDS for own in owns]
    got = np.zeros((len(mixes), len(asked)))
    for memory in MEMORIES:
        learned = learn(past, memory)
        for rows, parts in learned.parts(past.taste(memory)[asked]):
            days, wanted = known[asked[rows]].toarray(), truth[asked[rows]].toarray()
            for i, mix in enumerate(mixes):
                if mix.memory == memory:
                    scores = learned.mixed(mix, parts, days)
                    got[i, rows] = ndcg(best(scores if again else np.where(days > 0, -np.inf, scores), k), wanted)
    halves = [got[:, 0::2].mean(axis=1), got[:, 1::2].mean(axis=1)]
    fair = (got[halves[1].argmax(), 0::2].sum() + got[halves[0].argmax(), 1::2].sum()) / len(asked)
    return Backtest(mixes[int(got.mean(axis=1).argmax())], float(fair), float(got[0].mean()), len(asked))


def best(scores: Array, k: int) -> Ints:
    """(customers, at most k) the items with the highest scores, best first; of equal ones the lower number."""
    k = min(k, scores.shape[1])
    few = (
        np.sort(np.argpartition(-scores, max(k - 1, 0), axis=1)[:, :k], axis=1)
        if k
        else np.zeros((len(scores), 0), int)
    )
    order = np.argsort(-np.take_along_axis(scores, few, axis=1), axis=1, kind="stable")
    return np.take_along_axis(few, order, axis=1).astype(np.int64)


def ndcg(ranked: Ints, wanted: npt.NDArray[np.bool_]) -> Array:
    """(customers,) NDCG (Järvelin and Kekäläinen 2002) of ranked items (customers, k); wanted: (customers, items)."""
    gain = 1 / np.log2(np.arange(2, ranked.shape[1] + 2))
    most = np.minimum(wanted.sum(axis=1), ranked.shape[1])
    ideal = np.r_[0.0, np.cumsum(gain)][most]
    found: Array = (np.take_along_axis(wanted, ranked, axis=1) * gain).sum(axis=1) / np.maximum(ideal, 1e-12)
    return found


def folded_in(factors: npt.NDArray[np.float32], tastes: Sparse) -> Array:
    """(customers, factors) that suit what customers bought best, items' factors held: equation 4 of Hu et al."""
    items = factors.astype(np.float64)
    base = items.T @ items + _REGULARIZATION * np.eye(items.shape[1])
    found = np.zeros((tastes.shape[0], items.shape[1]))
    for row in range(tastes.shape[0]):
        at = slice(tastes.indptr[row], tastes.indptr[row + 1])
        bought, sure = items[tastes.indices[at]], 1 + _CONFIDENCE * tastes.data[at]
        if len(bought):
            found[row] = np.linalg.solve(base + (bought.T * (sure - 1)) @ bought, sure @ bought)
    return found


def _factors(tastes: Sparse) -> npt.NDArray[np.float32]:
    """(items, factors) by alternating least squares; one thread, so that a seed makes the same again."""
    if not tastes.nnz:
        return np.zeros((tastes.shape[1], _FACTORS), np.float32)
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    sure = csr_matrix(tastes, dtype=np.float32)
    sure.data = 1 + np.float32(_CONFIDENCE) * sure.data
    with threadpool_limits(1):
        model = AlternatingLeastSquares(
            factors=_FACTORS,
            regularization=_REGULARIZATION,
            alpha=1.0,
            iterations=_ITERATIONS,
            num_threads=1,
            random_state=_SEED,
        )
        model.fit(sure, show_progress=False)
    return np.ascontiguousarray(model.item_factors, np.float32)


def _scaled(scores: Array) -> Array:
    """Each customer's scores, none under 0, over the mean of the ten highest."""
    scores = np.maximum(scores, 0.0)
    few = min(10, scores.shape[1])
    if not few:
        return scores
    high = -np.partition(-scores, few - 1, axis=1)[:, :few]
    return np.asarray(scores / np.maximum(high.mean(axis=1, keepdims=True), 1e-12))
