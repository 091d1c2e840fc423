"""Scores of a part, computed by all workers together and told on rank 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.distributed as dist

from bizllm.train.objectives.base import Array, Forward, Objective, mean_loss
from bizllm.train.work import Work, lengths, take

ROWS = 128  # of a batch at most


def validate(
    work: Work, objective: Objective, engine: Any, part: str, device: torch.device, rank: int, workers: int
) -> dict[str, float]:
    """The part's metrics on rank 0, of which there is only the loss where that is no number; empty elsewhere. All
    workers must call it."""
    outputs = predict(objective, engine, work.examples(part), device, rank, workers)
    if outputs is None:
        return {}
    loss = mean_loss(outputs)
    return objective.scores(outputs, work.rows(part)) if math.isfinite(loss) else {"loss": loss}


def predict(
    objective: Objective, network: Any, examples: pa.Table, device: torch.device, rank: int = 0, workers: int = 1
) -> dict[str, Array] | None:
    """`Objective.predict` of all examples, in their order, on rank 0; None elsewhere.

    Every worker makes the same number of passes, as stage 3 wants: one without rows repeats the last.
    """
    batches = _batches(lengths(examples), objective.tokens_at_once)
    forward: Forward = network
    network.eval()
    found: list[tuple[npt.NDArray[np.int64], dict[str, Array]]] = []
    with torch.no_grad():
        for start in range(0, len(batches), workers):
            mine = start + rank
            rows = batches[min(mine, len(batches) - 1)]
            batch = objective.collate(take(examples, rows))
            made = objective.predict(forward, {name: value.to(device) for name, value in batch.items()})
            if mine < len(batches):
                found.append((rows, made))
    network.train()
    if workers > 1:
        gathered: list[Any] | None = [None] * workers if rank == 0 else None
        dist.gather_object(found, gathered, dst=0)
        if gathered is None:
            return None
        found = [one for worker in gathered for one in worker]
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return {name: np.concatenate([made[name] for _, made in found])[order] for name in found[0][1]}


def _batches(length: npt.NDArray[np.int64], tokens: int) -> list[npt.NDArray[np.int64]]:
    """Positions of examples in batches of about equal lengths, the longest first."""
    order = np.argsort(-length, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = min(ROWS, max(1, tokens // max(1, int(length[order[start]]))))
        batches.append(order[start : start + rows])
        start += rows
    return batches
