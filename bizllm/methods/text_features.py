"""Texts as sparse vectors: TF-IDF of words, word pairs and character n-grams."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.methods.sentences import is_cjk

Sparse = Any  # scipy.sparse.csr_array, float32

MAX_ROW_CHARACTERS = 4_000  # of a text that are read
MAX_FEATURES = 300_000  # the most frequent words and word pairs, and as many character n-grams
MIN_FEATURES = 20_000
MAX_WEIGHTS = 30_000_000  # of a block: with many classes fewer features, so that 0.5 GB hold them
_RARE = 1_000  # from so many texts on, what occurs in only one of them is left out
# A CJK character is a word: Chinese and Japanese write no blanks, so that word pairs are pairs of characters.
_WORD = r"(?u)[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])\w)+"
_SIZES = (2, 5)  # of character n-grams
_CJK_SHARE = 0.1
_STATE = pa.schema([("analyzer", pa.string()), ("term", pa.string()), ("idf", pa.float32())])


class TextFeatures:
    """Word 1–2-grams and character 2–5-grams, each block of unit length (sublinear TF, smoothed IDF).

    Character n-grams stay within words for texts with blanks between them, and run on where CJK characters carry at
    least a tenth of the texts. A text is read up to MAX_ROW_CHARACTERS.
    """

    def __init__(self, texts: Sequence[str], outputs: int = 1, characters: bool = True) -> None:
        """Learn from train's texts, for a model of so many outputs. characters: False for words and pairs alone."""
        cjk = sum(map(is_cjk, texts)) >= _CJK_SHARE * max(1, len(texts))
        common = {
            "min_df": 2 if len(texts) >= _RARE else 1,
            "max_features": min(MAX_FEATURES, max(MIN_FEATURES, MAX_WEIGHTS // outputs)),
        }
        analyzers = ["word", *(["char" if cjk else "char_wb"] if characters else [])]
        blocks = [_block(analyzer, **common) for analyzer in analyzers]
        cut = [text[:MAX_ROW_CHARACTERS] for text in texts]
        self._blocks = [block for block in blocks if _learns(block, cut)]

    def state(self) -> pa.Table:
        """(features,) analyzer, term, idf: of which `of` makes the same again."""
        parts = [
            pa.table(
                {
                    "analyzer": pa.array([block.analyzer] * len(block.idf_)),
                    "term": pa.array(block.get_feature_names_out().tolist(), pa.string()),
                    "idf": pa.array(block.idf_, pa.float32()),
                }
            )
            for block in self._blocks
        ]
        return pa.concat_tables(parts) if parts else _STATE.empty_table()

    @classmethod
    def of(cls, state: pa.Table) -> TextFeatures:
        """What `state` told."""
        made = cls.__new__(cls)
        made._blocks = []
        for analyzer in dict.fromkeys(state["analyzer"].to_pylist()):
            part = state.filter(pc.equal(state["analyzer"], analyzer))
            block = _block(analyzer, vocabulary=part["term"].to_pylist())
            block.idf_ = part["idf"].to_numpy()
            made._blocks.append(block)
        return made

    def matrix(self, texts: Sequence[str]) -> Sparse:
        """(texts, features) float32; features that train never had are left out."""
        from scipy.sparse import csr_array, hstack

        if not self._blocks or not texts:  # nothing but punctuation, or nothing at all
            width = sum(len(block.idf_) for block in self._blocks)
            return csr_array((len(texts), max(1, width)), dtype=np.float32)
        cut = [text[:MAX_ROW_CHARACTERS] for text in texts]
        return csr_array(hstack([block.transform(cut) for block in self._blocks], format="csr"))

    def spread(self, text: str, features: Iterable[int], shares: Iterable[float]) -> npt.NDArray[np.float64]:
        """(characters,) shares of features that the text has, put on the text: in equal parts on the places where the
        n-gram stands, and there on its characters that are no white space. Their sum is that of the shares.
        """
        share_of = dict(zip(features, shares, strict=True))
        told = [0.0] * len(text)
        first = 0
        for block in self._blocks:
            places: dict[int, list[list[int]]] = {}
            for term, at in _located(block.analyzer, text[:MAX_ROW_CHARACTERS]):
                if (feature := block.vocabulary_.get(term)) is not None:
                    places.setdefault(first + feature, []).append(at)
            for feature, found in places.items():
                share = share_of.get(feature, 0.0) / len(found)
                for at in found:
                    for place in at:
                        told[place] += share / len(at)
            first += len(block.vocabulary_)
        return np.array(told)


def _located(analyzer: str, text: str) -> Iterator[tuple[str, list[int]]]:
    """The n-grams that scikit-learn's analyzer counts, each with the places of its characters but white space."""
    lowered = text.lower()
    place = [i for i, character in enumerate(text) for _ in character.lower()]  # a small letter may be two characters
    if analyzer == "word":
        words = [(match[0], place[match.start() : match.end()]) for match in re.finditer(_WORD, lowered)]
        yield from words
        yield from ((f"{one} {next_}", at + next_at) for (one, at), (next_, next_at) in pairwise(words))
    elif analyzer == "char":  # a run of white space is one blank
        found = [(match[0], match.start()) for match in re.finditer(r"(?s)\s\s+|.", lowered)]
        run = "".join(one if len(one) == 1 else " " for one, _ in found)
        yield from _ngrams(run, [-1 if one.isspace() else place[at] for one, at in found])
    else:
        for match in re.finditer(r"\S+", lowered):
            yield from _ngrams(f" {match[0]} ", [-1, *place[match.start() : match.end()], -1], short=True)


def _ngrams(run: str, place: list[int], short: bool = False) -> Iterator[tuple[str, list[int]]]:
    """place: of each character of the run, negative where it has none. short: a run that is shorter than an n-gram is
    one itself, once."""
    for n in range(_SIZES[0], _SIZES[1] + 1):
        if len(run) <= n:
            if short or len(run) == n:
                yield run, [at for at in place if at >= 0]
            break
        for i in range(len(run) - n + 1):
            yield run[i : i + n], [at for at in place[i : i + n] if at >= 0]


def _block(analyzer: str, **said: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if analyzer == "word":
        return TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **said)
    return TfidfVectorizer(analyzer=analyzer, ngram_range=_SIZES, sublinear_tf=True, dtype=np.float32, **said)


def _learns(block: Any, texts: list[str]) -> bool:
    """Fit a vectorizer; False where it finds nothing to count."""
    try:
        block.fit(texts)
    except ValueError:  # an empty vocabulary; scikit-learn has no type of its own for it
        return False
    return True
