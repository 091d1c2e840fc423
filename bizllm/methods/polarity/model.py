"""The built-in sentiment model: a multinomial logistic regression on what `cues` finds.

Its few weights were learned from made-up opinions (benchmarks/polarity_model.py); the words are those of the lexicon.
It knows no domain: what a text says without a word of the lexicon, it misses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bizllm.evaluate import calibration
from bizllm.methods.polarity import cues
from bizllm.methods.polarity.cues import Clause

Floats = npt.NDArray[np.float64]

FILE = Path(__file__).with_name("model.json")
LABELS = ("negative", "neutral", "positive")
SIGNS = np.array([-1.0, 0.0, 1.0])


def probabilities(texts: Sequence[str], found: Sequence[Sequence[Clause]] | None = None) -> Floats:
    """(texts, 3) of LABELS. found: the clauses of each text that count, where they are known."""
    if not texts:
        return np.zeros((0, len(LABELS)))
    given = [None] * len(texts) if found is None else found
    weights, offsets = _model()
    logits = np.stack([cues.features(t, c) for t, c in zip(texts, given, strict=True)]) @ weights + offsets
    return calibration.softmax(logits)


@cache
def _model() -> tuple[Floats, Floats]:
    """((features, 3) weights, (3,) offsets)."""
    said = json.loads(FILE.read_text("utf-8"))
    assert tuple(said["labels"]) == LABELS and tuple(said["weights"]) == cues.FEATURES, (
        "model.json is of other features"
    )
    return np.array([*said["weights"].values()]), np.array(said["offsets"])
