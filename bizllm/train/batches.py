"""Which rows make which step, on which worker: decided by seed, epoch and step alone.

Every worker knows the whole plan, so that nothing needs to be sent, the units of a whole batch are known before it is
computed, and a run that goes on after a crash, even with another number of workers, takes the very same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

WINDOW_BATCHES = 50  # rows are sorted by length within so many batches: little padding, and batches still differ


@dataclass(frozen=True)
class BatchPlan:
    """lengths: (examples,) tokens of each. batch: examples of one step, over all workers.

    grouped: batches of about equal lengths. seed: of the order; each epoch has its own.
    """

    lengths: Ints
    batch: int
    seed: int
    grouped: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch may be smaller; it counts as a step."""
        return -(-len(self.lengths) // self.batch)

    def epoch(self, number: int) -> list[Ints]:
        """The batches of an epoch: positions of examples."""
        rng = np.random.default_rng((self.seed, number))
        order = rng.permutation(len(self.lengths))
        if not self.grouped:
            return [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
        window = self.batch * WINDOW_BATCHES
        batches: list[Ints] = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def from_step(self, step: int) -> Iterator[tuple[int, Ints]]:
        """(step, positions) from that step on, without end; epochs follow each other."""
        while True:
            epoch, inside = divmod(step, self.steps_per_epoch)
            for rows in self.epoch(epoch)[inside:]:
                yield step, rows
                step += 1


def share(rows: Ints, lengths: Ints, rank: int, workers: int, parts: int) -> list[Ints]:
    """A worker's part of a batch, in `parts` micro-batches; some are empty where the batch is small.

    The rows are dealt by length, so that the micro-batches that workers compute at the same time cost about the same.
    """
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    chunks = np.array_split(order, workers * parts)
    return [chunks[part * workers + rank] for part in range(parts)]


def accumulation(batch: int, workers: int, micro_batch: int | None) -> int:
    """Micro-batches of a worker and step, so that none holds more than `micro_batch` rows."""
    most = -(-batch // workers)
    return 1 if micro_batch is None else max(1, -(-most // micro_batch))
