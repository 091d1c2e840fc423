"""The control of a fine-tuned model: what a linear model without any pre-training makes of the same rows.

It is trained beside every fine-tuning, on train alone, and scored on the same test: a model that does not beat it is
not worth its GPU. Its answers have the shape of the objective's `predict`, so that the same code scores both. It is
never saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.methods.text_features import MAX_ROW_CHARACTERS
from bizllm.models.saved import ModelInfo

Array = npt.NDArray[Any]
Outputs = dict[str, Array]

# Of one training, in characters that are read: about 17 times Banking77, one to three minutes.
MAX_CHARACTERS = 10_000_000
MAX_ROWS = 200_000


class Control(ABC):
    """A fitted control.

    name: what it is, for a report. threshold: of multi_label, the probability from which it gives a label; else None.
    """

    name: str
    threshold: float | None = None

    @abstractmethod
    def predict(self, rows: pa.Table) -> Outputs:
        """As the objective's `predict`: `logits` (calibrated: their temperature is 1), `numbers`, `tags`, or `anchors`
        and `positives`; with `loss` and `units` where rows are labelled (NaN where the control has no such loss).
        Of causal_lm and seq2seq `answers`, an object array of text."""


def fit(rows: pa.Table, info: ModelInfo, seed: int) -> Control | None:
    """The control for a model's objective, from train's rows; None where there is none.

    rows: canonical columns `text`, `pair`, `label`, as objectives take them. info: objective, labels, horizon, levels,
    inputs. masked_lm, and causal_lm on chats or plain text, have no control.
    """
    rows = _sample(rows, seed)
    if info.objective in ("classification", "multi_label", "pair"):
        from bizllm.train.controls.classes import fit_classes

        return fit_classes(rows, info, seed)
    if info.objective in ("regression", "quantile"):
        from bizllm.train.controls.numbers import fit_numbers

        return fit_numbers(rows, info, seed)
    if info.objective == "token_classification":
        from bizllm.train.controls.tags import fit_tags

        return fit_tags(rows, info, seed)
    if info.objective == "embedding":
        from bizllm.train.controls.texts import fit_vectors

        return fit_vectors(rows)
    if info.objective in ("causal_lm", "seq2seq") and "label" in rows.column_names and _is_text(rows["text"].type):
        from bizllm.train.controls.texts import fit_answers

        return fit_answers(rows, seed)
    return None


def unscored(rows: int) -> Outputs:
    """`loss` and `units` of a control that knows no loss."""
    return {"loss": np.full(rows, np.nan), "units": np.ones(rows)}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _sample(rows: pa.Table, seed: int) -> pa.Table:
    """As many rows as the control may read, drawn evenly, in their order."""
    most = MAX_ROWS
    if _is_text(rows["text"].type):
        names = [name for name in ("text", "pair") if name in rows.column_names]
        read = sum(pc.sum(pc.min_element_wise(pc.utf8_length(rows[n]), MAX_ROW_CHARACTERS)).as_py() or 0 for n in names)
        most = min(most, int(MAX_CHARACTERS / max(1, read) * len(rows)))
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False)))
