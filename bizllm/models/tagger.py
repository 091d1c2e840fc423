"""Fine-tuned token classifiers: texts → words with their places and tags."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.classifier import softmax
from bizllm.models.engines.base import all_outputs
from bizllm.models.fine_tuned import FineTuned

# Han, kana: written without spaces between words, so each character is one.
_CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_PIECE = re.compile(f"[{_CJK}]|[^\\s{_CJK}]+")
_OVERLAP = 4  # one part in so many of a window is read by the next one too


@dataclass(frozen=True)
class Word:
    """Characters [start, end) of a text, their tag, and how probable the tag is."""

    start: int
    end: int
    tag: str
    probability: float


@dataclass(frozen=True)
class Tagger(FineTuned):
    """A token classifier: logits (rows, tokens, tags)."""

    objectives: ClassVar[tuple[str, ...]] = ("token_classification",)

    def tags(self, texts: Sequence[str]) -> tuple[list[list[Word]], Whole]:
        """(the words of each text in order, tokens that the model read of each text (texts,)).

        A word's first token decides. A text longer than the model's window is read in windows that overlap by a
        quarter or more, and each token is answered by the window in which it lies farthest from a cut. Equal texts are
        read once. The order of the texts changes nothing, not even the batches.
        """
        if not texts:
            return [], np.zeros(0, np.int64)
        unique, places = batches.distinct(texts)
        word_spans = [list(words(text)) for text in unique]
        encoded = self.tokenizer(  # word by word, as it was trained
            [[text[start:end] for start, end in spans] for text, spans in zip(unique, word_spans, strict=True)],
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            verbose=False,
        )
        windows, starts = self._windows(encoded["input_ids"])
        read = all_outputs(self.engine, windows)
        first = np.searchsorted(windows.owner, np.arange(len(unique) + 1))
        lead, tail = map(len, batches.special_tokens(self.tokenizer, 1))
        tagged = []
        for i, spans in enumerate(word_spans):
            parts = [said[lead : len(said) - tail] for said in read[first[i] : first[i + 1]]]
            logits = _joined(parts, starts[first[i] : first[i + 1]])
            tagged.append(self._words(spans, encoded.word_ids(i), logits))
        return [tagged[place] for place in places], windows.tokens_read(len(unique))[places]

    def _windows(self, texts: list[list[int]]) -> tuple[Windows, Whole]:
        """Overlapping windows of token ids, and where in its text each begins (windows,)."""
        before, after = batches.special_tokens(self.tokenizer, 1)
        size = self.info.max_tokens - len(before) - len(after)
        step = size - size // _OVERLAP
        ids, owner, starts = [], [], []
        for text, tokens in enumerate(texts):
            count = 1 + max(0, -(-(len(tokens) - size) // step))
            for start in np.linspace(0, max(0, len(tokens) - size), count).astype(int).tolist():
                ids.append([*before, *tokens[start : start + size], *after])
                owner.append(text)
                starts.append(start)
        return Windows.of(ids, np.array(owner, np.int64)), np.array(starts, np.int64)

    def _words(self, spans: list[tuple[int, int]], owners: list[int], logits: Floats) -> list[Word]:
        """Words with the tag of their first token; none for what the tokenizer passes over (control characters).

        owners: (tokens,) the word that each belongs to. logits: (tokens, tags).
        """
        probabilities = softmax(logits, self.info.temperature)
        best = probabilities.argmax(1)
        first: dict[int, int] = {}  # ascending, as the tokens are
        for token, word in enumerate(owners):
            first.setdefault(word, token)
        return [
            Word(*spans[word], self.info.labels[best[token]], float(probabilities[token, best[token]]))
            for word, token in first.items()
        ]


def words(text: str) -> Iterator[tuple[int, int]]:
    """[start, end) of each word: what stands between spaces, without the punctuation around it, which are words of one
    character each; every Chinese character or kana is a word."""
    for piece in _PIECE.finditer(text):
        start, end = piece.span()
        left, right = start, end
        while left < right and _is_mark(text[left]):
            left += 1
        while right > left and _is_mark(text[right - 1]):
            right -= 1
        yield from ((i, i + 1) for i in range(start, left))
        if left < right:
            yield left, right
        yield from ((i, i + 1) for i in range(right, end))


def _joined(parts: list[Floats], starts: Whole) -> Floats:
    """(tokens, tags) of a text from its windows: between two of them, the middle of what both read decides.

    That is the window where a token lies farthest from a cut: all are of one length, and the text's ends are no cuts.
    """
    ends = starts + [len(part) for part in parts]
    cuts = [0, *((starts[1:] + ends[:-1] + 1) // 2), int(ends[-1])]
    return np.concatenate(
        [
            part[begin - start : end - start]
            for part, start, (begin, end) in zip(parts, starts, pairwise(cuts), strict=True)
        ]
    )


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"
