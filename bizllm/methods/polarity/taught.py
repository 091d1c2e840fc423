"""The built-in model and what labelled texts of the domain teach beside it.

Both give each label a probability; they are mixed as logarithms, with the say of each that suits texts best which were
held out (Hinton 2002, a product of experts). With ten examples the built-in model decides; with thousands it is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.evaluate import calibration
from bizllm.methods import few_shot, folds
from bizllm.methods.few_shot import FewShot
from bizllm.methods.polarity import model

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

SAY = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the built-in model, tried
FOLDS = 5
_ONE_FOLD_FROM = 2_000  # texts: a fifth of so many tells enough, and each further fold is another training
_SEED = 1  # the examples' own folds have another
_LEAST = 1e-6  # probability


@dataclass(frozen=True)
class Taught:
    """few: what the examples taught. scale: (labels,) what each label means, -1 to 1. say: of the built-in model."""

    few: FewShot
    scale: tuple[float, ...]
    say: float
    temperature: float

    def probabilities(self, texts: Sequence[str], vectors: Floats | None) -> Floats:
        """(texts, labels). vectors: as of `FewShot.probabilities`."""
        views = _logs(self.few.probabilities(texts, vectors)), _logs(as_labels(texts, self.scale))
        return calibration.softmax(_mixed(*views, self.say), self.temperature).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """JSON, arrays and a table, of which `of` makes the same again."""
        return self.few.state() | {"scale": list(self.scale), "say": self.say, "mixed_temperature": self.temperature}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Taught:
        """What `state` told."""
        return cls(FewShot.of(state), tuple(state["scale"]), state["say"], state["mixed_temperature"])


def learn(
    texts: Sequence[str],
    truth: npt.NDArray[np.int64],
    names: Sequence[str],
    scale: Sequence[float],
    vectors: Floats | None,
) -> Taught:
    """Learn from labelled texts. truth: (texts,) positions in names. scale: (names,). vectors: (texts, dim) or None."""
    few = few_shot.learn(texts, truth, names, vectors)
    held_out = folds.of_texts(texts, [], truth, FOLDS, _SEED)
    asked = [held_out == fold for fold in range(1 if len(texts) >= _ONE_FOLD_FROM else FOLDS)]
    rows, logs = [], []
    for out in asked:
        known = np.flatnonzero(~out)
        if not out.any() or len(np.unique(truth[known])) < len(names):
            continue
        taught = few_shot.learn(
            [texts[int(i)] for i in known], truth[known], names, vectors[known] if vectors is not None else None
        )
        rows.append(np.flatnonzero(out))
        said = [texts[int(i)] for i in rows[-1]]
        logs.append(_logs(taught.probabilities(said, vectors[out] if vectors is not None else None)))
    if not rows:  # a label with a single text: nothing can be held out
        return Taught(few, tuple(scale), SAY[-1], 1.0)
    at = np.concatenate(rows)
    views = np.concatenate(logs), _logs(as_labels([texts[int(i)] for i in at], scale))
    say = _say(*views, truth[at])
    return Taught(few, tuple(scale), say, calibration.fit_temperature(_mixed(*views, say), truth[at]))


def as_labels(texts: Sequence[str], scale: Sequence[float]) -> Array:
    """(texts, labels) what the built-in model gives labels of that scale; labels of one sign share its probability."""
    signs = np.sign(np.asarray(scale))
    shares = (signs[None] == model.SIGNS[:, None]) / np.maximum(1, (signs[None] == signs[:, None]).sum(axis=0))
    given = model.probabilities(texts) @ shares + _LEAST
    return np.asarray(given / given.sum(axis=1, keepdims=True))


def _say(few: Array, built_in: Array, truth: npt.NDArray[np.int64]) -> float:
    """The largest say of the built-in model that is not worse than the best one by more than a standard error.

    The rule of Breiman et al. (1984): ten texts can't tell 0.2 from 0.8, and the built-in model was learned of more.
    """
    losses = []
    for say in SAY:
        logits = _mixed(few, built_in, say)
        likely = calibration.softmax(logits, calibration.fit_temperature(logits, truth))
        losses.append(-np.log(np.maximum(likely[np.arange(len(truth)), truth], _LEAST)))
    best = losses[int(np.argmin([loss.mean() for loss in losses]))]
    worse = [loss - best for loss in losses]
    error = [float(w.std()) / max(1, len(truth) - 1) ** 0.5 for w in worse]
    return max(say for say, w, e in zip(SAY, worse, error, strict=True) if w.mean() <= e)


def _logs(probabilities: npt.NDArray[Any]) -> Array:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), _LEAST))


def _mixed(few: Array, built_in: Array, say: float) -> Array:
    return (1 - say) * few + say * built_in
