"""Processes that work on units, and how a run keeps them from stage to stage.

What a process imported (torch, transformers: five seconds) is there for the next stage, where that wants processes of
the same size: on small nights, whose stages are of one unit, that is every stage. They hold their CPUs while they wait,
so they are kept only while no other stage of the run is under way, and end where a stage wants the room for others.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from bizllm.errors import safe_text
from bizllm.infer.attempts import read, work
from bizllm.infer.doors import Bell, Floor
from bizllm.infer.pools import Capacity
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import Stage, Unit

LOST_WORKER_RETRIES = 2
KEPT_BYTES = 3 << 30  # a process that takes more ends with its stage: what a large model took goes back to the system


# -- in the processes ---------------------------------------------------------------------------------------------


def _set_threads(threads: int) -> None:
    """How many threads the numeric libraries of this process take; before they are imported, where that is possible."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    pa.set_cpu_count(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


class Worker:
    """Opens a stage once and works on many units. failed: why it is not even opened; every unit says so."""

    def __init__(self, stage: Stage, threads: int, failed: str | None = None) -> None:
        _set_threads(threads)
        self.stage, self.failed = stage, failed
        try:
            if failed is None:
                stage.open()
        except Exception as fault:  # a model that does not load: every unit says so, instead of endless restarts
            self.failed = safe_text(fault)

    def work(self, unit: Unit, tables: list[pa.Table] | Receipt) -> Receipt:
        """The receipt of a unit, failed or not."""
        if self.failed:
            return Receipt(self.stage.name, unit.id, "", error=self.failed)
        return work(self.stage, unit, tables)


@dataclass(frozen=True)
class Told:
    """A receipt, and what the process that made it is."""

    receipt: Receipt
    restarted: bool
    bytes: int


class Process:
    """A Ray actor: one stage after the other, the last one open."""

    def __init__(self) -> None:
        self._opened: bytes | None = None
        self._worker: Worker | None = None

    def came(self, bell: Bell) -> None:
        """Answers once the process is there."""
        bell.ring("work")

    def work(self, stage: list[Any], threads: int, unit: Unit, tables: list[pa.Table] | Receipt | None) -> Told:
        """stage: a reference to it, in a list, so that only a stage that is not open yet is fetched. tables: None where
        this process is to read them itself."""
        (reference,) = stage
        if self._opened != reference.binary():
            self._worker = None  # what the last stage holds is gone before the next one's model comes
            gc.collect()
            self._worker, self._opened = Worker(ray.get(reference), threads), reference.binary()
        assert self._worker is not None
        receipt = self._worker.work(unit, read(self._worker.stage, unit) if tables is None else tables)
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        return Told(receipt, bool(restarted), _resident_bytes())


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# -- on the driver ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Lent:
    """A process, and what its receipts told of it."""

    actor: Any
    sound: bool = True  # never lost, so that all restarts are left to it, and not too large to be kept

    def told(self, told: Told) -> Receipt:
        """The receipt."""
        self.sound = not told.restarted and told.bytes <= KEPT_BYTES
        return told.receipt


class Workers:
    """The processes of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0  # stages
        self._kept: list[tuple[Capacity, Lent]] = []  # only while no stage is under way
        self._over = False
        self.floor = Floor()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            kept, self._kept, self._over = self._kept, [], True
        _end([lent for _, lent in kept])

    @contextmanager
    def lent(self, capacity: Capacity | None, *, start: bool) -> Iterator[list[Lent]]:
        """Processes of that size for a stage: kept ones first, all others end; None where a stage has its own. start:
        whether further ones are started; otherwise none are lent where too few are there."""
        with self._lock:
            self._under_way += 1
            kept, self._kept = self._kept, []
        taken: list[Lent] = []
        if capacity is not None:
            same = [lent for one, lent in kept if one.size == capacity.size]
            taken = same[: capacity.workers] if start or len(same) >= capacity.workers else []
        _end([lent for _, lent in kept if all(lent is not one for one in taken)])
        if capacity is not None and start:
            taken += [_started(capacity) for _ in range(capacity.workers - len(taken))]
        whole = False
        try:
            yield taken
            whole = True
        finally:
            with self._lock:
                self._under_way -= 1
                keep = [lent for lent in taken if lent.sound] if whole and not (self._under_way or self._over) else []
                self._kept += [(capacity, lent) for lent in keep if capacity is not None]
            _end([lent for lent in taken if all(lent is not one for one in keep)])


def _started(capacity: Capacity) -> Lent:
    process: Any = ray.remote(
        **capacity.options,
        max_restarts=LOST_WORKER_RETRIES,
        max_task_retries=LOST_WORKER_RETRIES,
    )(Process)
    return Lent(process.remote())


def _end(lent: list[Lent]) -> None:
    for one in lent:
        ray.kill(one.actor)
