"""Numbers for a row: the squared error of one number or several, of a text or of a history of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.evaluate import regression
from bizllm.methods.number_text import encode_history
from bizllm.train.objectives.base import (
    NUMBER,
    Array,
    Batch,
    Faults,
    Forward,
    Objective,
    is_kind,
    is_list_of,
    mean_loss,
)
from bizllm.train.objectives.classification import model_inputs, text_faults

if TYPE_CHECKING:
    import torch

    from bizllm.models.network import Network
    from bizllm.train.recipe import Recipe


@dataclass
class Regression(Objective):
    """Labels are numbers, or lists of the same length. With `inputs: numbers` the text is a list of past values, and
    labels are in units of their scale (`methods.number_text`).

    A pooled head begins at train's centre and learns in units of train's spread; its answers are in the labels' units.
    The training loss is that of standardised labels.
    """

    name = "regression"
    summary = "One number or several a row."
    metric = "mae"

    _spread: float = field(default=1.0, repr=False)

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        faults = text_faults(schema, numbers=recipe.inputs == "numbers")
        kind = schema.field("label").type
        if not (is_kind(kind, NUMBER) or is_list_of(kind, NUMBER)):
            faults.append(("label", str(kind), "expected a number or a list of numbers", "cast in `select`"))
        return faults

    @classmethod
    def horizon(cls, rows: pa.Table) -> int:
        return int(values(rows).shape[1])

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import encode_texts

        numbers = self.info.inputs == "numbers"
        made = encode_texts(self.tokenizer, rows, self.info.max_tokens, numbers)
        target = (values(rows) / self.scale(rows)[:, None]).astype(np.float32)
        return made.append_column("target", pa.array(target.tolist(), pa.list_(pa.float32())))

    def scale(self, rows: pa.Table) -> npt.NDArray[np.float64]:
        """(rows,) what a row's label is divided by before training."""
        if self.info.inputs != "numbers":
            return np.ones(len(rows))
        return np.array([encode_history(np.asarray(history, np.float64))[1] for history in rows["text"].to_pylist()])

    def prepare(self, units: npt.NDArray[np.float64], examples: pa.Table) -> None:
        self._spread = spread(targets(examples))

    def start(self, network: Network, examples: pa.Table, carried: bool) -> None:
        import torch

        from bizllm.models.network import PooledModel

        if isinstance(network, PooledModel):
            target = targets(examples)
            centre = torch.from_numpy(self.centre(target)).float()
            network.rescale(torch.full_like(centre, spread(target)), centre, carried)

    def centre(self, target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(outputs,) the best answer for (rows, horizon) labels without a look at the text."""
        made: npt.NDArray[np.float64] = target.mean(0)
        return made

    def collate(self, examples: pa.Table) -> Batch:
        import torch

        from bizllm.train.objectives.tensors import padded, text_inputs

        batch = text_inputs(examples, self.tokenizer.pad_token_id or 0)
        batch["target"] = padded(examples["target"], 0, torch.float32)
        return batch

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        outputs = network(**model_inputs(batch)).float()
        return self.per_row(outputs / self._spread, batch["target"] / self._spread).sum()

    def per_row(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(rows,) mean squared error."""
        return ((outputs - target) ** 2).mean(-1)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        outputs = network(**model_inputs(batch)).float()
        loss = self.per_row(outputs, batch["target"])
        return {"numbers": outputs.cpu().numpy(), "loss": loss.cpu().numpy(), "units": np.ones(len(outputs))}

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        histories = rows["text"].to_pylist() if self.info.inputs == "numbers" else None
        predicted = outputs["numbers"] * self.scale(rows)[:, None]
        return {**regression.scores(predicted, values(rows), histories), "loss": mean_loss(outputs)}


def targets(examples: pa.Table) -> npt.NDArray[np.float64]:
    """(rows, horizon) the labels of examples."""
    flat: npt.NDArray[np.float64] = pc.list_flatten(examples["target"]).to_numpy().astype(np.float64)
    return flat.reshape(len(examples), -1)


def spread(target: npt.NDArray[np.float64]) -> float:
    """The standard deviation around each number's mean, of all together; 1 where nothing varies."""
    return float(np.sqrt(np.mean((target - target.mean(0)) ** 2))) or 1.0


def values(rows: pa.Table) -> npt.NDArray[np.float64]:
    """(rows, horizon) the labels."""
    column = rows["label"]
    if not is_list_of(column.type, NUMBER):
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)[:, None]
    return np.array(column.to_pylist(), np.float64).reshape(len(rows), -1)


OBJECTIVE = Regression
