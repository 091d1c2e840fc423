"""Answers and vectors without a language model: the nearest prompt's answer, the prompt's begin, TF-IDF vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.methods import folds
from bizllm.methods.documents import folded
from bizllm.methods.sentences import split
from bizllm.methods.text_features import Sparse, TextFeatures
from bizllm.train.control import Control, Outputs, unscored

Vectors = npt.NDArray[np.float32]
Way = Literal["nearest prompt", "most frequent answer", "lead"]
WAYS: tuple[Way, ...] = get_args(Way)

SKETCH = 4_096  # cosines are kept to within about 1 / sqrt(SKETCH)
TRIED = 500  # prompts on which the ways to answer are compared
_CHUNK = 1_000


@dataclass
class AnswerControl(Control):
    """A fitted one. prompts: (train, features) of train's prompts; answers: theirs. length: mean characters of one."""

    way: Way
    features: TextFeatures
    prompts: Sparse
    answers: list[str]
    length: float

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.way

    def predict(self, rows: pa.Table) -> Outputs:
        answers = np.empty(len(rows), object)
        answers[:] = self.answer(rows["text"].to_pylist(), self.way)
        return {"answers": answers, **unscored(len(rows))}

    def answer(self, texts: Sequence[str], way: Way) -> list[str]:
        """An answer for each text."""
        if way == "most frequent answer":
            return [_most_frequent(self.answers)] * len(texts)
        if way == "lead":
            return [lead(text, self.length) for text in texts]
        return [self.answers[i] for i in self._nearest(texts)]

    def _nearest(self, texts: Sequence[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(texts), _CHUNK):
            near = (self.features.matrix(texts[start : start + _CHUNK]) @ self.prompts.T).toarray()
            found += near.argmax(axis=1).tolist()
        return found


def fit_answers(rows: pa.Table, seed: int) -> AnswerControl:
    """The way whose answers share most words with the right ones, compared out of fold on at most TRIED rows."""
    texts, answers = rows["text"].to_pylist(), rows["label"].to_pylist()
    length = float(np.mean([len(answer) for answer in answers]))
    held_out = folds.assign([folded(text) for text in texts], np.zeros(len(texts), np.int64), 2, seed) == 0
    asked, known = np.flatnonzero(held_out)[:TRIED], np.flatnonzero(~held_out)
    best: Way = "nearest prompt"
    if len(known):
        trial = _answers([texts[i] for i in known], [answers[i] for i in known], length)
        prompts, right = [texts[i] for i in asked], [answers[i] for i in asked]
        best = max(WAYS, key=lambda way: sum(map(_shared, right, trial.answer(prompts, way))))
    fitted = _answers(texts, answers, length)
    fitted.way = best
    return fitted


def lead(text: str, length: float) -> str:
    """The first sentences of a text, until they are about as long as an answer."""
    spans = split(text)
    end = next((b for _, b in spans if b - spans[0][0] >= 0.8 * length), len(text))
    return text[:end].strip()


@dataclass
class VectorControl(Control):
    """A fitted one: TF-IDF vectors, in SKETCH numbers by a count sketch (Charikar, Chen & Farach-Colton 2002)."""

    features: TextFeatures
    name: str = "TF-IDF cosine"

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """(texts, SKETCH) unit vectors; zeros for a text of which train had no word."""
        from scipy.sparse import csr_array

        matrix = self.features.matrix(texts)
        width = matrix.shape[1]
        rng = np.random.default_rng(width)
        signs = rng.choice(np.array([-1, 1], np.float32), width)
        sketch = csr_array((signs, (np.arange(width), rng.integers(0, SKETCH, width))), shape=(width, SKETCH))
        dense = np.asarray((matrix @ sketch).toarray(), np.float32)
        return np.asarray(dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12))

    def predict(self, rows: pa.Table) -> Outputs:
        one, other = self.vectors(rows["text"].to_pylist()), self.vectors(rows["pair"].to_pylist())
        return {"anchors": one, "positives": other, **unscored(len(rows))}


def fit_vectors(rows: pa.Table) -> VectorControl:
    """Word and n-gram frequencies of train's texts and pairs."""
    return VectorControl(TextFeatures([*rows["text"].to_pylist(), *rows["pair"].to_pylist()]))


def _answers(texts: Sequence[str], answers: list[str], length: float) -> AnswerControl:
    features = TextFeatures(texts)
    return AnswerControl("nearest prompt", features, features.matrix(texts), answers, length)


def _most_frequent(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]


def _shared(truth: str, said: str) -> float:
    """F1 of the pairs of characters that both have: a measure for any script."""
    one, other = (Counter(a + b for a, b in pairwise(t)) for t in (folded(truth), folded(said)))
    common = (one & other).total()
    return 2 * common / max(1, one.total() + other.total())
