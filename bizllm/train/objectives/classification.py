"""One class a row: cross-entropy with label smoothing, class weights, R-Drop and mixup of pooled vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.evaluate import calibration, classification
from bizllm.train.objectives.base import (
    NUMBER,
    STRING,
    Array,
    Batch,
    Faults,
    Forward,
    Objective,
    is_kind,
    is_list_of,
    mean_loss,
)

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe


@dataclass
class Classification(Objective):
    """Labels are text or whole numbers; the classes are those of train, sorted."""

    name = "classification"
    summary = "One of several classes a row."
    metric = "macro_f1"
    learns_labels: ClassVar[bool] = True

    _weights: npt.NDArray[np.float64] | None = field(default=None, repr=False)  # (classes,)
    _spread: float = field(default=1.0, repr=False)  # of a teacher's vectors: their variance, summed over dimensions

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        faults = text_faults(schema, numbers=recipe.inputs == "numbers")
        kind = schema.field("label").type
        if not (is_kind(kind, STRING) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            faults.append(("label", str(kind), "expected a column of text or whole numbers", "cast in `select`"))
        return faults

    @classmethod
    def labels(cls, rows: pa.Table) -> tuple[str, ...]:
        return tuple(sorted(set(names(rows["label"]))))

    @classmethod
    def strata(cls, rows: pa.Table) -> Array:
        codes: Array = np.unique(np.array(names(rows["label"])), return_inverse=True)[1]
        return codes

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import encode_texts

        made = encode_texts(self.tokenizer, rows, self.info.max_tokens, self.info.inputs == "numbers")
        place = {label: i for i, label in enumerate(self.info.labels)}
        target = [place[label] for label in names(rows["label"])]
        return made.append_column("target", pa.array(target, pa.int32()))

    def prepare(self, units: npt.NDArray[np.float64], examples: pa.Table) -> None:
        self._spread = spread_of(examples)
        asked = self.recipe.optim.class_weights
        if asked == "none":
            return
        count = np.bincount(examples["target"].to_numpy(), minlength=len(self.info.labels))
        if asked == "balanced":
            self._weights = count.sum() / (len(count) * np.maximum(count, 1))
        else:
            self._weights = np.array([asked.get(label, 1.0) for label in self.info.labels])

    def units(self, examples: pa.Table) -> npt.NDArray[np.float64]:
        if self._weights is None:
            return np.ones(len(examples))
        weights: npt.NDArray[np.float64] = self._weights[examples["target"].to_numpy()]
        return weights

    def collate(self, examples: pa.Table) -> Batch:
        import torch

        from bizllm.train.objectives.tensors import text_inputs

        batch = text_inputs(examples, self.tokenizer.pad_token_id or 0)
        batch["target"] = torch.from_numpy(examples["target"].to_numpy().astype(np.int64))
        batch["units"] = torch.from_numpy(self.units(examples)).float()
        return batch | teaching(examples)

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        import torch

        if "teacher_logits" in batch:
            return self._distilled(network, batch)
        optim, augment = self.recipe.optim, self.recipe.augment
        inputs = model_inputs(batch)
        target = self.soft_targets(batch)
        units = batch["units"]
        if augment is not None and augment.mixup and len(units) > 1:
            # Zhang et al. 2018, on pooled vectors (Guo, Mao & Zhang 2019): the last layer sees straight lines.
            share = float(np.random.default_rng(int(batch["input_ids"].sum())).beta(augment.mixup, augment.mixup))
            order = torch.roll(torch.arange(len(units)), 1)
            logits = network(**inputs, mix_order=order, mix_share=torch.tensor(share))
            target = share * target + (1 - share) * target[order]
        elif optim.r_drop:
            # Liang et al. 2021: both passes in one batch, each with its own dropout.
            twice = network(**{name: torch.cat([value, value]) for name, value in inputs.items()})
            logits, other = twice.chunk(2)
            apart = self.divergence(logits, other)
            both = 0.5 * (self.per_row(logits, target) + self.per_row(other, target))
            return ((both + optim.r_drop * apart) * units).sum()
        else:
            logits = network(**inputs)
        return (self.per_row(logits, target) * units).sum()

    def _distilled(self, network: Forward, batch: Batch) -> torch.Tensor:
        """The summed loss against a teacher's logits and, where it has any, vectors (in units of their variance)."""
        asked = self.recipe.distill
        assert asked is not None, "there is a teacher"
        heat, inputs = asked.temperature, model_inputs(batch)
        if "teacher_vector" in batch:
            logits, pooled = network(**inputs, with_pooled=True)
        else:
            logits = network(**inputs)
        # Gradients of softened logits are smaller by the square of the temperature (Hinton et al. 2015).
        said = self.squashed(batch["teacher_logits"] / heat)
        each = asked.share * heat**2 * self.per_row(logits / heat, said)
        if asked.share < 1.0:
            each = each + (1 - asked.share) * self.per_row(logits, self.soft_targets(batch))
        if "teacher_vector" in batch:
            apart = ((pooled - batch["teacher_vector"]) ** 2).sum(-1) / self._spread
            each = each + (1.0 if asked.vectors is None else asked.vectors) * apart
        return (each * batch["units"]).sum()

    def squashed(self, logits: torch.Tensor) -> torch.Tensor:
        """(rows, classes) probabilities."""
        return logits.softmax(-1)

    def soft_targets(self, batch: Batch) -> torch.Tensor:
        """(rows, classes) what each row should answer, smoothing and the earlier model's answers mixed in."""
        from torch.nn import functional

        classes = len(self.info.labels)
        smooth = self.recipe.optim.label_smoothing
        target = functional.one_hot(batch["target"], classes).float() * (1 - smooth) + smooth / classes
        return (1 - batch["trust"]) * target + batch["trust"] * batch["teacher"] if "teacher" in batch else target

    def per_row(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(rows,) cross-entropy against soft targets (rows, classes)."""
        return -(target * logits.log_softmax(-1)).sum(-1)

    def divergence(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(rows,) the mean of both Kullback-Leibler divergences."""
        p, q = one.log_softmax(-1), other.log_softmax(-1)
        return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        from torch.nn import functional

        logits = network(**model_inputs(batch)).float()
        loss = functional.cross_entropy(logits, batch["target"], reduction="none")
        return {"logits": logits.cpu().numpy(), "loss": loss.cpu().numpy(), "units": np.ones(len(logits))}

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        probabilities = calibration.softmax(outputs["logits"], self.info.temperature)
        return {**classification.scores(probabilities, self.truth(rows)), "loss": mean_loss(outputs)}

    def truth(self, rows: pa.Table) -> npt.NDArray[Any]:
        """(rows,) the class of each row, as a whole number."""
        place = {label: i for i, label in enumerate(self.info.labels)}
        return np.array([place[label] for label in names(rows["label"])], np.int64)


def names(column: pa.ChunkedArray) -> list[str]:
    """A label column as text."""
    return list(pc.cast(column, pa.string()).to_pylist())


def teaching(examples: pa.Table) -> Batch:
    """What others say of the rows, where they were asked.

    teacher (rows, classes): probabilities; trust (rows, 1): their share of the answer. Of a distillation:
    teacher_logits (rows, classes), teacher_vector (rows, dim).
    """
    import torch

    said: Batch = {}
    for name in ("teacher", "teacher_logits", "teacher_vector"):
        if name in examples.column_names:
            flat = pc.list_flatten(examples[name]).to_numpy().astype(np.float32)
            said[name] = torch.from_numpy(flat.reshape(len(examples), -1))
    if "trust" in examples.column_names:
        said["trust"] = torch.from_numpy(examples["trust"].to_numpy().astype(np.float32))[:, None]
    return said


def spread_of(examples: pa.Table) -> float:
    """The variance of a teacher's vectors, summed over their dimensions; 1 where there are none."""
    if "teacher_vector" not in examples.column_names:
        return 1.0
    vectors = pc.list_flatten(examples["teacher_vector"]).to_numpy().reshape(len(examples), -1)
    return float(max(vectors.var(0, dtype=np.float64).sum(), 1e-12))


def model_inputs(batch: Batch) -> Batch:
    """What of a batch the network takes."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}


def text_faults(schema: pa.Schema, numbers: bool = False) -> Faults:
    """What is wrong with `text` and `pair`: expected is text; for `text` a list of numbers where `numbers` says so."""
    faults: Faults = []
    for role in ("text", "pair"):
        if role in schema.names:
            kind = schema.field(role).type
            if numbers and role == "text":
                if not is_list_of(kind, NUMBER):
                    faults.append((role, str(kind), "expected a list of numbers, as `inputs: numbers` says", ""))
            elif not is_kind(kind, STRING):
                faults.append((role, str(kind), "expected a column of text", "cast in `select`"))
    return faults


OBJECTIVE = Classification
