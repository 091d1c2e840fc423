"""Whether an engine says what torch says in float32: what a faster one must show before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bizllm.models.batches import Floats
from bizllm.models.engines.base import Kind

NEEDED: dict[Kind, float] = {"vectors": 0.9999, "classes": 0.995, "labels": 0.995, "tags": 0.995, "numbers": 0.995}
WORDS: dict[Kind, str] = {
    "vectors": "least cosine",
    "classes": "equal labels",
    "labels": "equal sets of labels",
    "tags": "equal tags",
    "numbers": "1 − largest difference, in standard deviations",
}


@dataclass(frozen=True)
class Agreement:
    """How far two engines agree, from 0 to 1 (of numbers perhaps less), over so many windows."""

    value: float
    windows: int
    kind: Kind

    @property
    def enough(self) -> bool:
        """Whether one may stand for the other. Not a number never is."""
        return self.value >= NEEDED[self.kind]

    def __str__(self) -> str:
        return f"{WORDS[self.kind]} {_digits(self.value)} on {self.windows:,} windows"


def agreement(kind: Kind, reference: Sequence[Floats], said: Sequence[Floats], cut: float = 0.0) -> Agreement:
    """Compare the outputs of each window: vectors by the least cosine of all, classes by the share of windows whose
    likeliest is the same, sets of labels by the share whose logits lie on the same side of `cut`, tags by the share of
    tokens, numbers by the largest difference over the standard deviation of what was expected."""
    if kind == "vectors":
        value = float(min((one @ other for one, other in zip(reference, said, strict=True)), default=1.0))
    elif kind == "numbers":
        one, other = np.stack(reference), np.stack(said)
        spread = np.maximum(one.std(0), np.finfo(np.float32).tiny)
        value = float(1 - (np.abs(one - other) / spread).max())
    else:
        same = [np.atleast_1d(_equal(kind, one, other, cut)) for one, other in zip(reference, said, strict=True)]
        value = float(np.concatenate(same).mean())
    return Agreement(value, len(reference), kind)


def _equal(kind: Kind, one: Floats, other: Floats, cut: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    if not np.isfinite(other).all():
        return np.zeros(one.shape[:-1], bool)
    if kind == "labels":
        return np.asarray(((one > cut) == (other > cut)).all(-1))
    return np.asarray(one.argmax(-1) == other.argmax(-1))


def _digits(value: float) -> str:
    """Enough of them to tell 0.99996 from 1."""
    return f"{np.floor(value * 1e5) / 1e5:.5f}" if np.isfinite(value) else "not a number"
