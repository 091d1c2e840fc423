"""Runs the units of a stage on Ray and takes their receipts, one at a time, each durable before the next.

Two operators: **read** (CPU tasks that run ahead) and **work** (a pool of actors that load the model once; or tasks).
Many units of a model go through Ray Data, where a unit is one row from end to end, so that no block is split or merged
and a unit whose every row is rejected still has its receipt. A stage of few units goes through plain Ray actors with
the same two functions: on one machine it is the faster way (benchmarks/pipeline.py measures both). Ray Data is there
for the many units of a cluster: what is read on one node for a worker on another is held back where memory is short.
A stage without a model goes through plain tasks, however many its units: each reads and works by itself, a few for each
worker are under way, and nothing but receipts comes back.
A failure inside a unit is a failed receipt, never an exception through Ray. Retries of lost workers are bounded, and so
are those of units whose store failed while they read or wrote: a new attempt stages new files.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.util.client

from bizllm import logs
from bizllm.errors import Cancelled, RunError, StorageUnavailable, safe_text
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.infer.work import Stage, Unit
from bizllm.tables import refusals, retry, storage

_log = logs.get(__name__)
_Made = TypeVar("_Made")

ENTERING = 16  # receipts that are written at once
FEW_UNITS = 64  # up to here plain Ray; Ray Data took 1.5 times as long at 64 light units, 1.4 times at 256
READ_CPUS = 0.15  # a reader mostly waits for storage; odd on purpose: Ray Data fuses operators of equal CPUs
LOST_WORKER_RETRIES = 2
LOOK_S = 0.5  # how often a stage that waits for its units looks whether it should stop


@dataclass(frozen=True)
class Capacity:
    """What a stage may take: `workers` processes of `threads` threads, each `cpus` and `gpus` of Ray's resources."""

    workers: int
    threads: int
    cpus: float
    gpus: float

    @staticmethod
    def of(stage: Stage, units: int, wanted: int | None) -> Capacity:
        """Share the cluster's CPUs (or GPUs, for a stage that holds a model) among at most one worker a unit."""
        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
        on_gpu = stage.holds_model and gpus > 0
        workers = max(1, min(units, wanted or int(gpus if on_gpu else cpus)))
        threads = max(1, min(int(cpus / workers), _node_cpus()))
        return Capacity(workers, threads, round(threads * (1 - READ_CPUS), 2), 1.0 if on_gpu else 0.0)


def _node_cpus() -> int:
    """CPUs of the smallest node that takes work; a head that is kept free of it has none."""
    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return min((count for count in counts if count), default=1)


def run_stage(
    stage: Stage,
    units: Sequence[Unit],
    book: ReceiptBook,
    *,
    workers: int | None = None,
    stop: threading.Event | None = None,
    on_receipt: Callable[[Receipt], None] = lambda _: None,
    log: logs.Logger = _log,
) -> None:
    """Work through the units that have no receipt yet. Raises RunError when a unit failed, after all were tried.

    stop: when set, no further unit is begun and Cancelled is raised; receipts taken so far stay.
    """
    todo = [unit for unit in units if unit.id not in book]
    if not todo:
        return
    capacity = Capacity.of(stage, len(todo), workers)
    many = len(todo) > FEW_UNITS and not ray.util.client.ray.is_connected()  # Ray Data does not run through ray://
    way = _with_tasks if not stage.holds_model else _streamed if many else _with_actors
    failed: list[Receipt] = []

    def taken(receipt: Receipt) -> None:
        if receipt.error is None:
            log.info("unit_done", stage=receipt.stage, unit=receipt.unit, rows=receipt.rows_in, seconds=receipt.seconds)
        else:
            failed.append(receipt)
            log.error("unit_failed", stage=receipt.stage, unit=receipt.unit, error=receipt.error)
        on_receipt(receipt)

    try:
        with _Entering(book, taken) as entering, closing(way(stage, todo, capacity)) as receipts:
            for receipt in receipts:
                entering.take(receipt)
                if stop is not None and stop.is_set():
                    raise Cancelled("interrupted")
    except ray.exceptions.RayError as fault:
        raise RunError(f"{stage.name}: Ray gave up on a worker ({type(fault).__name__})") from fault
    if failed:
        others = f" (and {len(failed) - 1} more units)" if len(failed) > 1 else ""
        raise RunError(f"{stage.name}: unit {failed[0].unit}{others}: {failed[0].error}")


