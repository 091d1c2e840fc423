"""Clusters of rows of numbers that stay the same clusters from night to night.

k-means (Lloyd 1982) from k-means++ seeds (Arthur & Vassilvitskii 2007) on robustly scaled features, k by the mean
silhouette (Rousseeuw 1987), clusters of two nights paired by the Hungarian method (Kuhn 1955) on their centroids.
Everything is seeded and free of the order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SEED = 20_260_101
SAMPLE = 20_000  # rows k-means sees; more moves the centroids by less than their own noise
SILHOUETTE_SAMPLE = 2_000  # its cost grows with the square: 2,000 rows take 0.1 s for each k
STARTS = 8
CLIP = 3.0  # robust standard deviations; past it a customer is just "far out"
DIGITS = 9  # centroids are rounded, so that the last bits of a parallel sum never reach a fit

K_MARGIN = 0.1  # silhouette that another k must gain before last night's k is given up
WARM_MARGIN = 0.05  # share of inertia that fresh seeds must save before last night's centroids are given up


@dataclass(frozen=True)
class Scaling:
    """Per feature: a signed log1p where `log`, then (x - center) / scale, clipped to ±clip. Unknown values are centred.

    center is the median; scale is the interquartile range / 1.349, which is a normal's standard deviation, or half the
    standard deviation where that is more, and 1 for a constant.
    """

    log: tuple[bool, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float = CLIP

    @classmethod
    def of(cls, values: Matrix, log: Sequence[bool]) -> Scaling:
        """Learn from values (rows, features); NaN is unknown."""
        center, scale = [], []
        for column, is_log in zip(values.T, log, strict=True):
            known = column[~np.isnan(column)]
            x = _signed_log(known) if is_log else known
            low, mid, high = np.quantile(x, [0.25, 0.5, 0.75]) if len(x) else (0.0, 0.0, 0.0)
            # Where most values are equal, as with returns, the quartiles alone say nothing of the others.
            spread = max((high - low) / 1.349, float(np.std(np.sort(x))) / 2) if len(x) else 0.0
            center.append(round(float(mid), DIGITS))
            scale.append(round(float(spread), DIGITS) or 1.0)
        return cls(tuple(bool(b) for b in log), tuple(center), tuple(scale))

    def apply(self, values: Matrix) -> Matrix:
        """(rows, features) in robust standard deviations, within ±clip."""
        x = np.where(np.array(self.log, dtype=bool), _signed_log(values), values)
        z = (x - np.array(self.center)) / np.array(self.scale)
        return np.asarray(np.clip(np.nan_to_num(z, nan=0.0), -self.clip, self.clip), dtype=np.float64)

    def convert(self, scaled: Matrix, to: Scaling) -> Matrix:
        """Scaled points of this scaling in another of the same features and logs, without clipping."""
        plain = scaled * np.array(self.scale) + np.array(self.center)
        return np.asarray((plain - np.array(to.center)) / np.array(to.scale), dtype=np.float64)

    def to_json(self) -> dict[str, Any]:
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Scaling:
        return cls(tuple(state["log"]), tuple(state["center"]), tuple(state["scale"]), state["clip"])


@dataclass(frozen=True)
class Partition:
    """Centroids (k, features), sorted; inertia is the sum of squared distances; score the silhouette where it chose."""

    centroids: Matrix
    inertia: float
    scores: dict[int, float]


def partition(
    x: Matrix, ks: Sequence[int], last: Matrix | None = None, margin: float = K_MARGIN, enough: float = 1.0
) -> Partition:
    """k-means with the best of `ks` on scaled rows x (rows, features), starting from last night's centroids too.

    The best k is the least whose mean silhouette is `enough` of the highest, but last night's k stays unless another
    gains `margin`; and last night's centroids lead the search unless fresh seeds save WARM_MARGIN of the inertia:
    segments that move for no good reason cost their readers more than they gain.
    """
    x = _in_order(x)
    x = x if len(x) <= SAMPLE else x[np.sort(np.random.default_rng(SEED).choice(len(x), SAMPLE, replace=False))]
    distinct = len(np.unique(x, axis=0))
    ks = sorted({max(1, min(k, distinct)) for k in ks})
    found = {k: _kmeans(x, k, last if last is not None and len(last) == k else None) for k in ks if k > 1}
    found[1] = (x.mean(axis=0, keepdims=True) if len(x) else np.zeros((1, x.shape[1])), 0.0)
    scores = {k: silhouette(x, found[k][0]) for k in ks} if len(ks) > 1 else {}
    best = max(ks, key=lambda k: (scores.get(k, 0.0), -k))
    best = next((k for k in ks if k in scores and scores[k] >= enough * scores[best] > 0), best)
    if last is not None and len(last) in scores and scores[best] - scores[len(last)] < margin:
        best = len(last)
    centroids, inertia = found[best]
    centroids = np.round(centroids, DIGITS)
    return Partition(centroids[np.lexsort(centroids.T[::-1])], inertia, scores)


def silhouette(x: Matrix, centroids: Matrix) -> float:
    """Mean silhouette of at most SILHOUETTE_SAMPLE rows; 0 where only one cluster has members."""
    from sklearn.metrics import silhouette_score

    if len(x) > SILHOUETTE_SAMPLE:
        x = x[np.sort(np.random.default_rng(SEED).choice(len(x), SILHOUETTE_SAMPLE, replace=False))]
    labels, _, _ = assign(x, centroids)
    clusters = len(np.unique(labels))
    return float(silhouette_score(x, labels)) if 1 < clusters < len(x) else 0.0


def assign(x: Matrix, centroids: Matrix) -> tuple[Indices, Matrix, Matrix]:
    """For rows x (rows, features): nearest centroid, distance to it, and confidence 1 - nearest / second nearest.

    The confidence is the simplified silhouette of the row (Hruschka et al. 2006): 1 on the centroid, 0 halfway to
    another; 1 where there is only one cluster. Distances are Euclidean, in robust standard deviations.
    """
    squares = (x**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1) - 2 * x @ centroids.T
    if len(centroids) == 1:
        nearest = np.zeros(len(x), dtype=np.int64)
        second = None
    else:
        two = np.argpartition(squares, 1, axis=1)[:, :2]
        two.sort(axis=1)  # ties go to the first centroid
        swap = np.take_along_axis(squares, two, axis=1)
        first = np.argmin(swap, axis=1)
        rows = np.arange(len(x))
        nearest, second = two[rows, first].astype(np.int64), two[rows, 1 - first]
    # Again by differences: the expanded squares lose digits for rows close to a centroid.
    near = np.linalg.norm(x - centroids[nearest], axis=1)
    if second is None:
        return nearest, near, np.ones(len(x))
    far = np.linalg.norm(x - centroids[second], axis=1)
    confidence = 1 - np.divide(near, far, out=np.ones_like(near), where=far > 0)
    return nearest, near, np.clip(confidence, 0.0, 1.0)


def match(old: Matrix, new: Matrix) -> list[int | None]:
    """For each new centroid the old one it continues, or None; both (clusters, features) in the same scaling.

    Pairs have the least total distance. A pair counts only where the centroid went less than half the way to the old
    centroid's nearest neighbour: past that it is no longer the same cluster.
    """
    from scipy.optimize import linear_sum_assignment

    distance = np.linalg.norm(old[:, None] - new[None], axis=2)  # (old, new)
    apart = np.linalg.norm(old[:, None] - old[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    reach = apart.min(axis=1) / 2
    pairs: list[int | None] = [None] * len(new)
    for i, j in zip(*linear_sum_assignment(distance), strict=True):
        if distance[i, j] < reach[i]:
            pairs[j] = int(i)
    return pairs


def _kmeans(x: Matrix, k: int, last: Matrix | None) -> tuple[Matrix, float]:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums in one order; and Ray already uses every core
        fresh = KMeans(k, init="k-means++", n_init=STARTS, random_state=SEED).fit(x)
        if last is not None:
            warm = KMeans(k, init=last, n_init=1).fit(x)
            if warm.inertia_ <= fresh.inertia_ * (1 + WARM_MARGIN):
                return warm.cluster_centers_, float(warm.inertia_)
    return fresh.cluster_centers_, float(fresh.inertia_)


def _in_order(x: Matrix) -> Matrix:
    """Rows sorted by their values, so that nothing depends on the order in which they came."""
    return x[np.lexsort(x.T[::-1])] if len(x) else x


def _signed_log(x: Matrix) -> Matrix:
    return np.sign(x) * np.log1p(np.abs(x))
