"""Texts as sparse vectors: TF-IDF of words, word pairs and character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
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
_CJK_SHARE = 0.1
_STATE = pa.schema([("analyzer", pa.string()), ("term", pa.string()), ("idf", pa.float32())])


class TextFeatures:
    """Word 1–2-grams and character 2–5-grams, each block of unit length (sublinear TF, smoothed IDF).

    Character n-grams stay within words for texts with blanks between them, and run on where CJK characters carry at
    least a tenth of the texts. A text is read up to MAX_ROW_CHARACTERS.
    """

    def __init__(self, texts: Sequence[str], outputs: int = 1) -> None:
        """Learn from train's texts, for a model of so many outputs."""
        cjk = sum(map(is_cjk, texts)) >= _CJK_SHARE * max(1, len(texts))
        common = {
            "min_df": 2 if len(texts) >= _RARE else 1,
            "max_features": min(MAX_FEATURES, max(MIN_FEATURES, MAX_WEIGHTS // outputs)),
        }
        blocks = [_block(analyzer, **common) for analyzer in ("word", "char" if cjk else "char_wb")]
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


def _block(analyzer: str, **said: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if analyzer == "word":
        return TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **said)
    return TfidfVectorizer(analyzer=analyzer, ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32, **said)


def _learns(block: Any, texts: list[str]) -> bool:
    """Fit a vectorizer; False where it finds nothing to count."""
    try:
        block.fit(texts)
    except ValueError:  # an empty vocabulary; scikit-learn has no type of its own for it
        return False
    return True
