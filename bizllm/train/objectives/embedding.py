"""Vectors that lie near for texts that belong together: contrastive learning with in-batch negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from bizllm.evaluate import retrieval
from bizllm.train.objectives.base import Array, Batch, Faults, Forward, Objective, mean_loss
from bizllm.train.objectives.classification import text_faults

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe

SCALE = 20.0  # of cosines, an inverse temperature (Henderson et al. 2017; Reimers & Gurevych 2019)


class Embedding(Objective):
    """Each `text` must find its `pair` among all pairs of the micro-batch, and the pair its text.

    The negatives are those of one worker's micro-batch, so that its size is part of the objective.
    """

    name = "embedding"
    summary = "Vectors that lie near for texts that belong together."
    metric = "mrr"
    needs: ClassVar[tuple[str, ...]] = ("text", "pair")

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        return text_faults(schema)

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import encode_texts

        one = encode_texts(self.tokenizer, rows.select(["text"]), self.info.max_tokens)
        other = encode_texts(self.tokenizer, pa.table({"text": rows["pair"]}), self.info.max_tokens)
        cut = np.logical_or(one["cut"].to_numpy(), other["cut"].to_numpy())
        return pa.table({"input_ids": one["input_ids"], "pair_ids": other["input_ids"], "cut": cut})

    def collate(self, examples: pa.Table) -> Batch:
        from bizllm.train.objectives.tensors import mask_of, padded

        both = pa.chunked_array([*examples["input_ids"].chunks, *examples["pair_ids"].chunks])
        return {"input_ids": padded(both, self.tokenizer.pad_token_id or 0), "attention_mask": mask_of(both)}

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        return self._per_row(*self._vectors(network, batch)).sum()

    def _vectors(self, network: Forward, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        from torch.nn import functional

        one, other = functional.normalize(network(**batch).float(), dim=-1).chunk(2)
        return one, other

    def _per_row(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(rows,) the mean of both directions' cross-entropies."""
        import torch
        from torch.nn import functional

        near = SCALE * one @ other.T
        own = torch.arange(len(near), device=near.device)
        both = (
            functional.cross_entropy(near, own, reduction="none"),
            functional.cross_entropy(near.T, own, reduction="none"),
        )
        return 0.5 * (both[0] + both[1])

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        one, other = self._vectors(network, batch)
        loss = self._per_row(one, other)
        return {
            "anchors": one.cpu().numpy(),
            "positives": other.cpu().numpy(),
            "loss": loss.cpu().numpy(),
            "units": np.ones(len(one)),
        }

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        return {**retrieval.scores(outputs["anchors"], outputs["positives"]), "loss": mean_loss(outputs)}


OBJECTIVE = Embedding
