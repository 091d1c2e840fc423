"""How alike texts are: by their words, and by an encoder's vectors where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.text_features import TextFeatures

Floats = npt.NDArray[np.float32]

DIMENSIONS = 200
MOST_UNKNOWN = 0.2  # share of a text's word pieces that an encoder may not know and still read it
_SEED, _ITERATIONS = 0, 4


@dataclass(frozen=True)
class Texts:
    """Texts to compare, in their order.

    words: (texts, at most DIMENSIONS) each of length 1, or 0 where there is no word. vectors: (texts, dim) of length 1,
    or 0 of a text that the encoder can't read; None without one.
    """

    words: Floats
    vectors: Floats | None

    @classmethod
    def of(cls, texts: Sequence[str], encoder: Any) -> Texts:
        """Read these texts; what a word weighs, and which go together, is learned of them. encoder: may be None."""
        if encoder is None:
            return cls(latent(texts), None)
        vectors = encoder.encode(texts)[0]
        return cls(latent(texts), vectors * readable(texts, encoder.tokenizer)[:, None])

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Texts:
        """What `state` told."""
        return cls(state["words"], state.get("vectors"))

    def state(self) -> dict[str, Any]:
        """Arrays of which `from_state` makes the same again."""
        return {"words": self.words} | ({} if self.vectors is None else {"vectors": self.vectors})

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: npt.NDArray[np.int64]) -> Texts:
        """These texts."""
        return Texts(self.words[rows], None if self.vectors is None else self.vectors[rows])

    def likeness(self, others: Texts) -> Floats:
        """(texts, others) in [0, 1]: cosine of words; where both are read, the mean of it and of that of vectors."""
        found = _cosines(self.words, others.words)
        if self.vectors is not None:
            assert others.vectors is not None
            read = np.outer(self.vectors.any(axis=1), others.vectors.any(axis=1))
            found = np.where(read, (found + _cosines(self.vectors, others.vectors)) / 2, found)
        return np.asarray(np.minimum(found, 1), np.float32)


def _cosines(ones: Floats, others: Floats) -> npt.NDArray[np.float64]:
    """(ones, others), none under 0. In double precision, so that a text's likeness does not depend on its batch."""
    return np.asarray(np.maximum(ones.astype(np.float64) @ others.astype(np.float64).T, 0))


def latent(texts: Sequence[str]) -> Floats:
    """(texts, at most DIMENSIONS) of length 1: latent semantic analysis (Deerwester et al., JASIS 1990) of words and
    word pairs, by the randomized method (Halko et al., SIAM Review 2011). Up to DIMENSIONS texts it loses nothing."""
    if not texts:
        return np.zeros((0, 1), np.float32)
    matrix = TextFeatures(texts, characters=False).matrix(texts)
    if len(texts) <= DIMENSIONS:
        products = np.asarray((matrix @ matrix.T).todense(), np.float64)
        values, axes = np.linalg.eigh(products)
        found = axes * np.sqrt(np.maximum(values, 0))
    else:
        from sklearn.decomposition import TruncatedSVD

        few = min(DIMENSIONS, matrix.shape[1])
        found = TruncatedSVD(few, n_iter=_ITERATIONS, random_state=_SEED).fit_transform(matrix)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(np.where(length > 1e-6, found / np.maximum(length, 1e-6), 0), np.float32)


def readable(texts: Sequence[str], tokenizer: Any) -> npt.NDArray[np.bool_]:
    """(texts,) whether an encoder knows the words: an English one has no word pieces for two thirds of Chinese."""
    unknown = tokenizer.unk_token_id
    if unknown is None or not texts:
        return np.full(len(texts), True)
    pieces = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return np.array([of.count(unknown) <= MOST_UNKNOWN * len(of) for of in pieces], bool)
