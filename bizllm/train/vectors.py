"""The vectors that a classifier's head sees, of all rows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from bizllm.train.objectives.base import Array, Batch, Objective
from bizllm.train.objectives.classification import model_inputs

if TYPE_CHECKING:
    import pyarrow as pa


def vectors(objective: Objective, network: Any, examples: pa.Table) -> Array:
    """(examples, dim) float32, without dropout; of transformers' own classifiers the mean of the last layer. It is
    computed where the network is, in bf16 where that is multiplied."""
    import torch

    from bizllm.models.batches import native_bfloat16
    from bizllm.train.validate import predict

    device = next(network.parameters()).device
    fast = native_bfloat16(device.type)
    with torch.autocast(device.type, torch.bfloat16) if fast else nullcontext():
        found = predict(cast(Objective, _Reader(objective)), network, examples, device)
    assert found is not None, "one process has all of them"
    return found["vectors"]


@dataclass(frozen=True)
class _Reader:
    """An objective whose predictions are the vectors."""

    objective: Objective

    @property
    def tokens_at_once(self) -> int:
        return self.objective.tokens_at_once

    def collate(self, examples: pa.Table) -> Batch:
        return self.objective.collate(examples)

    def predict(self, network: Any, batch: Batch) -> dict[str, Array]:
        from bizllm.models.network import PooledModel, pool

        inputs = model_inputs(batch)
        if isinstance(network, PooledModel):
            return {"vectors": network.pooled(**inputs).float().cpu().numpy()}
        hidden = network.model.base_model(**inputs).last_hidden_state.float()
        return {"vectors": pool(hidden, inputs["attention_mask"], "mean").cpu().numpy()}