class _Entering:
    """Receipts on their way into the book, several at once: a store may take tens of milliseconds for each.

    taken: told of each receipt, in the calling thread, once it is durable, or has failed. All are when this is left,
    whatever ends it, unless the store fails.
    """

    def __init__(self, book: ReceiptBook, taken: Callable[[Receipt], None]) -> None:
        self._book, self._taken = book, taken
        self._pool = ThreadPoolExecutor(ENTERING, thread_name_prefix="receipts")
        self._under_way: dict[Future[None], Receipt] = {}

    def __enter__(self) -> _Entering:
        return self

    def take(self, receipt: Receipt | None) -> None:
        """Begin to enter a receipt; None: only look what became of others."""
        if receipt is not None and receipt.error is not None:
            self._taken(receipt)
        elif receipt is not None:
            self._under_way[self._pool.submit(self._book.enter, receipt)] = receipt
        self._settle(None if len(self._under_way) > ENTERING else 0)

    def _settle(self, timeout: float | None, when: str = FIRST_COMPLETED) -> None:
        done, _ = wait(self._under_way, timeout, when)
        ended = [(future.exception(), self._under_way.pop(future)) for future in done]
        for fault, receipt in ended:
            if fault is None:
                self._taken(receipt)
        for fault, _receipt in ended:
            if fault is not None:
                raise fault

    def __exit__(self, *_: object) -> None:
        try:
            self._settle(None, ALL_COMPLETED)
        finally:
            self._pool.shutdown()


# -- the two operators, wherever they run -------------------------------------------------------------------------


def _read(stage: Stage, unit: Unit) -> list[pa.Table] | Receipt:
    """What `stage.read` gives, or the failed receipt."""
    return _attempted(stage, unit, lambda: stage.read(unit))


def _work(stage: Stage, unit: Unit, tables: list[pa.Table] | Receipt) -> Receipt:
    """The receipt of a unit, failed or not."""
    if isinstance(tables, Receipt):
        return tables
    return _attempted(stage, unit, lambda: stage.work(unit, tables))


def _attempted(stage: Stage, unit: Unit, call: Callable[[], _Made]) -> _Made | Receipt:
    """What `call` gives, tried again where the store failed under it; at last the failed receipt."""
    began = time.monotonic()
    for attempt in range(1, retry.UNIT_ATTEMPTS + 1):
        try:
            return call()
        except Exception as raised:
            fault = refusals.named(raised) or raised
            last = attempt == retry.UNIT_ATTEMPTS or time.monotonic() - began > retry.LONGEST_S
            if last or not isinstance(fault, StorageUnavailable):
                return Receipt(stage.name, unit.id, "", error=safe_text(fault))
            if fault.stale:
                storage.forget()
            _log.warning("unit_retried", stage=stage.name, unit=unit.id, attempt=attempt, error=str(fault))
            retry.wait(attempt)
    raise AssertionError("unreachable")


def _both(stage: Stage, unit: Unit, threads: int) -> Receipt:
    """Open, read and work in one go: a stage that holds no model needs no process of its own."""
    return _Worker(stage, threads).work(unit, _read(stage, unit))


def _set_threads(threads: int) -> None:
    """How many threads the numeric libraries of this process take; before they are imported, where that is possible."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    pa.set_cpu_count(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


class _Worker:
    """A process that opens the stage once and works on many units."""

    def __init__(self, stage: Stage, threads: int) -> None:
        _set_threads(threads)
        self.stage = stage
        self.failed: str | None = None
        try:
            stage.open()
        except Exception as fault:  # a model that does not load: every unit says so, instead of endless restarts
            self.failed = safe_text(fault)

    def work(self, unit: Unit, tables: list[pa.Table] | Receipt) -> Receipt:
        if self.failed:
            return Receipt(self.stage.name, unit.id, "", error=self.failed)
        return _work(self.stage, unit, tables)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One row of Ray Data: a unit with what was read of it, to a row with its receipt."""
        receipt = self.work(pickle.loads(row["unit"]), _unpacked(row["tables"]))  # noqa: S301 - written by _packed
        return {"receipt": receipt.to_json()}


# -- plain Ray ----------------------------------------------------------------------------------------------------


def _with_tasks(stage: Stage, units: Sequence[Unit], capacity: Capacity) -> Generator[Receipt | None, None, None]:
    """Ray keeps the processes of tasks, with what they imported, for the next stage."""
    shared = ray.put(stage)
    both = ray.remote(num_cpus=capacity.cpus, max_retries=LOST_WORKER_RETRIES)(_both)
    waiting = deque(units)
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < 2 * capacity.workers:
                running.append(both.remote(shared, waiting.popleft(), capacity.threads))
            finished, running = ray.wait(running, num_returns=1, timeout=LOOK_S)
            yield from (ray.get(done) for done in finished)
            if not finished:
                yield None
    finally:
        for task in running:
            ray.cancel(task, force=True)


