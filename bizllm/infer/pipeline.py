"""Runs the units of a stage on Ray and takes their receipts, one at a time, each durable before the next.

Two operators: **read** (CPU tasks that run ahead) and **work** (a pool of actors that load the model once; or tasks).
Many units of a model go through Ray Data, where a unit is one row from end to end, so that no block is split or merged
and a unit whose every row is rejected still has its receipt. A stage of few units goes through plain Ray actors with
the same two functions: on one machine it is the faster way (benchmarks/pipeline.py measures both). Ray Data is there
for the many units of a cluster: what is read on one node for a worker on another is held back where memory is short.
A stage without a model goes through plain tasks, however many its units: each reads and works by itself, a few for each
worker are under way, and nothing but receipts comes back. Where the stage before left processes of the size that it
wants (`infer/workers.py`), it works in these.
A failure inside a unit is a failed receipt, never an exception through Ray. Retries of lost workers are bounded, and so
are those of units whose store failed while they read or wrote: a new attempt stages new files.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from queue import Empty, SimpleQueue
from typing import Any

import pyarrow as pa
import ray
import ray.util.client

from bizllm import logs
from bizllm.errors import Cancelled, RunError
from bizllm.infer import attempts
from bizllm.infer.doors import WAIT_S, Bell, Door, Part
from bizllm.infer.pools import READ_CPUS, Capacity, Pools
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.infer.room import look
from bizllm.infer.work import Stage, Unit
from bizllm.infer.workers import LOST_WORKER_RETRIES, Lent, Worker, Workers
from bizllm.prices import Held

_log = logs.get(__name__)

ENTERING = 16  # receipts that are written at once
FEW_UNITS = 64  # up to here plain Ray; Ray Data took 1.5 times as long at 64 light units, 1.4 times at 256
LOOK_S = 0.5  # how often a stage that waits for its units looks whether it should stop


def run_stage(
    stage: Stage,
    units: Sequence[Unit],
    book: ReceiptBook,
    *,
    workers: int | None = None,
    pools: Pools = Pools(),  # noqa: B008 - frozen
    wait_s: float = WAIT_S,
    processes: Workers | None = None,
    stop: threading.Event | None = None,
    on_receipt: Callable[[Receipt], None] = lambda _: None,
    log: logs.Logger = _log,
) -> Held:
    """Work through the units that have no receipt yet; what they held of the cluster.

    Raises RunError when a unit failed, after all were tried, and where the stage finds no room in the cluster.
    workers, pools: how many workers, and on which nodes. wait_s: how long the stage waits for room.
    processes: those of the run, which stay for the next stage; without, the stage has its own.
    stop: when set, no further unit is begun and Cancelled is raised; receipts taken so far stay.
    """
    todo = [unit for unit in units if unit.id not in book]
    if not todo:
        return Held()
    room = look()
    capacity = Capacity.of(stage, len(todo), workers, pools, room)
    many = len(todo) > FEW_UNITS and not ray.util.client.ray.is_connected()  # Ray Data does not run through ray://
    streamed = stage.holds_model and many
    failed: list[Receipt] = []

    def taken(receipt: Receipt) -> None:
        if receipt.error is None:
            log.info("unit_done", stage=receipt.stage, unit=receipt.unit, rows=receipt.rows_in, seconds=receipt.seconds)
        else:
            failed.append(receipt)
            log.error("unit_failed", stage=receipt.stage, unit=receipt.unit, error=receipt.error)
        on_receipt(receipt)

    try:
        with ExitStack() as around:
            of_the_run = processes or around.enter_context(Workers())
            parts: tuple[Part, ...] = ("read", "work") if stage.holds_model else ("work",)
            door = around.enter_context(Door(stage.name, capacity, of_the_run.floor, look, wait_s, *parts))
            door.check(room)
            size = None if streamed else capacity  # Ray Data starts its own
            lent = around.enter_context(of_the_run.lent(size, start=stage.holds_model))
            entering = around.enter_context(_Entering(book, taken))
            if lent:
                receipts = _with_actors(stage, todo, door, lent)
            else:
                receipts = (_streamed if streamed else _with_tasks)(stage, todo, door)
            for receipt in around.enter_context(closing(receipts)):
                entering.take(receipt)
                if stop is not None and stop.is_set():
                    raise Cancelled("interrupted")
                door.wait() if receipt is None else door.through()
    except ray.exceptions.RayError as fault:
        raise RunError(f"{stage.name}: Ray gave up on a worker ({type(fault).__name__})") from fault
    if failed:
        others = f" (and {len(failed) - 1} more units)" if len(failed) > 1 else ""
        raise RunError(f"{stage.name}: unit {failed[0].unit}{others}: {failed[0].error}")
    return door.held


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


# -- plain Ray ----------------------------------------------------------------------------------------------------


def _both(stage: Stage, unit: Unit, threads: int, bell: Bell) -> Receipt:
    """Open, read and work in one go: a stage that holds no model needs no process of its own."""
    bell.ring("work")
    return Worker(stage, threads).work(unit, attempts.read(stage, unit))


def _read(stage: Stage, unit: Unit, bell: Bell) -> list[pa.Table] | Receipt:
    bell.ring("read")
    return attempts.read(stage, unit)


def _with_tasks(stage: Stage, units: Sequence[Unit], door: Door) -> Generator[Receipt | None, None, None]:
    """Ray keeps the processes of tasks, with what they imported, for the next stage."""
    shared, capacity = ray.put(stage), door.capacity
    both = ray.remote(max_retries=LOST_WORKER_RETRIES, **capacity.options)(_both)
    waiting = deque(units)
    running: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < 2 * capacity.workers:
                running.append(both.remote(shared, waiting.popleft(), capacity.threads, door.bell))
            finished, running = ray.wait(running, num_returns=1, timeout=LOOK_S)
            yield from (ray.get(done) for done in finished)
            if not finished:
                yield None
    finally:
        for task in running:
            ray.cancel(task, force=True)


def _with_actors(
    stage: Stage, units: Sequence[Unit], door: Door, pool: Sequence[Lent]
) -> Generator[Receipt | None, None, None]:
    """Those that find room work, while others still wait for it."""
    shared, capacity = ray.put(stage), door.capacity
    read = ray.remote(num_cpus=READ_CPUS, max_retries=LOST_WORKER_RETRIES, **capacity.selector)(_read)
    waiting = deque(units)
    coming = {process.actor.came.remote(door.bell): process for process in pool}
    running: dict[Any, Lent] = {}  # what a process told → the process
    under_way: dict[Lent, int] = {}  # units of each that came

    def feed() -> None:
        """A unit for each process, then one to be read meanwhile, unless a process that still comes may want it."""
        for many in (1, 2):
            for process, has in under_way.items():
                if has < many and len(waiting) > (len(coming) if many == 2 else 0):
                    unit = waiting.popleft()
                    tables = read.remote(shared, unit, door.bell) if stage.holds_model else None
                    running[process.actor.work.remote([shared], capacity.threads, unit, tables)] = process
                    under_way[process] += 1

    try:
        while running or (waiting and coming):
            finished, _ = ray.wait([*running, *coming], num_returns=1, timeout=LOOK_S)
            for done in finished:
                told = ray.get(done)
                if done in coming:
                    under_way[coming.pop(done)] = 0
                    door.came()
                    feed()
                    continue
                process = running.pop(done)
                under_way[process] -= 1
                feed()
                yield process.told(told)
            if not finished:
                yield None
    finally:
        for process in coming.values():
            process.sound = False  # nothing is known of it: it ends with the stage


# -- many units of a model: Ray Data ------------------------------------------------------------------------------


def _lost(bell: Bell, what: str, doing: str) -> str | None:
    """Why it is not begun once more; None where it is.

    Ray Data starts lost processes anew without end. It takes bounds only as options that go in Ray 2.64, and has none
    in their place. So each process counts, before it begins, how many were lost at the same thing.
    """
    if bell.begun(what) <= 1 + LOST_WORKER_RETRIES:
        return None
    return f"Ray gave up on a worker: {1 + LOST_WORKER_RETRIES} were lost while they {doing}"


class _RowWorker(Worker):
    """A row of Ray Data: a unit with what was read of it, to a row with its receipt."""

    def __init__(self, stage: Stage, threads: int, bell: Bell) -> None:
        self.bell = bell
        bell.ring("work")
        own = f"open-{ray.get_runtime_context().get_actor_id()}"  # stays the same when the process is started anew
        lost = _lost(bell, own, "loaded the model")
        super().__init__(stage, threads, lost)
        bell.ended(own)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        unit: Unit = pickle.loads(row["unit"])  # noqa: S301 - written by _streamed
        if lost := _lost(self.bell, f"work-{unit.id}", "worked on it"):
            return {"receipt": Receipt(self.stage.name, unit.id, "", error=lost).to_json()}
        return {"receipt": self.work(unit, _unpacked(row["tables"])).to_json()}


def _streamed(stage: Stage, units: Sequence[Unit], door: Door) -> Generator[Receipt | None, None, None]:
    from ray.data import ActorPoolStrategy, DataContext, from_items

    capacity, bell = door.capacity, door.bell
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a unit is one block, however large

    def read(row: dict[str, Any]) -> dict[str, Any]:
        unit: Unit = pickle.loads(row["unit"])  # noqa: S301
        lost = _lost(bell, f"read-{unit.id}", "read it")
        tables = Receipt(stage.name, unit.id, "", error=lost) if lost else _read(stage, unit, bell)
        return {"unit": row["unit"], "tables": _packed(tables)}

    worker: Any = _RowWorker  # a class whose instances are called; Ray's annotation knows functions only
    rows = from_items([{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=len(units))
    receipts = rows.map(read, num_cpus=READ_CPUS, **capacity.selector).map(
        worker,
        fn_constructor_args=(stage, capacity.threads, bell),
        compute=ActorPoolStrategy(size=capacity.workers),
        **capacity.options,
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
