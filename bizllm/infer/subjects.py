"""What a batch asks about, and answers that lose no subject of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm import logs
from bizllm.errors import RunError, safe_text
from bizllm.tasks.base import Outcome, Reject

log = logs.get(__name__)
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Subjects:
    """What a batch asks about: the key columns and the input hash (two words) of each row or group."""

    keys: pa.Table
    hi: npt.NDArray[np.uint64]
    lo: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.hi)


def answered(answer: Callable[[Batch], Outcome], batch: Batch, size: int, cut: Callable[[int, int], Batch]) -> Outcome:
    """The outcome of a batch in which one bad subject never takes the others with it.

    Where `answer` raises, the batch is halved (`cut(start, stop)`) and tried again, down to the subject that cannot be
    answered: it becomes a reject `failed`. Errors of the run itself (storage) go through.
    """
    if not size:
        return Outcome(np.zeros(0, np.int64), pa.table({}))
    try:
        outcome = answer(batch)
    except RunError:
        raise
    except Exception as fault:  # whatever a row may provoke in a library
        log.warning("batch_split", size=size, error=safe_text(fault))
        if size <= 1:
            return Outcome(np.zeros(0, np.int64), pa.table({}), [Reject(0, "failed", safe_text(fault))][:size])
        half = size // 2
        left = answered(answer, cut(0, half), half, lambda a, b: cut(a, b))
        right = answered(answer, cut(half, size), size - half, lambda a, b: cut(half + a, half + b))
        return _joined(left, right, half)
    _account(outcome, size)
    return outcome


def _joined(left: Outcome, right: Outcome, offset: int) -> Outcome:
    tables = [o.columns for o in (left, right) if o.columns.num_columns]
    exhibits = [o.exhibit for o in (left, right) if o.exhibit is not None]
    return Outcome(
        np.concatenate([left.subject, right.subject + offset]),
        pa.concat_tables(tables) if tables else pa.table({}),
        [*left.rejects, *(Reject(r.subject + offset, r.code, r.message) for r in right.rejects)],
        left.tokens + right.tokens,
        pa.concat_tables(exhibits) if exhibits else None,
        np.concatenate([left.skipped, right.skipped + offset]),
    )


def _account(outcome: Outcome, size: int) -> None:
    """Every subject is answered, rejected or left out on purpose; exactly one of the three."""
    count = np.zeros(size, np.int64)
    for group in (
        np.unique(outcome.subject),
        np.array([r.subject for r in outcome.rejects], np.int64),
        outcome.skipped,
    ):
        np.add.at(count, group, 1)
    assert (count == 1).all(), "a task answers or rejects every subject once"
    assert len(outcome.subject) == outcome.columns.num_rows, "an answer has its columns"
