"""How alike texts are: by their words and n-grams, and by an encoder's vectors where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.methods.text_features import TextFeatures

Floats = npt.NDArray[np.float32]

MOST_UNKNOWN = 0.2  # share of a text's word pieces that an encoder may not know and still read it
MOST_TERMS = 256  # of a text that are kept, the heaviest


@dataclass(frozen=True)
class Texts:
    """Texts to compare, in their order.

    terms: (texts, features) sparse, each of length 1, or 0 where nothing can be counted. vectors: (texts, dim) of
    length 1, or 0 of a text that the encoder can't read; None without one.
    """

    terms: Any
    vectors: Floats | None

    @classmethod
    def of(cls, texts: Sequence[str], encoder: Any) -> Texts:
        """Learn the weight of terms from these texts, and read them. encoder: may be None."""
        from scipy.sparse import csr_array

        vectors = encoder.encode(texts)[0] if encoder is not None else None
        if vectors is not None:
            vectors = vectors * readable(texts, encoder.tokenizer)[:, None]
        if not texts:
            return cls(csr_array((0, 1), dtype=np.float32), vectors)
        return cls(_heaviest(TextFeatures(texts).matrix(texts)), vectors)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Texts:
        """What `state` told."""
        from scipy.sparse import csr_array

        rows = len(state["starts"]) - 1
        parts = (state["values"], state["terms"], state["starts"])
        return cls(csr_array(parts, shape=(rows, state["features"])), state.get("vectors"))

    def state(self) -> dict[str, Any]:
        """Arrays and a number, of which `from_state` makes the same again."""
        said = {"values": self.terms.data, "terms": self.terms.indices, "starts": self.terms.indptr}
        said |= {"features": int(self.terms.shape[1])}
        return said if self.vectors is None else said | {"vectors": self.vectors}

    def __len__(self) -> int:
        return int(self.terms.shape[0])

    def take(self, rows: npt.NDArray[np.int64]) -> Texts:
        """These texts."""
        return Texts(self.terms[rows], None if self.vectors is None else self.vectors[rows])

    def likeness(self, others: Texts) -> Floats:
        """(texts, others) in [0, 1]: the cosine of terms, or the mean of it and of that of vectors where both are read."""
        found = np.asarray((self.terms @ others.terms.T).todense(), np.float32)
        if self.vectors is not None:
            assert others.vectors is not None
            read = self.vectors.any(axis=1)[:, None] & others.vectors.any(axis=1)
            found = np.where(read, (found + np.maximum(self.vectors @ others.vectors.T, 0)) / 2, found)
        return np.clip(found, 0.0, 1.0)


def readable(texts: Sequence[str], tokenizer: Any) -> npt.NDArray[np.bool_]:
    """(texts,) whether an encoder knows the words: an English one has no word pieces for two thirds of Chinese."""
    unknown = tokenizer.unk_token_id
    if unknown is None or not texts:
        return np.full(len(texts), True)
    pieces = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return np.array([of.count(unknown) <= MOST_UNKNOWN * len(of) for of in pieces], bool)


def _heaviest(matrix: Any) -> Any:
    """The same with at most MOST_TERMS values a row, each row of length 1."""
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.arange(len(rows)) - matrix.indptr[rows]
    kept = np.sort(order[rank < MOST_TERMS])
    rows, columns, values = rows[kept], matrix.indices[kept], matrix.data[kept]
    length = np.sqrt(np.bincount(rows, values.astype(np.float64) ** 2, matrix.shape[0]))
    values = (values / np.maximum(length, 1e-12)[rows]).astype(np.float32)
    made = csr_array((values, (rows, columns)), shape=matrix.shape)
    made.sort_indices()
    return made
