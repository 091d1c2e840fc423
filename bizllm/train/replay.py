"""A small sample of old rows that is kept and mixed among new ones, so that a model does not forget what it knew."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Indices = npt.NDArray[np.int64]


def keep(truth: npt.NDArray[Any], count: int, seed: int, vectors: npt.NDArray[np.float32] | None = None) -> Indices:
    """Ascending positions of at most `count` rows, as many of each class as there are, up to an equal share.

    truth: (rows,) classes; of multi_label (rows, labels) bools, where a row counts for its rarest label. With vectors
    (rows, dim) a class is kept by herding (Welling 2009; Rebuffi et al. 2017): the rows whose mean is nearest to the
    class's, at any number of them; else by chance.
    """
    codes = truth if truth.ndim == 1 else _rarest(truth)
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    kept = []
    for rows, quota in zip(groups, quotas([len(rows) for rows in groups], count), strict=True):
        chosen = rng.permutation(len(rows))[:quota] if vectors is None else _herd(vectors[rows], quota)
        kept.append(rows[chosen])
    return np.sort(np.concatenate([np.empty(0, np.int64), *kept]))


def quotas(sizes: list[int], count: int) -> list[int]:
    """How many of each group: equal shares of `count`; what a small group lacks goes to the others."""
    left, shares = count, [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda group: (sizes[group], group))
    for position, group in enumerate(order):
        shares[group] = min(sizes[group], left // (len(order) - position))
        left -= shares[group]
    return shares


def mix(old: pa.Table, new: pa.Table, share: float, seed: int) -> pa.Table:
    """All new rows, and so many old ones that they are `share` of the whole, shuffled.

    Where too few are kept each is repeated about equally often: a rehearsal does not depend on how much was kept.
    """
    assert 0.0 <= share < 1.0, "a share of the whole"
    wanted = round(share / (1.0 - share) * len(new)) if len(old) else 0
    rng = np.random.default_rng(seed)
    rounds = -(-wanted // max(1, len(old)))
    again = np.concatenate([np.empty(0, np.int64), *(rng.permutation(len(old)) for _ in range(rounds))])[:wanted]
    both = pa.concat_tables([new, old.select(new.column_names).cast(new.schema).take(again)])
    return both.take(rng.permutation(len(both)))


def _rarest(truth: npt.NDArray[np.bool_]) -> Indices:
    """(rows,) the label of each row that fewest rows have; -1 without any."""
    rarity = np.where(truth, truth.sum(axis=0), len(truth) + 1)
    return np.where(truth.any(axis=1), rarity.argmin(axis=1), -1)


def _herd(vectors: npt.NDArray[np.float32], count: int) -> Indices:
    """The first `count` of a class's rows by herding, of unit vectors."""
    unit = np.asarray(vectors, np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    mean = unit.mean(axis=0)
    left = np.ones(len(unit), dtype=bool)
    total = np.zeros(unit.shape[1])
    chosen: list[int] = []
    while len(chosen) < count:
        # The row that brings the sum nearest to so many means: |aim − x|² is least where 2 aim·x − |x|² is most.
        aim = (len(chosen) + 1) * mean - total
        gain = np.where(left, 2.0 * unit @ aim - (unit**2).sum(axis=1), -np.inf)
        row = int(gain.argmax())
        left[row] = False
        chosen.append(row)
        total += unit[row]
    return np.array(chosen, dtype=np.int64)
