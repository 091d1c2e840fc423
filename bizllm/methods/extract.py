"""Extractive summaries: which sentences stand for the whole.

Sentence vectors, centrality, then a greedy choice without repetition:

* centrality: the mean similarity of a sentence to all the others, LexRank's continuous degree (Erkan and Radev, Journal
  of Artificial Intelligence Research 22, 2004, section 3.1, without its threshold). For unit vectors it is a product
  with their sum, so the cost is linear in the number of sentences. Power iteration (LexRank proper) and facility
  location scored lower on the development part of fewsum_reviews.
* choice: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).
* similarity: the mean of the cosines of meaning (an encoder) and of wording (character n-grams), or of wording alone.
  Together they beat either: the encoder knows synonyms, the n-grams know names and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bizllm.methods.sentences import is_cjk

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

RELEVANCE = 0.7  # lambda of MMR
LEAD = 0.5  # what the first sentence of a single text gains, in units of the most central sentence
_FULL_LENGTH = {False: 80, True: 20}  # a shorter sentence says less; CJK characters carry about four times as much
_NGRAMS = {False: (3, 4), True: (1, 2)}
_BUCKETS = 4_096
_UNRELATED = 0.05  # where no sentence is more central than this, their differences are noise
_REPEATED = 0.95  # a sentence this similar to a chosen one says nothing new, whatever its relevance
_CHUNK = 1_024  # sentences that are compared at once: 18 MB of vectors
_SURVIVORS = _CHUNK // 8

_NOT_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Budget:
    """How long a summary may be: so many sentences, or so many characters, blanks between sentences included."""

    sentences: int | None = None
    chars: int | None = None

    def holds(self, sentences: Sequence[str]) -> bool:
        """Whether these sentences, all of them, are short enough to be their own summary."""
        if self.chars is not None:
            return sum(map(len, sentences)) + len(sentences) - 1 <= self.chars
        return self.sentences is None or len(sentences) <= self.sentences


def summarize(
    sentences: Sequence[str], budget: Budget, meaning: Vectors | None = None, lead: bool = False
) -> tuple[list[int], float]:
    """The positions of the chosen sentences, in order, and their coverage.

    meaning: (sentences, dim) unit vectors of an encoder; None: wording alone decides.
    lead: whether early sentences tend to say what the text is about (prose, no dialogue, not several texts).
    Coverage is the mean over all sentences of the similarity to the nearest chosen one, in [0, 1].
    Where not even one sentence fits `budget.chars`, the best one is chosen alone: the caller cuts it.
    """
    cjk = is_cjk(" ".join(sentences[:_CHUNK]))
    full = _FULL_LENGTH[cjk]
    weights = np.minimum(1.0, np.array([len(s) for s in sentences]) / full)  # (sentences,)
    bonus = LEAD / (1 + np.arange(len(sentences))) if lead else np.zeros(len(sentences))

    def vectors(rows: npt.NDArray[np.int64]) -> Vectors:
        wording = ngram_vectors([sentences[row] for row in rows.tolist()], _NGRAMS[cjk])
        return wording if meaning is None else np.hstack([meaning[rows], wording]) / np.float32(np.sqrt(2))

    def relevance(rows: npt.NDArray[np.int64], of: Vectors) -> Scores:
        return _relevance(of, weights[rows], bonus[rows])

    left = np.arange(len(sentences))
    while len(left) > _CHUNK:  # the best of each chunk meet in the next round: bounded memory, linear time
        best = []
        for rows in np.array_split(left, -(-len(left) // _CHUNK)):
            order = np.argsort(-relevance(rows, vectors(rows)), kind="stable")
            best.append(np.sort(rows[order[:_SURVIVORS]]))
        left = np.concatenate(best)
    final = vectors(left)
    picked = left[_choose(final, relevance(left, final), [len(sentences[i]) for i in left.tolist()], budget)]
    chosen = sorted(int(i) for i in picked)

    if len(left) == len(sentences):
        return chosen, _coverage(final, final[chosen])
    parts = []
    for rows in np.array_split(np.arange(len(sentences)), -(-len(sentences) // _CHUNK)):
        together = vectors(np.concatenate([rows, chosen]))  # one vocabulary, one set of document frequencies
        parts.append(_coverage(together[: len(rows)], together[len(rows) :]) * len(rows))
    return chosen, sum(parts) / len(sentences)


def coverage(sentences: Sequence[str], summary: Sequence[str]) -> float:
    """Mean over the sentences of the similarity, by wording alone, to the nearest sentence of a summary: in [0, 1]."""
    sizes = _NGRAMS[is_cjk(" ".join(sentences[:_CHUNK]))]
    parts = []
    for rows in (sentences[start : start + _CHUNK] for start in range(0, len(sentences), _CHUNK)):
        together = ngram_vectors([*rows, *summary], sizes)
        parts.append(_coverage(together[: len(rows)], together[len(rows) :]) * len(rows))
    return sum(parts) / len(sentences)


def support(sentences: Sequence[str], summary: Sequence[str]) -> list[float]:
    """Of each sentence of a summary the similarity, by wording alone, to the nearest of the source's: in [0, 1]."""
    sizes, nearest = _NGRAMS[is_cjk(" ".join(sentences[:_CHUNK]))], np.zeros(len(summary))
    for rows in (sentences[start : start + _CHUNK] for start in range(0, len(sentences), _CHUNK)):
        together = ngram_vectors([*rows, *summary], sizes)
        nearest = np.maximum(nearest, (together[len(rows) :] @ together[: len(rows)].T).max(1))
    found: list[float] = np.clip(nearest, 0.0, 1.0).tolist()
    return found


