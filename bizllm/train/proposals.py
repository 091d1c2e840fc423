"""Rows for people to look at: labels of train that are likely wrong, and unlabelled rows most worth a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from bizllm.evaluate import calibration
from bizllm.models.saved import ModelInfo
from bizllm.train import data, judge, leaks, review, select
from bizllm.train.objectives.base import Array, Batch, Objective
from bizllm.train.objectives.classification import Classification, model_inputs
from bizllm.train.work import Work


def suspicious(work: Work, rows: pa.Table) -> pa.Table:
    """Rows of train whose label is likely wrong, the likeliest first: row, given, suggested, quality.

    row: the position in train's table as it was read, from 0. Costs a few fits of the control.
    """
    texts = leaks.texts_of(rows)
    assert texts is not None, "texts have classes"
    assert isinstance(work.objective, Classification), "`review` is for classes"
    truth = work.objective.truth(rows)
    found = review.out_of_fold(texts, truth, len(work.info.labels), work.recipe.seed)
    return review.suspicious(rows[data.ROW].to_numpy(), truth, found, work.info.labels)


def propose(work: Work, network: Any, info: ModelInfo, rows: pa.Table, count: int) -> pa.Table:
    """The unlabelled rows most worth labelling, in the order drawn: row, score (0 sure … 1 no idea).

    network: the new model; its own vectors tell which rows are alike. info: its own, calibrated.
    """
    from bizllm.train.validate import predict

    many = info.objective == "multi_label"
    none: list[Any] = [[] if many else info.labels[0]] * len(rows)
    labelled = rows.append_column("label", pa.array(none, pa.list_(pa.string()) if many else pa.string()))
    objective = type(work.objective)(work.recipe, work.tokenizer, info)
    logits = judge.ask(objective, network, labelled).outputs["logits"]
    likely = (calibration.sigmoid if many else calibration.softmax)(logits, info.temperature)
    vectors = predict(cast(Any, _Reader(objective)), network, objective.encode(labelled), _device_of(network))
    assert vectors is not None, "one process has all of them"
    picked, unsure = select.propose(likely, vectors["vectors"], count, work.recipe.seed)
    return pa.table({"row": rows[data.ROW].to_numpy()[picked], "score": unsure})


@dataclass(frozen=True)
class _Reader:
    """An objective whose predictions are the vectors that the head sees; of transformers' own classifiers the mean of
    the last layer."""

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


def _device_of(network: Any) -> Any:
    return next(network.parameters()).device
