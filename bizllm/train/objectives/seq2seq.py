"""An answer for a text, by an encoder and a decoder: translation, titles, abstractive summaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from bizllm.train.objectives.base import IGNORED, STRING, Array, Batch, Faults, Forward, Objective, is_kind, mean_loss
from bizllm.train.objectives.classification import text_faults
from bizllm.train.objectives.token_classification import counted

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe


class Seq2Seq(Objective):
    """Only the answer's tokens count. Texts and answers longer than the window are cut and counted."""

    name = "seq2seq"
    summary = "An answer for a text, by an encoder and a decoder."
    metric = "loss"
    tokens_at_once: ClassVar[int] = 2_048  # each has a logit for every word

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        faults = text_faults(schema)
        if not is_kind(schema.field("label").type, STRING):
            faults.append(("label", str(schema.field("label").type), "expected a column of text", "cast in `select`"))
        return faults

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import encode_texts, ids_of

        made = encode_texts(self.tokenizer, rows.select(["text"]), self.info.max_tokens)
        limit = self.info.max_tokens
        answers = self.tokenizer(text_target=rows["label"].to_pylist(), verbose=False)["input_ids"]
        cut = np.logical_or(made["cut"].to_numpy(), [len(answer) > limit for answer in answers])
        target = ids_of([answer[:limit] for answer in answers])
        return made.set_column(made.column_names.index("cut"), "cut", pa.array(cut)).append_column("target", target)

    def units(self, examples: pa.Table) -> Array:
        return counted(examples["target"])

    def collate(self, examples: pa.Table) -> Batch:
        from bizllm.train.objectives.tensors import padded, text_inputs

        batch = text_inputs(examples, self.tokenizer.pad_token_id or 0)
        batch["labels"] = padded(examples["target"], IGNORED)
        return batch

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        return self._token_loss(network(**batch), batch["labels"]).sum()

    def _token_loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from bizllm.train.objectives.tensors import token_loss

        return token_loss(logits, target, self.recipe.optim.label_smoothing)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        logits, target = network(**batch), batch["labels"]
        counts = target != IGNORED
        return {
            "loss": self._token_loss(logits, target).sum(1).cpu().numpy(),
            "units": counts.sum(1).double().cpu().numpy(),
            "right": ((logits.argmax(-1) == target) & counts).sum(1).cpu().numpy(),
        }

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        accuracy = float(outputs["right"].sum() / max(1.0, float(outputs["units"].sum())))
        return {"loss": mean_loss(outputs), "token_accuracy": accuracy}


OBJECTIVE = Seq2Seq
