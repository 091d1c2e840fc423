"""Hidden tokens of plain text (Devlin et al. 2019): a BERT learns a company's language before it is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from bizllm.evaluate import texts
from bizllm.train.objectives.base import IGNORED, Array, Batch, Faults, Forward, Objective, mean_loss
from bizllm.train.objectives.classification import model_inputs, text_faults

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe

HIDDEN = 0.15  # of the tokens; of those 80 % become the mask, 10 % another token, 10 % stay


class MaskedLm(Objective):
    """Each pass hides other tokens; validation always the same. Long texts are cut in windows."""

    name = "masked_lm"
    summary = "The hidden tokens of plain text: pre-training of a BERT."
    metric = "loss"
    needs: ClassVar[tuple[str, ...]] = ("text",)
    tokens_at_once: ClassVar[int] = 2_048  # each has a logit for every word

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        return text_faults(schema)

    @property
    def packs(self) -> bool:
        return True

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import ids_of

        made = self.tokenizer(
            rows["text"].to_pylist(),
            truncation=True,
            max_length=self.info.max_tokens,
            return_overflowing_tokens=True,
            verbose=False,
        )["input_ids"]
        return pa.table({"input_ids": ids_of(made), "cut": pa.array(np.zeros(len(made), bool))})

    def units(self, examples: pa.Table) -> Array:
        """How many tokens are hidden: a fixed share of each example, at least one."""
        import pyarrow.compute as pc

        lengths = pc.list_value_length(examples["input_ids"]).to_numpy()
        made: Array = np.maximum(1, np.rint(HIDDEN * np.maximum(lengths - 2, 1)))
        return made

    def collate(self, examples: pa.Table) -> Batch:
        """Drawn from torch's generator, which the loop seeds for every step."""
        import torch

        from bizllm.train.objectives.tensors import text_inputs

        batch = text_inputs(examples, self.tokenizer.pad_token_id or 0)
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        order = torch.rand(ids.shape).masked_fill(special | ~mask, 2.0).argsort(1).argsort(1)
        chosen = order < torch.from_numpy(self.units(examples))[:, None]
        target = ids.masked_fill(~chosen, IGNORED)
        draw = torch.rand(ids.shape)
        hidden = ids.masked_fill(chosen & (draw < 0.8), self.tokenizer.mask_token_id)
        other = torch.randint(len(self.tokenizer), ids.shape)
        batch["input_ids"] = torch.where(chosen & (draw >= 0.9), other, hidden)
        batch["target"] = target
        return batch

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        return self._token_loss(network(**model_inputs(batch)), batch["target"]).sum()

    def _token_loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from bizllm.train.objectives.tensors import token_loss

        return token_loss(logits, target, self.recipe.optim.label_smoothing)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        target = batch["target"]
        loss = self._token_loss(network(**model_inputs(batch)), target).sum(1)
        return {"loss": loss.cpu().numpy(), "units": (target != IGNORED).sum(1).double().cpu().numpy()}

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        nll = float(np.sum(outputs["loss"], dtype=np.float64))
        return {"loss": mean_loss(outputs), "perplexity": texts.perplexity(nll, int(outputs["units"].sum()))}


OBJECTIVE = MaskedLm
