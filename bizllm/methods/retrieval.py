"""Which documents answer a query: BM25 of terms beside the vectors of an encoder, in one score.

`Index.build` reads the documents, `search` answers queries in batches, `state` and `of` keep an index as plain arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.methods.search_terms import terms

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

NONE = -1  # where fewer documents than asked for have anything to do with a query
K1, B = 0.9, 0.5  # of BM25: how soon repetition tells nothing more, and how much a long text has to excuse
TITLE_SAY = 2  # a term of a title counts as so many of the text
MEANING_SAY = 2.0  # of the vectors, where terms have 1
CONTEXT_SAY = 0.2  # of what surrounds a query, where the query has 1
BEST_SAY, TITLE_SHARE = 2.0, 0.5  # of a document's best part beside all of it; of a title in the vector of each part
_CELLS = 2**24  # scores at a time: 64 MB of float32
_DIGITS = 6  # matrix products differ beyond, by the batch that a query comes in


@dataclass(frozen=True)
class Hits:
    """The best documents of each query, best first; NONE and 0 where there are fewer.

    ids, scores: (queries, k). scores lie in [0, 1]: a weighted mean of lexical and meaning, where there are both.
    lexical: the share of the most that BM25 gives a query. meaning: cosines; 0 where vectors had no part.
    """

    ids: Places
    scores: Floats
    lexical: Floats
    meaning: Floats


@dataclass(frozen=True)
class Lexical:
    """BM25 (Robertson and Zaragoza 2009, in Lucene's form) of documents, computed by bm25s when they are read.

    vocabulary: (terms,). postings: (documents, terms) sparse columns of what each term gives each document.
    """

    vocabulary: pa.Array
    postings: Any  # scipy.sparse.csc_array, float32

    @classmethod
    def build(cls, texts: Sequence[str], titles: Sequence[str] | None = None) -> Lexical:
        """Read the documents; there must be one at least."""
        import bm25s

        places: dict[str, int] = {}
        read = []
        for i, text in enumerate(texts):
            found = terms(text) + (TITLE_SAY * terms(titles[i]) if titles is not None else [])
            read.append([places.setdefault(term, len(places)) for term in found])
        if not places:  # nothing but punctuation, of which bm25s can take no mean length
            places["."] = 0
            read = [[0] for _ in read]
        made = bm25s.BM25(K1, B, method="lucene").build_index_from_ids([*range(len(places))], read, show_progress=False)
        vocabulary = pa.array([*places], pa.string())
        state = {"terms": pa.table({"term": vocabulary}), "documents": len(texts)}
        return cls.of(state | {name: made[name] for name in _ARRAYS})

    def state(self) -> dict[str, Any]:
        """JSON, arrays and a table, of which `of` makes the same again."""
        kept = {name: getattr(self.postings, name) for name in _ARRAYS}
        return {"terms": pa.table({"term": self.vocabulary}), "documents": self.postings.shape[0], **kept}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Lexical:
        """What `state` told."""
        from scipy.sparse import csc_array

        vocabulary = state["terms"]["term"].combine_chunks()
        shape = (state["documents"], len(vocabulary))
        return cls(vocabulary, csc_array(tuple(state[name] for name in _ARRAYS), shape=shape))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {term: i for i, term in enumerate(self.vocabulary.to_pylist())}

    @cached_property
    def _rarity(self) -> Floats:
        """(terms + 1,) inverse document frequencies; the last is that of a term which no document has."""
        documents = self.postings.shape[0]
        having = np.append(np.diff(self.postings.indptr), 0)
        rarity: Floats = np.log1p((documents - having + 0.5) / (having + 0.5)).astype(np.float32)
        return rarity

    @cached_property
    def _by_term(self) -> Any:
        return self.postings.T.tocsr()

    def weights(self, query: str) -> dict[str, float]:
        """The rarity of each of the query's terms. A term counts once: who writes at length repeats himself."""
        return {term: float(self._rarity[self._places.get(term, -1)]) for term in dict.fromkeys(terms(query))}

    def shares(self, queries: Sequence[str]) -> Floats:
        """(queries, documents) in [0, 1): BM25, divided by the bound that a query's terms set it."""
        from scipy.sparse import csr_array

        columns: list[int] = []
        starts, bounds = [0], []
        for query in queries:
            weights = self.weights(query)
            columns += [self._places[term] for term in weights if term in self._places]
            starts.append(len(columns))
            bounds.append(sum(weights.values()))
        shape = (len(queries), len(self.vocabulary))
        asked = csr_array((np.ones(len(columns), np.float32), columns, starts), shape=shape)
        scores = (asked @ self._by_term).toarray()
        share: Floats = scores / np.maximum(np.array(bounds, np.float32), 1e-6)[:, None]
        return share


@dataclass(frozen=True)
class Meaning:
    """Vectors of the parts (sentences, say) of documents.

    vectors: (parts, dim) of length 1. of: (parts,) the document of each, ascending; a document may have none.
    """

    vectors: Floats
    of: Places

    @classmethod
    def build(cls, vectors: Floats, of: Places | None = None, titles: Floats | None = None) -> Meaning:
        """of: by default each vector is a document's. titles: (parts, dim) that of the part's document, 0 where it has
        none; a part of an article tells more when one knows what the article is about."""
        mixed = vectors if titles is None else _unit(vectors + TITLE_SHARE * titles)
        return cls(mixed.astype(np.float32), np.arange(len(vectors)) if of is None else of)

    def cosines(self, queries: Floats, documents: int) -> Floats:
        """(queries, documents) in [0, 1]: of the best part and of all parts together, weighted."""
        found = np.zeros((len(queries), documents), np.float32)
        if len(self.of):
            known, starts = np.unique(self.of, return_index=True)
            cosines = queries @ self.vectors.T
            best = np.maximum.reduceat(cosines, starts, axis=1)
            whole = queries @ self._wholes.T
            found[:, known] = np.clip((BEST_SAY * best + whole) / (BEST_SAY + 1), 0, 1)
        return found

    @cached_property
    def _wholes(self) -> Floats:
        """(documents with parts, dim)."""
        return _unit(np.add.reduceat(self.vectors, np.unique(self.of, return_index=True)[1], axis=0))


@dataclass(frozen=True)
class Index:
    """Documents that can be searched: by their terms, and by their vectors where there are such.

    context: what surrounds each document, such as what was said before it; it counts less.
    """

    lexical: Lexical
    meaning: Meaning | None = None
    context: Lexical | None = None

    @classmethod
    def build(cls, texts: Sequence[str], vectors: Floats | None = None, titles: Sequence[str] | None = None) -> Index:
        """Read documents, one at least. vectors: (texts, dim) of length 1; of parts, see `Meaning`."""
        return cls(Lexical.build(texts, titles), Meaning.build(vectors) if vectors is not None else None)

    def state(self) -> dict[str, Any]:
        """JSON, arrays and a table, of which `of` makes the same again."""
        kept = self.lexical.state()
        if self.meaning is not None:
            kept |= {"vectors": self.meaning.vectors, "of": self.meaning.of}
        if self.context is not None:
            kept |= {f"{_CONTEXT}{name}": value for name, value in self.context.state().items()}
        return kept

    @classmethod
    def of(cls, state: dict[str, Any]) -> Index:
        """What `state` told."""
        meaning = Meaning(state["vectors"], state["of"]) if "vectors" in state else None
        around = {name.removeprefix(_CONTEXT): value for name, value in state.items() if name.startswith(_CONTEXT)}
        return cls(Lexical.of(state), meaning, Lexical.of(around) if around else None)

    def __len__(self) -> int:
        return int(self.lexical.postings.shape[0])

    def search(
        self,
        queries: Sequence[str],
        vectors: Floats | None,
        k: int,
        apart: tuple[Places, Places] | None = None,
        contexts: Sequence[str] | None = None,
    ) -> Hits:
        """The k best documents of each query, ties in the documents' order.

        vectors: (queries, dim) of length 1, or 0 for a query that the encoder does not read, which goes by terms alone.
        apart: numbers of the queries and of the documents: equal ones never meet (one conversation, say).
        contexts: what surrounds each query, where documents have a context.
        """
        found = [self._some(part, queries, vectors, k, apart, contexts) for part in self._batches(len(queries))]
        if not found:
            nothing = np.zeros((0, k), np.float32)
            return Hits(np.zeros((0, k), np.int64), nothing, nothing, nothing)
        return Hits(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))

    def _batches(self, queries: int) -> Iterator[slice]:
        widest = max(len(self), len(self.meaning.of) if self.meaning is not None else 0)
        step = max(1, _CELLS // max(1, widest))
        return (slice(start, start + step) for start in range(0, queries, step))

    def _some(
        self,
        part: slice,
        queries: Sequence[str],
        vectors: Floats | None,
        k: int,
        apart: tuple[Places, Places] | None,
        contexts: Sequence[str] | None,
    ) -> tuple[Places, Floats, Floats, Floats]:
        lexical = self.lexical.shares(queries[part]).round(_DIGITS)
        meaning, scores = np.zeros_like(lexical), lexical
        if self.meaning is not None and vectors is not None:
            meaning = self.meaning.cosines(vectors[part], len(self)).round(_DIGITS)
            read = np.any(vectors[part] != 0, axis=1, keepdims=True)
            scores = np.where(read, (lexical + MEANING_SAY * meaning) / (1 + MEANING_SAY), lexical)
        if self.context is not None and contexts is not None:
            around = self.context.shares(contexts[part]).round(_DIGITS)
            scores = ((scores + CONTEXT_SAY * around) / (1 + CONTEXT_SAY)).astype(np.float32)
        if apart is not None:
            scores = np.where(np.equal.outer(apart[0][part], apart[1]), 0, scores)
        ids = best(scores, k)
        told = [np.where(ids == NONE, 0, np.take_along_axis(a, ids, axis=1)) for a in (scores, lexical, meaning)]
        return ids, told[0], told[1], told[2]


def best(scores: Floats, k: int) -> Places:
    """(rows, k) places of the highest scores above 0, highest first, ties by place; NONE where there are fewer."""
    rows, columns = scores.shape
    ids = np.full((rows, k), NONE, np.int64)
    if columns == 0:
        return ids
    kept, tiny = min(k, columns), np.finfo(np.float32).tiny
    least: Floats = np.partition(scores, columns - kept, axis=1)[:, columns - kept]
    for row in range(rows):  # of all that reach the k-th score, so that a tie there is no matter of chance
        own = scores[row]
        reached = np.flatnonzero(own >= max(least[row], tiny))
        order = reached[np.argsort(-own[reached], kind="stable")][:kept]
        ids[row, : len(order)] = order
    return ids


def _unit(vectors: Floats) -> Floats:
    longest = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(longest, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit


_CONTEXT = "context_"
_ARRAYS = ("data", "indices", "indptr")