def centrality(vectors: Vectors) -> Scores:
    """Mean cosine of each unit vector to all the others: (n,) in [-1, 1]; 1 for a single vector."""
    if len(vectors) == 1:
        return np.ones(1)
    total = vectors.sum(0, dtype=np.float64)
    mean: Scores = (vectors.astype(np.float64) @ total - 1.0) / (len(vectors) - 1)
    return mean


def ngram_vectors(texts: Sequence[str], sizes: Sequence[int]) -> Vectors:
    """TF-IDF of hashed character n-grams: unit vectors (texts, 4096), zero where a text has no letter or digit.

    Case, punctuation and the width of blanks are ignored. Term frequency is logarithmic; inverse document frequency is
    smoothed and counted over `texts` (Salton and Buckley 1988). Hash collisions only blur.
    """
    words = [_NOT_WORDS.sub(" ", text.lower()).strip() for text in texts]
    folded = [f" {text} " if text else "" for text in words]
    codes = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    ends = np.cumsum([len(text) for text in folded])
    row = np.repeat(np.arange(len(folded)), [len(text) for text in folded])
    counts = np.zeros(len(folded) * _BUCKETS)
    for size in sizes:
        grams = len(codes) - size + 1
        if grams <= 0:
            continue
        mixed = np.zeros(grams, np.uint64)
        for offset in range(size):
            mixed = mixed * np.uint64(1_000_003) + codes[offset : offset + grams]
        bucket = (mixed ^ (mixed >> np.uint64(17))) % np.uint64(_BUCKETS)
        inside = np.arange(grams) + size <= ends[row[:grams]]  # none across two texts
        if size == 1:
            inside &= codes != ord(" ")
        cell = row[:grams][inside] * _BUCKETS + bucket[inside].astype(np.int64)
        counts += np.bincount(cell, minlength=len(counts))
    frequency = np.log1p(counts.reshape(len(folded), _BUCKETS)).astype(np.float32)
    idf = np.log((1 + len(folded)) / (1 + (frequency > 0).sum(0))) + 1
    weighted = frequency * idf.astype(np.float32)
    norm = np.linalg.norm(weighted, axis=1, keepdims=True)
    unit: Vectors = weighted / np.where(norm > 0, norm, 1)
    return unit


def cut(text: str, chars: int) -> int:
    """Where to cut a sentence so that at most `chars` characters stay: at its last blank, else hard."""
    if len(text) <= chars:
        return len(text)
    blank = text.rfind(" ", chars // 2, chars + 1)
    return len(text[: blank if blank > 0 else chars].rstrip())


def join(parts: Sequence[str]) -> str:
    """Sentences as one text: a blank between two, none where CJK characters or marks meet."""
    text = ""
    for part in parts:
        text += part if not text or _touches(text[-1], part[0]) else f" {part}"
    return text


def _touches(last: str, first: str) -> bool:
    return (is_cjk(first) and (is_cjk(last) or last in "。！？；…，：」』”’）》")) or (
        last in "。！？；" and first in "「『“（《"
    )


def _coverage(vectors: Vectors, chosen: Vectors) -> float:
    """Mean over the sentences of the similarity to the nearest chosen one."""
    return float(np.clip((vectors @ chosen.T).max(1), 0.0, 1.0).mean())


def _relevance(vectors: Vectors, weights: Scores, bonus: Scores) -> Scores:
    """Centrality scaled to at most 1, times the weight of the length, plus the lead's bonus: (sentences,)."""
    central = np.maximum(centrality(vectors), 0.0)
    top = max(central.max(), _UNRELATED)
    scaled: Scores = central / top * weights + bonus
    return scaled


def _choose(vectors: Vectors, relevance: Scores, lengths: Sequence[int], budget: Budget) -> list[int]:
    """Greedy MMR (Carbonell and Goldstein 1998, eq. 1) until the budget is used up. Ties go to the earlier sentence."""
    redundancy = np.zeros(len(vectors))
    open_ = np.ones(len(vectors), bool)
    room = np.array(lengths)
    chosen: list[int] = []
    used = 0
    while len(chosen) < (budget.sentences or len(vectors)):
        fits = open_ if budget.chars is None else open_ & (used + room <= budget.chars)
        if not fits.any():
            break
        value = np.where(fits, RELEVANCE * relevance - (1 - RELEVANCE) * redundancy, -np.inf)
        # Rounded, so that a last-bit difference between two machines does not decide a tie.
        best = int(np.argmax(np.round(value, 6)))
        chosen.append(best)
        used += lengths[best] + 1
        similarity = (vectors @ vectors[best]).astype(np.float64)
        redundancy = np.maximum(redundancy, similarity)
        open_ &= similarity < _REPEATED
        open_[best] = False
    return chosen or [int(np.argmax(np.round(relevance, 6)))]
