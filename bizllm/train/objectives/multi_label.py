"""Any number of labels a row: binary cross-entropy for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.evaluate import calibration, classification
from bizllm.train.objectives.base import STRING, Array, Batch, Faults, Forward, is_list_of, mean_loss
from bizllm.train.objectives.classification import Classification, spread_of, teaching, text_faults

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe


class MultiLabel(Classification):
    """Labels are lists of text; an empty list is a row without any. A row's loss is the mean over the labels."""

    name = "multi_label"
    summary = "Any number of several labels a row."
    metric = "micro_f1"

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        faults = text_faults(schema)
        if not is_list_of(schema.field("label").type, STRING):
            faults.append(
                ("label", str(schema.field("label").type), "expected a list of text", "string_split(…) in `select`")
            )
        return faults

    @classmethod
    def labels(cls, rows: pa.Table) -> tuple[str, ...]:
        return tuple(sorted(set(pc.unique(pc.list_flatten(rows["label"])).to_pylist()) - {None}))

    @classmethod
    def strata(cls, rows: pa.Table) -> Array:
        """By a row's first label."""
        first = [labels[0] if labels else "" for labels in rows["label"].to_pylist()]
        codes: Array = np.unique(np.array(first), return_inverse=True)[1]
        return codes

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import encode_texts

        made = encode_texts(self.tokenizer, rows, self.info.max_tokens)
        return made.append_column(
            "target", pa.array(self.truth(rows).astype(np.float32).tolist(), pa.list_(pa.float32()))
        )

    def prepare(self, units: npt.NDArray[np.float64], examples: pa.Table) -> None:
        """Labels bear no weights: `plan` refuses class_weights here."""
        self._spread = spread_of(examples)

    def squashed(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def collate(self, examples: pa.Table) -> dict[str, torch.Tensor]:
        import torch

        from bizllm.train.objectives.tensors import padded, text_inputs

        batch = text_inputs(examples, self.tokenizer.pad_token_id or 0)
        batch["target"] = padded(examples["target"], 0, torch.float32)
        batch["units"] = torch.ones(len(examples))
        return batch | teaching(examples)

    def soft_targets(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        smooth = self.recipe.optim.label_smoothing
        target = batch["target"] * (1 - smooth) + smooth / 2
        return (1 - batch["trust"]) * target + batch["trust"] * batch["teacher"] if "teacher" in batch else target

    def per_row(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)

    def divergence(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        p, q = one.sigmoid(), other.sigmoid()
        return 0.5 * ((p - q) * (one - other)).mean(-1)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        from bizllm.train.objectives.classification import model_inputs

        logits = network(**model_inputs(batch)).float()
        loss = self.per_row(logits, batch["target"])
        return {"logits": logits.cpu().numpy(), "loss": loss.cpu().numpy(), "units": np.ones(len(logits))}

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        probabilities = calibration.sigmoid(outputs["logits"], self.info.temperature)
        threshold = 0.5 if self.info.threshold is None else self.info.threshold
        found = classification.multi_label_scores(probabilities, self.truth(rows), threshold)
        return {**found, "loss": mean_loss(outputs)}

    def truth(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """(rows, labels) whether the row has the label."""
        place = {label: i for i, label in enumerate(self.info.labels)}
        truth = np.zeros((len(rows), len(place)), bool)
        for row, labels in enumerate(rows["label"].to_pylist()):
            truth[row, [place[label] for label in labels or []]] = True
        return truth


OBJECTIVE = MultiLabel
