"""Labels from a few labelled texts: linear models on an encoder's vectors and on n-grams, calibrated out of fold.

Each of the two views of a text gives logits; they are added with the weights that suit texts which neither has seen, a
product of experts (Hinton 2002). So an encoder that does not read the language of the texts has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.evaluate import calibration
from bizllm.methods import folds, linear
from bizllm.methods.text_features import TextFeatures

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Truth = npt.NDArray[Any]  # (texts,) classes, or (texts, labels) bools where a text may have several

FOLDS = 5
SAY = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)  # of the n-grams, where there are vectors; the vectors have the rest
# Where every label has a single text, nothing can be held out: cost of each view, say of the n-grams, and temperature
# are what suited 77 such texts of Banking77.
_ONE_COST, _ONE_SAY, _ONE_TEMPERATURE = {"dense": 3.0, "sparse": 1.0}, 0.1, 0.18
_SEED = 0
# Vectors ask for a logistic regression: on Banking77's 77 intents it is a percent better than an SVM with ten texts an
# intent, and as good and twice as fast with 130.
_FITS: dict[str, tuple[linear.Fit, tuple[float, ...]]] = {
    "dense": (linear.logistic, linear.PENALTIES),
    "sparse": (linear.svm, linear.COSTS),
}


@dataclass(frozen=True)
class FewShot:
    """What was learned of labelled texts.

    names: (labels,). several: a text may have several of them, or none. dense: (dim + 1, labels) of unit vectors, and
    sparse: (terms + 1, labels) of n-grams; the last row are offsets. None where that view has no say.
    temperature: of the sum. threshold: the probability from which a label is given; None where nothing tells it.
    """

    names: tuple[str, ...]
    several: bool
    dense: Floats | None
    terms: TextFeatures | None
    sparse: Floats | None
    temperature: float
    threshold: float | None

    def probabilities(self, texts: Sequence[str], vectors: Floats | None) -> Floats:
        """(texts, labels). vectors: (texts, dim) of length 1, where it was learned of such."""
        logits = np.zeros((len(texts), len(self.names)))
        if self.dense is not None:
            assert vectors is not None, "learned of vectors"
            logits += vectors @ self.dense[:-1] + self.dense[-1]
        if self.sparse is not None:
            assert self.terms is not None
            logits += self.terms.matrix(texts) @ self.sparse[:-1] + self.sparse[-1]
        squash = calibration.sigmoid if self.several else calibration.softmax
        return squash(logits, self.temperature).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """JSON, arrays and a table, of which `of` makes the same again."""
        said: dict[str, Any] = {"names": list(self.names), "several": self.several}
        said |= {"temperature": self.temperature, "threshold": self.threshold}
        said |= {"dense": self.dense} if self.dense is not None else {}
        return said | ({"sparse": self.sparse, "terms": self.terms.state()} if self.terms is not None else {})

    @classmethod
    def of(cls, state: dict[str, Any]) -> FewShot:
        """What `state` told."""
        terms = TextFeatures.of(state["terms"]) if "terms" in state else None
        return cls(
            tuple(state["names"]),
            state["several"],
            state.get("dense"),
            terms,
            state.get("sparse"),
            state["temperature"],
            state["threshold"],
        )


def learn(texts: Sequence[str], truth: Truth, names: Sequence[str], vectors: Floats | None) -> FewShot:
    """Learn from labelled texts: one for each label at least; more are worth more.

    truth: (texts,) classes, or (texts, labels) bools. vectors: (texts, dim) of length 1. Cost, say of the views,
    temperature and threshold are those that suit each text best when it and its equals were not learned from; of a
    label with a single text that can't be told, and its text has no part in it.
    """
    classes = len(names)
    terms = TextFeatures(texts, classes)
    views = {"sparse": terms.matrix(texts)} | ({"dense": vectors} if vectors is not None else {})
    held_out = folds.of_texts(texts, [], truth, FOLDS, _SEED)
    known = _provable(truth, held_out)
    costs, scales, shares = dict(_ONE_COST), dict.fromkeys(views, 1.0), _shares([*views], _ONE_SAY)
    temperature, threshold = _ONE_TEMPERATURE, None
    if known.any():
        unseen = {}
        for view, matrix in views.items():
            fit, tried = _FITS[view]
            costs[view], found = linear.out_of_fold(matrix, truth, classes, held_out, _SEED, fit, tried)
            scales[view] = calibration.fit_temperature(found[known], truth[known])
            unseen[view] = found[known] / scales[view]
        shares = _best_shares(unseen, truth[known])
        logits = np.sum([shares[view] * unseen[view] for view in views], axis=0)
        temperature = calibration.fit_temperature(logits, truth[known])
        threshold = _threshold(logits / temperature, truth[known])
    fitted = {
        view: _stacked(*_FITS[view][0](matrix, truth, classes, costs[view], _SEED), shares[view] / scales[view])
        for view, matrix in views.items()
        if shares[view]
    }
    keeps = "sparse" in fitted
    return FewShot(
        tuple(names),
        truth.ndim == 2,
        fitted.get("dense"),
        terms if keeps else None,
        fitted.get("sparse"),
        temperature,
        threshold,
    )


def of_descriptions(names: Sequence[str], vectors: Floats, sharpness: float = 20.0) -> FewShot:
    """Labels that have a description and no text: the nearest one's. The probability is a softmax of `sharpness` times
    the cosine, which nothing calibrated.

    vectors: (labels, dim) of length 1, of the descriptions.
    """
    dense = np.vstack([sharpness * vectors.T, np.zeros((1, len(vectors)))]).astype(np.float32)
    return FewShot(tuple(names), False, dense, None, None, 1.0, None)


def _provable(truth: Truth, held_out: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(texts,) whether a text's labels are those of a text in another fold, too."""
    known = truth if truth.ndim == 2 else truth[:, None] == np.arange(truth.max() + 1)
    elsewhere = np.zeros_like(known)
    for fold in np.unique(held_out):
        elsewhere[held_out == fold] = known[held_out != fold].any(axis=0)
    return np.asarray((~known | elsewhere).all(axis=1))


def _best_shares(unseen: dict[str, Array], truth: Truth) -> dict[str, float]:
    """The say of each view that suits texts best; unseen: what each says of them, at its own temperature."""
    losses = []
    for say in SAY:
        shares = _shares([*unseen], say)
        losses.append(linear.log_loss(np.sum([shares[view] * unseen[view] for view in unseen], axis=0), truth))
    return _shares([*unseen], SAY[int(np.argmin(losses))])


def _shares(views: list[str], say: float) -> dict[str, float]:
    """The n-grams have so much to say; all of it where they are alone."""
    return {"sparse": say, "dense": 1 - say} if len(views) > 1 else dict.fromkeys(views, 1.0)


def _threshold(logits: Array, truth: Truth) -> float:
    if truth.ndim == 2:
        return calibration.best_threshold_multi_label(calibration.sigmoid(logits), truth)
    return calibration.out_of_scope_threshold(calibration.softmax(logits), truth)


def _stacked(weights: Array, offsets: Array, factor: float) -> Floats:
    stacked: Floats = (factor * np.vstack([weights, offsets[None]])).astype(np.float32)
    return stacked
