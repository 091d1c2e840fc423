"""What simple models that have not seen a row take it for, to be learned beside its label.

Two of them answer: the control, and a logistic regression on the base's frozen vectors. A label that is wrong, or one
of two that would do, then weighs less. A model's mistakes on rows that it was fitted on would be learned too; so each
row is answered by those that were fitted without it (Dao et al., ICLR 2021, call it cross-fitting).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.errors import Fault
from bizllm.models.encoder import Encoder
from bizllm.models.saved import ModelInfo
from bizllm.train import data, review
from bizllm.train.controls import classes
from bizllm.train.recipe import Recipe

Floats = npt.NDArray[np.float32]


def faults(recipe: Recipe, place: data.Place) -> list[Fault]:
    """Why a training can't have them; nothing is read."""
    asked, at = recipe.optim.soft_labels, place("optim", "soft_labels")
    if not asked:
        return []
    if recipe.objective not in ("classification", "multi_label") or recipe.inputs == "numbers":
        return [Fault(at, asked, "is for classification and multi_label of texts", "use 0")]
    if recipe.continual.distill:
        what = "soft_labels and distill can't be used together: each says what rows should answer"
        return [Fault(at, asked, what, "use one of them")]
    if recipe.augment is not None and recipe.augment.changes_texts:
        return [Fault(at, asked, "changed copies of a row would give its label away", "use it without them")]
    return []


def of_rows(rows: pa.Table, info: ModelInfo, base: Path, seed: int) -> Floats:
    """(rows, classes) the mean of both models' calibrated probabilities; none has seen the row or an equal text.

    rows: columns text and label. base: the folder of an encoder.
    """
    texts, truth = rows["text"].to_pylist(), classes.truth_of(rows, info)
    vectors, _ = Encoder.load(base).encode(texts)
    told = [review.out_of_fold(texts, truth, len(info.labels), seed, given) for given in (None, vectors)]
    return (sum(told) / len(told)).astype(np.float32)
