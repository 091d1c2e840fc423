"""Rows that train, validation and test share, exactly or nearly, and rows of one text that contradict each other.

A model that has seen the test's rows scores better than it is. Equal means equal after Unicode folding; near means a
Jaccard similarity of character shingles. Candidates come from MinHash signatures in bands (Broder 1997; Leskovec,
Rajaraman & Ullman, Mining of Massive Datasets, 3.4); each is then checked exactly, so that no pair is told wrongly.
Only positions leave here, never text.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.methods.documents import folded
from bizllm.train.shingles import Indices, Signatures, jaccard, signatures

TRAIN = "train"

HASHES = 126  # 0.5 KB a text
RECALL = 0.99  # of pairs right at the threshold; of more similar ones it is higher
SLACK = 0.1  # by which a candidate's signatures may agree less than the threshold: three standard deviations
# In a bucket each text meets this many neighbours in order of length, and texts that both met PLENTY of likely twins
# look for no more: larger buckets come from texts of one mould, where any of many rows is the twin, and 100,000 rows of
# one mould would be billions of pairs. The counts of such data are lower bounds.
WINDOW = 32
PLENTY = 32


@dataclass(frozen=True)
class Twins:
    """Rows of `part` that `other` holds too; where both are the same part, rows that repeat an earlier one.

    rows: (found,) positions in `part`, ascending. twins: (found,) the position in `other` of the most similar row.
    similarity: (found,) Jaccard, 1 where exact. exact: (found,) equal after folding. total: rows of `part`.
    """

    part: str
    other: str
    rows: Indices
    twins: Indices
    similarity: npt.NDArray[np.float64]
    exact: npt.NDArray[np.bool_]
    total: int

    def counts(self) -> dict[str, str | int | float]:
        """For a report: how many rows, and their share of the part."""
        exact = int(self.exact.sum())
        share = len(self.rows) / self.total if self.total else 0.0
        return {"part": self.part, "other": self.other, "exact": exact, "near": len(self.rows) - exact, "share": share}


@dataclass(frozen=True)
class Overlap:
    """What the parts share. parts: their names in the order in which `find` was given them."""

    parts: tuple[str, ...]
    found: tuple[Twins, ...]

    def between(self, part: str, other: str) -> Twins:
        """The rows of `part` that `other` holds."""
        return next(twins for twins in self.found if (twins.part, twins.other) == (part, other))

    def drop(self, part: str = TRAIN) -> Indices:
        """Positions in `part` of rows that a later part holds too, ascending: what it should be learnt without."""
        later = self.parts[self.parts.index(part) + 1 :]
        return np.unique(np.concatenate([np.empty(0, np.int64), *(self.between(part, name).rows for name in later)]))

    def counts(self) -> list[dict[str, str | int | float]]:
        """One entry for each two parts, and for each held-out part within itself."""
        return [twins.counts() for twins in self.found]

    def table(self) -> pa.Table:
        """All twins: part, row, other, twin, similarity, exact."""
        schema = pa.schema(
            {"part": pa.string(), "row": pa.int64(), "other": pa.string(), "twin": pa.int64()}
            | {"similarity": pa.float64(), "exact": pa.bool_()}
        )
        tables = [
            pa.table([[t.part] * len(t.rows), t.rows, [t.other] * len(t.rows), t.twins, t.similarity, t.exact], schema)
            for t in self.found
        ]
        return pa.concat_tables(tables) if tables else schema.empty_table()


def find(parts: Mapping[str, Sequence[str]], near: float = 0.8) -> Overlap:
    """What the parts share, each with each, and what held-out parts (all but `train`) repeat within themselves.

    parts: texts by name, in order: train, validation, test. near: least Jaccard similarity of near duplicates, in
    (0, 1]. Empty texts are nobody's twins. 100,000 texts of 75 characters: 2 s and
    270 MB, or 10 s and 490 MB where all are of one mould.
    """
    assert 0 < near <= 1, "a Jaccard similarity"
    number: dict[str, int] = {}
    ids = {
        name: np.array([number.setdefault(folded(text), len(number)) for text in texts], dtype=np.int64)
        for name, texts in parts.items()
    }
    texts = list(number)
    first = {name: _first_rows(rows, len(texts)) for name, rows in ids.items()}
    blank = number.get("", -1)
    for rows in first.values():
        if blank >= 0:
            rows[blank] = -1
    held_out = np.zeros(len(texts), dtype=bool)
    for name, rows in first.items():
        if name != TRAIN:
            held_out |= rows >= 0
    left, right, similarity = _near(texts, held_out, near)
    both = (np.concatenate([left, right]), np.concatenate([right, left]), np.tile(similarity, 2))
    found = [
        _twins(part, other, ids[part], first, both)
        for part in parts
        for other in parts
        if part != other or part != TRAIN
    ]
    return Overlap(tuple(parts), tuple(found))


def conflicts(texts: Sequence[str], labels: Sequence[Hashable]) -> list[list[int]]:
    """Groups of positions whose texts are equal after folding though their labels are not, in order of first row."""
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(folded(text), []).append(row)
    return [rows for rows in groups.values() if len({labels[row] for row in rows}) > 1]


def _first_rows(ids: Indices, count: int) -> Indices:
    """(texts,) the first row of each text, -1 where it has none."""
    rows = np.full(count, -1, dtype=np.int64)
    rows[ids[::-1]] = np.arange(len(ids))[::-1]
    return rows


def _twins(
    part: str,
    other: str,
    ids: Indices,
    first: Mapping[str, Indices],
    near: tuple[Indices, Indices, npt.NDArray[np.float64]],
) -> Twins:
    left, right, similarity = near
    known = (first[part][left] >= 0) & (first[other][right] >= 0)
    if part == other:
        known &= first[part][right] < first[part][left]
    left, right, similarity = left[known], right[known], similarity[known]
    order = np.lexsort(
        (-first[other][right], similarity)
    )  # the last one written stays: the most similar, then earliest
    near_twin, alike = np.full(len(first[part]), -1, dtype=np.int64), np.zeros(len(first[part]))
    near_twin[left[order]] = first[other][right[order]]
    alike[left[order]] = similarity[order]
    rows = np.arange(len(ids), dtype=np.int64)
    same = first[other][ids]
    exact = (same >= 0) & ((same < rows) if part == other else True)
    twin = np.where(exact, same, near_twin[ids])
    told = twin >= 0
    return Twins(part, other, rows[told], twin[told], np.where(exact, 1.0, alike[ids])[told], exact[told], len(ids))


def _near(
    texts: list[str], held_out: npt.NDArray[np.bool_], near: float
) -> tuple[Indices, Indices, npt.NDArray[np.float64]]:
    """Pairs of different texts, at least one of them held out, whose Jaccard similarity is at least `near`."""
    some = np.array([i for i, text in enumerate(texts) if text], dtype=np.int64)
    if len(some) < 2 or not held_out.any():
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    picked = [texts[i] for i in some]
    signs = signatures(picked, HASHES)
    lengths = np.array([len(text) for text in picked], dtype=np.int64)
    left, right = _candidates(signs, lengths, held_out[some], near)
    similarity = jaccard(picked, left, right)
    right_ones = similarity >= near
    return some[left[right_ones]], some[right[right_ones]], similarity[right_ones]


def _candidates(
    signs: Signatures, lengths: Indices, held_out: npt.NDArray[np.bool_], near: float
) -> tuple[Indices, Indices]:
    width = rows_of_a_band(near)
    met = np.zeros(len(signs), dtype=np.int64)
    pairs = [np.empty(0, np.int64)]
    for start in range(0, HASHES - width + 1, width):
        band = signs[:, start : start + width].astype(np.uint64)
        key = np.zeros(len(band), dtype=np.uint64)
        for column in band.T:
            key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        order = np.lexsort((lengths, key))
        key = key[order]
        for step in range(1, WINDOW + 1):
            same = np.flatnonzero(key[step:] == key[:-step])
            if not len(same):
                break
            a, b = order[same], order[same + step]
            wanted = (held_out[a] | held_out[b]) & (np.minimum(met[a], met[b]) < PLENTY)
            agreed = _agreeing(signs, np.minimum(a, b)[wanted], np.maximum(a, b)[wanted], near - SLACK)
            met += np.bincount(agreed // len(signs), minlength=len(signs))
            met += np.bincount(agreed % len(signs), minlength=len(signs))
            pairs.append(agreed)
    found = np.unique(np.concatenate(pairs))
    return found // len(signs), found % len(signs)


def _agreeing(signs: Signatures, a: Indices, b: Indices, least: float, chunk: int = 50_000) -> Indices:
    kept = [np.empty(0, np.int64)]
    for start in range(0, len(a), chunk):
        i, j = a[start : start + chunk], b[start : start + chunk]
        good = (signs[i] == signs[j]).mean(axis=1) >= least
        kept.append(i[good] * len(signs) + j[good])
    return np.concatenate(kept)


def rows_of_a_band(near: float) -> int:
    """The most hashes a band may have so that pairs at the threshold share one with a chance of at least RECALL."""
    widths = [w for w in range(1, HASHES + 1) if 1 - (1 - near**w) ** (HASHES // w) >= RECALL]
    return max(widths, default=1)
