"""Texts as sets of hashed character shingles, in numpy: their MinHash signatures and exact Jaccard similarities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bizllm.methods.sentences import is_cjk

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]

LATIN_SHINGLE = 5  # characters
CJK_SHINGLE = 2  # about what five Latin letters say
_CHUNK = 250_000  # characters at once: what a core's cache holds through all hash functions
_VERIFY_CHUNK = 4_000_000
_SEED = 20_260_101


def signatures(texts: Sequence[str], hashes: int) -> Signatures:
    """(texts, hashes) MinHash (Broder 1997): two texts agree in each column with the Jaccard of their shingle sets.

    Texts are folded and not empty. Hash functions are multiply-shift (Dietzfelbinger et al. 1997) over mixed shingles.
    """
    rng = np.random.default_rng(_SEED)
    factors = rng.integers(0, 2**63, hashes, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 2**63, hashes, dtype=np.uint64)
    found = np.empty((len(texts), hashes), dtype=np.uint32)
    for rows, values, starts in _chunks(texts, _CHUNK):
        for column, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
            mixed = ((values * factor + offset) >> np.uint64(32)).astype(np.uint32)
            found[rows, column] = np.minimum.reduceat(mixed, starts)
    return found


def jaccard(texts: Sequence[str], left: Indices, right: Indices) -> npt.NDArray[np.float64]:
    """(pairs,) Jaccard similarity of the shingle sets of texts[left] and texts[right]."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    cut = np.cumsum(lengths[left] + lengths[right]) // _VERIFY_CHUNK
    edges = np.flatnonzero(np.diff(cut, prepend=-1, append=-1))
    parts = [_jaccard(texts, left[a:b], right[a:b]) for a, b in pairwise(edges.tolist())]
    return np.concatenate(parts) if parts else np.empty(0)


def _jaccard(texts: Sequence[str], left: Indices, right: Indices) -> npt.NDArray[np.float64]:
    from scipy.sparse import csr_array

    used, where = np.unique(np.concatenate([left, right]), return_inverse=True)
    order, counts, values = [], [], []
    for some, hashed, starts in _chunks([texts[i] for i in used], _VERIFY_CHUNK):
        order.append(some)
        counts.append(np.diff(starts, append=len(hashed)))
        values.append((hashed >> np.uint64(1)).astype(np.int64))
    edges = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    columns = np.concatenate(values)
    sets = csr_array((np.ones(len(columns)), columns, edges), shape=(len(used), 2**63 - 1))
    sets.sum_duplicates()  # a shingle counts once a text
    sets.data[:] = 1.0
    sizes = np.diff(sets.indptr)
    row = np.argsort(np.concatenate(order))[where]
    one, other = row[: len(left)], row[len(left) :]
    common = np.diff(sets[one].multiply(sets[other]).tocsr().indptr)
    return np.asarray(common / (sizes[one] + sizes[other] - common))


def _chunks(texts: Sequence[str], characters: int) -> Iterator[tuple[Indices, Hashes, Indices]]:
    """Positions of some texts, the hashes of all their shingles one after the other, and where each text's begin."""
    cjk = np.array([is_cjk(text) for text in texts], dtype=bool)
    for rows, width in ((np.flatnonzero(~cjk), LATIN_SHINGLE), (np.flatnonzero(cjk), CJK_SHINGLE)):
        if not len(rows):
            continue
        padded = [texts[row].ljust(width, "\0") for row in rows.tolist()]  # a shorter text is one shingle
        lengths = np.array([len(text) for text in padded], dtype=np.int64)
        cut = np.cumsum(lengths) // characters
        edges = np.flatnonzero(np.diff(cut, prepend=-1, append=-1))
        for a, b in pairwise(edges.tolist()):
            yield rows[a:b], *_hashed(padded[a:b], lengths[a:b], width)


def _hashed(texts: list[str], lengths: Indices, width: int) -> tuple[Hashes, Indices]:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    rolled = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for at in range(width):
        rolled = rolled * np.uint64(0x9E3779B97F4A7C15) + codes[at : at + len(rolled)] + np.uint64(1)
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), dtype=bool)  # a shingle never reaches into the next text
    for back in range(1, width):
        inside[ends - back] = False
    values = rolled[inside[: len(rolled)]]
    # The finalizer of SplitMix64 (Steele, Lea & Flood 2014): every bit of the input moves every bit of the output.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    counts = lengths - width + 1
    return values ^ (values >> np.uint64(31)), np.cumsum(counts) - counts
