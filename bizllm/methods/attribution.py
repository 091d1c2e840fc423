"""What carried a text's label: the pieces of a text, what each adds to the label's log-odds, the weightiest of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods import sentences
from bizllm.methods.few_shot import FewShot
from bizllm.methods.sentences import Span

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.integer[Any]]
Encode = Callable[[list[str]], tuple[npt.NDArray[np.float32], Whole]]

LONGEST = 4_000  # characters of a text that are explained; n-grams see no more either
MOST_PIECES = 32  # of a text that an encoder reads once without each
NO_RIVAL = -1
_JOINS = 0.1  # of the weightiest character: with less, none joins its neighbours to a word


@dataclass(frozen=True)
class Weighed:
    """A text's pieces in order, and what each adds to the log-odds of its label."""

    spans: list[Span]
    weights: Array

    @classmethod
    def of_characters(cls, text: str, characters: Array) -> Weighed:
        """Its words, each with the sum of its characters (characters,)."""
        spans = sentences.words(text)
        return cls(spans, _sums(characters, spans))

    def within(self, length: int) -> Weighed:
        """Those pieces that end within so many characters."""
        kept = [i for i, (_, end) in enumerate(self.spans) if end <= length]
        return self if len(kept) == len(self.spans) else Weighed([self.spans[i] for i in kept], self.weights[kept])

    def strongest(self, text: str, most: int) -> list[tuple[int, int, float]]:
        """(start, end, weight) of the pieces that speak for the label, weightiest first.

        Chinese characters that stand side by side are told as one: no blank says where a word ends.
        """
        if not (most_weight := self.weights.max(initial=0.0)) > 0:
            return []
        least = _JOINS * most_weight
        joined: list[list[Any]] = []
        for (start, end), weight in zip(self.spans, self.weights.tolist(), strict=True):
            joins = weight > least and sentences.is_cjk(text[start:end])
            if joins and joined and joined[-1][1] == start and joined[-1][3]:
                joined[-1][1], joined[-1][2] = end, joined[-1][2] + weight
            else:
                joined.append([start, end, weight, joins])
        # Compared to a thousandth of the weightiest: the last digits depend on what else is in the batch.
        digits = 3 - math.floor(math.log10(most_weight))
        told = [(start, end, weight) for start, end, weight, _ in joined if round(weight, digits) > 0]
        return sorted(told, key=lambda one: (-round(one[2], digits), one[0]))[:most]


def pieces(text: str, most: int = MOST_PIECES) -> list[Span]:
    """Its words; of a longer text parts of sentences as equal as can be, so that there are at most so many."""
    words = sentences.words(text)
    if len(words) <= most:
        return words
    starts = np.array([start for start, _ in sentences.split(text)])
    of = np.searchsorted(starts, [start for start, _ in words], side="right")
    counts = np.unique(of, return_counts=True)[1]
    if len(counts) > most:
        counts = np.array([len(words)])
    size = next(k for k in range(-(-len(words) // most), len(words) + 1) if (-(-counts // k)).sum() <= most)
    lengths = [len(part) for count in counts for part in np.array_split(np.arange(count), -(-count // size))]
    ends = np.cumsum(lengths).tolist()
    return [(words[end - length][0], words[end - 1][1]) for end, length in zip(ends, lengths, strict=True)]


def of_few_shot(
    few: FewShot, texts: Sequence[str], chosen: Whole, rivals: Whole, encode: Encode | None
) -> tuple[list[Weighed], int]:
    """(of each text what its pieces add to the log-odds of the `chosen` label against the rival's; tokens read).

    The n-grams' part is exact: what its pieces add, and the models' offsets, are the difference of the two logits. The
    encoder's part is what the difference loses where a piece is left out (occlusion: Zeiler & Fergus, ECCV 2014).
    chosen, rivals: (texts,) labels; NO_RIVAL: the log-odds are those of the label itself. encode: vectors of length 1
    and tokens of texts, where the model was learned of vectors.
    """
    cut = [text[:LONGEST] for text in texts]
    spans = [sentences.words(text) if few.dense is None else pieces(text) for text in cut]
    weights = [np.zeros(len(found)) for found in spans]
    if few.sparse is not None and few.terms is not None:
        rows = few.terms.matrix(cut)
        for i, text in enumerate(cut):
            features = rows.indices[rows.indptr[i] : rows.indptr[i + 1]]
            values = rows.data[rows.indptr[i] : rows.indptr[i + 1]]
            towards = _towards(few.sparse[features], int(chosen[i]), int(rivals[i]))
            weights[i] += _sums(few.terms.spread(text, features.tolist(), (values * towards).tolist()), spans[i])
    tokens = 0
    if few.dense is not None:
        assert encode is not None, "learned of vectors"
        vectors, counts = encode(
            [variant for text, at in zip(cut, spans, strict=True) for variant in _variants(text, at)]
        )
        tokens = int(counts.sum())
        of_each = np.split(vectors, np.cumsum([1 + len(at) for at in spans])[:-1])
        for i, seen in enumerate(of_each):
            whole, *without = (seen @ _towards(few.dense[:-1], int(chosen[i]), int(rivals[i]))).tolist()
            weights[i] += whole - np.array(without)
    scaled = [Weighed(found, w / few.temperature) for found, w in zip(spans, weights, strict=True)]
    return scaled, tokens


def _variants(text: str, spans: Sequence[Span]) -> list[str]:
    """The text, and the text without each of its pieces."""
    return [text, *(text[:start] + text[end:] for start, end in spans)]


def _towards(weights: npt.NDArray[np.float32], chosen: int, rival: int) -> Array:
    """(features,) of (features, labels): what speaks for the label, and not for its rival."""
    towards: Array = weights[:, chosen].astype(np.float64)
    return towards if rival == NO_RIVAL else towards - weights[:, rival]


def _sums(characters: Array, spans: Sequence[Span]) -> Array:
    """(pieces,) sums of (characters,)."""
    running = np.concatenate([[0.0], np.cumsum(characters)])
    return np.array([running[end] - running[start] for start, end in spans])