def _with_actors(stage: Stage, units: Sequence[Unit], capacity: Capacity) -> Generator[Receipt | None, None, None]:
    shared = ray.put(stage)
    read = ray.remote(num_cpus=READ_CPUS, max_retries=LOST_WORKER_RETRIES)(_read)
    worker: Any = ray.remote(
        num_cpus=capacity.cpus,
        num_gpus=capacity.gpus,
        max_restarts=LOST_WORKER_RETRIES,
        max_task_retries=LOST_WORKER_RETRIES,
    )(_Worker)
    pool = [worker.remote(stage, capacity.threads) for _ in range(capacity.workers)]
    waiting = deque(units)
    running: dict[Any, Any] = {}  # receipt → the worker that makes it
    try:
        # Two units a worker: one is worked on while the other is read.
        for actor in [*pool, *pool]:
            if waiting:
                unit = waiting.popleft()
                running[actor.work.remote(unit, read.remote(shared, unit))] = actor
        while running:
            finished, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_S)
            for done in finished:
                actor = running.pop(done)
                if waiting:
                    unit = waiting.popleft()
                    running[actor.work.remote(unit, read.remote(shared, unit))] = actor
                yield ray.get(done)
            if not finished:
                yield None
    finally:
        for actor in pool:
            ray.kill(actor)


# -- many units of a model: Ray Data ------------------------------------------------------------------------------


def _streamed(stage: Stage, units: Sequence[Unit], capacity: Capacity) -> Generator[Receipt | None, None, None]:
    from ray.data import ActorPoolStrategy, DataContext, from_items

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a unit is one block, however large

    def read(row: dict[str, Any]) -> dict[str, Any]:
        return {"unit": row["unit"], "tables": _packed(_read(stage, pickle.loads(row["unit"])))}  # noqa: S301

    worker: Any = _Worker  # a class whose instances are called; Ray's annotation knows functions only
    rows = from_items([{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=len(units))
    receipts = rows.map(read, num_cpus=READ_CPUS, max_retries=LOST_WORKER_RETRIES).map(
        worker,
        fn_constructor_args=(stage, capacity.threads),
        compute=ActorPoolStrategy(size=capacity.workers),
        num_cpus=capacity.cpus,
        num_gpus=capacity.gpus or None,
        max_restarts=LOST_WORKER_RETRIES,
        max_task_retries=LOST_WORKER_RETRIES,
    )
    yield from _received(receipts, units)


def _received(receipts: Any, units: Sequence[Unit]) -> Generator[Receipt | None, None, None]:
    """The receipts of a dataset, and None now and then while none comes; every unit has one."""
    left = {unit.id for unit in units}
    with closing(_looked_at(receipts.iter_rows())) as rows_so_far:
        for row in rows_so_far:
            if row is None:
                yield None
                continue
            receipt = Receipt.from_json(row["receipt"])
            left.remove(receipt.unit)
            yield receipt
    assert not left, "every unit has a receipt"


def _looked_at(rows: Iterable[dict[str, Any]]) -> Generator[dict[str, Any] | None, None, None]:
    """The rows, and None whenever none came for LOOK_S seconds: Ray Data's own iterator waits without end.

    Once closed, the iterator is given up, and Ray Data ends its workers, at the next row or when Ray ends.
    """
    arrived: SimpleQueue[dict[str, Any] | BaseException] = SimpleQueue()
    closed = threading.Event()

    def take() -> None:
        end: BaseException | None = None
        try:
            for row in rows:
                if closed.is_set():
                    return
                arrived.put(row)
        except BaseException as fault:
            end = fault
        finally:
            arrived.put(end or StopIteration())

    threading.Thread(target=take, name="receipts", daemon=True).start()
    try:
        while True:
            try:
                row = arrived.get(timeout=LOOK_S)
            except Empty:
                yield None
                continue
            if isinstance(row, StopIteration):
                return
            if isinstance(row, BaseException):
                raise row
            yield row
    finally:
        closed.set()


def _packed(tables: list[pa.Table] | Receipt) -> list[bytes]:
    """Tables as Arrow IPC streams; a failed receipt as JSON, which no IPC stream begins like."""
    if isinstance(tables, Receipt):
        return [tables.to_json().encode()]
    packed = []
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        packed.append(sink.getvalue().to_pybytes())
    return packed


def _unpacked(cells: list[bytes]) -> list[pa.Table] | Receipt:
    if len(cells) == 1 and cells[0][:1] == b"{":
        return Receipt.from_json(cells[0])
    return [pa.ipc.open_stream(cell).read_all() for cell in cells]
