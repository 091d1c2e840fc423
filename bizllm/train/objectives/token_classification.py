"""A tag for each token of a row: names, places, amounts, in BIO tags or any other set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.evaluate import tags
from bizllm.train.objectives.base import (
    IGNORED,
    STRING,
    Array,
    Batch,
    Faults,
    Forward,
    Objective,
    is_list_of,
    mean_loss,
)
from bizllm.train.objectives.classification import model_inputs

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe


class TokenClassification(Objective):
    """`text` and `label` are lists of equal length. The first piece of a token bears its tag; the others don't count.
    Tokens past the window count as wrong: they are tagged O."""

    name = "token_classification"
    summary = "A tag for each token of a row."
    metric = "f1"
    learns_labels: ClassVar[bool] = True

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        return [
            (role, str(schema.field(role).type), "expected a list of text", "string_split(…) in `select`")
            for role in ("text", "label")
            if not is_list_of(schema.field(role).type, STRING)
        ]

    @classmethod
    def labels(cls, rows: pa.Table) -> tuple[str, ...]:
        found = set(pc.unique(pc.list_flatten(rows["label"])).to_pylist())
        return ("O", *sorted(found - {"O", None}))

    def encode(self, rows: pa.Table) -> pa.Table:
        from bizllm.train.objectives.tensors import ids_of

        place = {label: i for i, label in enumerate(self.info.labels)}
        made = self.tokenizer(
            rows["text"].to_pylist(),
            is_split_into_words=True,
            truncation=True,
            max_length=self.info.max_tokens,
            verbose=False,
        )
        targets, cut = [], []
        for row, labels in enumerate(rows["label"].to_pylist()):
            words = made.word_ids(row)
            first = [word is not None and (i == 0 or words[i - 1] != word) for i, word in enumerate(words)]
            targets.append([place[labels[w]] if f else IGNORED for w, f in zip(words, first, strict=True)])
            cut.append(max((w for w in words if w is not None), default=-1) < len(labels) - 1)
        return pa.table({"input_ids": ids_of(made["input_ids"]), "target": ids_of(targets), "cut": pa.array(cut)})

    def units(self, examples: pa.Table) -> Array:
        return counted(examples["target"])

    def collate(self, examples: pa.Table) -> Batch:
        from bizllm.train.objectives.tensors import padded, text_inputs

        batch = text_inputs(examples, self.tokenizer.pad_token_id or 0)
        batch["target"] = padded(examples["target"], IGNORED)
        return batch

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        return self._token_loss(network(**model_inputs(batch)), batch["target"]).sum()

    def _token_loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from bizllm.train.objectives.tensors import token_loss

        return token_loss(logits, target, self.recipe.optim.label_smoothing)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        logits = network(**model_inputs(batch))
        loss = self._token_loss(logits, batch["target"]).sum(1)
        target = batch["target"]
        chosen = [row[keep].cpu().tolist() for row, keep in zip(logits.argmax(-1), target != IGNORED, strict=True)]
        made = np.empty(len(chosen), object)
        made[:] = chosen
        units = (target != IGNORED).sum(1).double().cpu().numpy()
        return {"tags": made, "loss": loss.cpu().numpy(), "units": units}

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        found = tags.scores(rows["label"].to_pylist(), self.tags(outputs, rows))
        numbers = {name: value for name, value in found.items() if isinstance(value, float)}
        return {**numbers, "loss": mean_loss(outputs)}

    def tags(self, outputs: Mapping[str, Array], rows: pa.Table) -> list[list[str]]:
        """The tags of each row, as many as the row has tokens."""
        return [
            [*(self.info.labels[i] for i in found), *["O"] * (len(labels) - len(found))]
            for found, labels in zip(outputs["tags"], rows["label"].to_pylist(), strict=True)
        ]


def counted(target: pa.ChunkedArray) -> Array:
    """(rows,) how many of a row's targets count."""
    from bizllm.train.objectives.tensors import ragged

    values, lengths = ragged(target)
    ends = np.cumsum(lengths)
    total = np.concatenate([[0], np.cumsum(values != IGNORED)])
    made: Array = (total[ends] - total[ends - lengths]).astype(np.float64)
    return made


OBJECTIVE = TokenClassification
