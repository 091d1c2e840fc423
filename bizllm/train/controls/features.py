"""Texts as sparse vectors: TF-IDF of words, word pairs and character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bizllm.methods.sentences import is_cjk
from bizllm.train.control import MAX_ROW_CHARACTERS

Sparse = Any  # scipy.sparse.csr_array, float32

MAX_FEATURES = 300_000  # the most frequent words and word pairs, and as many character n-grams
MIN_FEATURES = 20_000
MAX_WEIGHTS = 30_000_000  # of a block: with many classes fewer features, so that 0.5 GB hold them
_RARE = 1_000  # from so many texts on, what occurs in only one of them is left out
# A CJK character is a word: Chinese and Japanese write no blanks, so that word pairs are pairs of characters.
_WORD = r"(?u)[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])\w)+"
_CJK_SHARE = 0.1


class TextFeatures:
    """Word 1–2-grams and character 2–5-grams, each block of unit length (sublinear TF, smoothed IDF).

    Character n-grams stay within words for texts with blanks between them, and run on where CJK characters carry at
    least a tenth of the texts. A text is read up to MAX_ROW_CHARACTERS.
    """

    def __init__(self, texts: Sequence[str], outputs: int = 1) -> None:
        """Learn from train's texts, for a model of so many outputs."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        cjk = sum(map(is_cjk, texts)) >= _CJK_SHARE * max(1, len(texts))
        common: dict[str, Any] = {
            "sublinear_tf": True,
            "min_df": 2 if len(texts) >= _RARE else 1,
            "max_features": min(MAX_FEATURES, max(MIN_FEATURES, MAX_WEIGHTS // outputs)),
            "dtype": np.float32,
        }
        blocks = [
            TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), **common),
            TfidfVectorizer(analyzer="char" if cjk else "char_wb", ngram_range=(2, 5), **common),
        ]
        cut = [text[:MAX_ROW_CHARACTERS] for text in texts]
        self._blocks = [block for block in blocks if _learns(block, cut)]

    def matrix(self, texts: Sequence[str]) -> Sparse:
        """(texts, features) float32; features that train never had are left out."""
        from scipy.sparse import csr_array, hstack

        if not self._blocks:  # nothing but punctuation
            return csr_array((len(texts), 1), dtype=np.float32)
        cut = [text[:MAX_ROW_CHARACTERS] for text in texts]
        return csr_array(hstack([block.transform(cut) for block in self._blocks], format="csr"))


def pair_matrix(features: TextFeatures, texts: Sequence[str], pairs: Sequence[str]) -> Sparse:
    """(pairs, 4 × features + 2): both texts, what they share, what only one has; cosine and ratio of lengths."""
    from scipy.sparse import csr_array, hstack

    one, other = features.matrix(texts), features.matrix(pairs)
    shared = one.multiply(other)
    cosine = np.asarray(shared.sum(axis=1))
    lengths = np.array([[len(a) + 1, len(b) + 1] for a, b in zip(texts, pairs, strict=True)], dtype=np.float32)
    ratio = lengths.min(axis=1) / lengths.max(axis=1)
    dense = csr_array(np.stack([cosine, ratio], axis=1).astype(np.float32))
    return csr_array(hstack([one, other, shared, abs(one - other), dense], format="csr"))


def _learns(block: Any, texts: list[str]) -> bool:
    """Fit a vectorizer; False where it finds nothing to count."""
    try:
        block.fit(texts)
    except ValueError:  # an empty vocabulary; scikit-learn has no type of its own for it
        return False
    return True
