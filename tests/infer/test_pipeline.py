"""Units through a real Ray, by both ways: one receipt a unit, whatever happens to it, its worker or its model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray import cloudpickle

from bizllm.errors import Cancelled, RunError
from bizllm.infer import pipeline, workers
from bizllm.infer.doors import Bell
from bizllm.infer.pipeline import run_stage
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.infer.rows import AnswerRows, RowUnit
from bizllm.infer.work import StepContext
from bizllm.tables.manifest import freeze

NIGHT = date(2026, 3, 10)
PLAIN, STREAMED = 10_000, 0  # FEW_UNITS: every stage by the one way, or by the other
WAYS = {"actors": (PLAIN, True), "tasks": (PLAIN, False), "streamed": (STREAMED, True)}
SLOW_STREAMED = pytest.param("streamed", marks=pytest.mark.slow)
pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("error::ray.util.annotations.RayDeprecationWarning"),
]


@pytest.fixture(autouse=True)
def classes_travel_by_value() -> Iterator[None]:
    """Workers can't import a test module."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(params=WAYS)
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sum:
    """A stage that goes one of the ways: plain actors (it holds a model), plain tasks, Ray Data."""
    few, holds_model = WAYS[request.param]
    monkeypatch.setattr(pipeline, "FEW_UNITS", few)
    return Sum(str(tmp_path), holds_model=holds_model)


def unit(number: int, values: int = 3, **faults: Any) -> Any:
    """A unit of so many values. A plain namespace: the pipeline pickles units without their class."""
    defaults = {"tables": 1, "read": None, "work": None, "seconds": 0.0}
    return SimpleNamespace(id=f"u{number:03d}", number=number, values=values, **{**defaults, **faults})


@dataclass
class Sum:
    """Adds up the numbers of a unit, notes in `folder` each time it reads or works, and fails where the unit says."""

    folder: str
    loads: bool = True
    kills: bool = False
    name: str = "sum"
    holds_model: bool = True
    uses_gpu: bool = False

    def open(self) -> None:
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.loads:
            raise RunError("model 'builtin:none' does not load")

    def read(self, unit: Any) -> list[pa.Table]:
        self._note("read", unit)
        return [pa.table({"x": np.arange(unit.values) + unit.number + part}) for part in range(unit.tables)]

    def work(self, unit: Any, tables: list[pa.Table]) -> Receipt:
        self._note("work", unit)
        until = time.monotonic() + unit.seconds
        while time.monotonic() < until and not Path(self.folder, "enough").exists():
            time.sleep(0.05)
        total = sum(int(table["x"].to_numpy().sum()) for table in tables)
        said = {"sum": total, "tables": len(tables), "pid": os.getpid()}
        return Receipt(self.name, unit.id, "r1", rows_in=sum(t.num_rows for t in tables), extra=said)

    def _note(self, what: str, unit: Any) -> None:
        with open(f"{self.folder}/{what}", "a") as notes:
            notes.write(f"{unit.id}\n")
        match getattr(unit, what):
            case "raise":
                raise ValueError("could not convert 'Jane Doe'")
            case "die once" if self.noted(what)[unit.id] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)

    def noted(self, what: str) -> Counter[str]:
        """unit → how often it was read, or worked on."""
        path = Path(self.folder, what)
        return Counter(path.read_text().split() if path.exists() else [])


def receipts(tmp_path: Path) -> dict[str, Receipt]:
    """What is durable."""
    return {receipt.unit: receipt for receipt in ReceiptBook(str(tmp_path), "sum")}


def test_one_receipt_a_unit_whatever_its_size(stage: Sum, tmp_path: Path) -> None:
    """Neither empty tables nor large ones are lost, split or merged; the numbers are known in advance."""
    sizes = [0, 1, 3, 400_000, *[2] * 66]
    units = [unit(i, n, tables=0 if i == 5 else 2 if i == 6 else 1) for i, n in enumerate(sizes)]
    heard: list[str] = []
    book = ReceiptBook(str(tmp_path), "sum")
    run_stage(stage, units, book, workers=2, on_receipt=lambda r: heard.append(r.unit))
    names = [u.id for u in units]
    assert sorted(heard) == names and [r.unit for r in book] == names
    assert receipts(tmp_path) == {r.unit: r for r in book}, "what is said is durable"
    once = Counter(names)
    assert (stage.noted("read"), stage.noted("work")) == (once, once)
    for u, receipt in zip(units, book, strict=True):
        per_table = [sum(range(u.number + part, u.number + part + u.values)) for part in range(u.tables)]
        assert (receipt.rows_in, receipt.extra["tables"]) == (u.values * u.tables, u.tables)
        assert receipt.extra["sum"] == sum(per_table)
    if stage.holds_model:
        assert len({r.extra["pid"] for r in book}) <= 2, "units share the processes that loaded the model"

    run_stage(stage, [*units, unit(900)], ReceiptBook(str(tmp_path), "sum"), workers=2)
    assert stage.noted("work") == once + Counter(["u900"]), "a unit with a receipt is never worked on again"


def test_many_units_of_a_stage_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain tasks, however many; what fails, or loses its process, does so as in the other ways."""
    monkeypatch.setattr(pipeline, "FEW_UNITS", STREAMED)
    stage = Sum(str(tmp_path), holds_model=False)
    units = [unit(i, values=i % 3) for i in range(70)]
    units[2].work, units[4].work = "raise", "die once"
    monkeypatch.setattr(pipeline, "_streamed", None)
    with pytest.raises(RunError, match="sum: unit u002: ValueError"):
        run_stage(stage, units, ReceiptBook(str(tmp_path), "sum"), workers=2)
    assert {name: r.rows_in for name, r in receipts(tmp_path).items()} == {
        u.id: u.values for u in units if u.work != "raise"
    }


def test_units_that_fail_or_lose_their_worker(stage: Sum, tmp_path: Path) -> None:
    """Failed units are told by name, the others are done; a process that is killed is replaced."""
    units = [unit(i) for i in range(12)]
    units[2].work = units[7].read = "raise"
    units[4].work = units[9].read = "die once"
    with pytest.raises(RunError) as told:
        run_stage(stage, units, ReceiptBook(str(tmp_path), "sum"), workers=2)
    said = str(told.value)
    assert said.startswith("sum: unit u00") and "(and 1 more units)" in said and "ValueError" in said
    assert "Jane" not in said
    done = {u.id for u in units} - {"u002", "u007"}
    assert set(receipts(tmp_path)) == done
    assert stage.noted("work")["u004"] >= 2 and stage.noted("read")["u009"] >= 2

    for u in units:
        u.work = u.read = None
    before = stage.noted("work")
    run_stage(stage, units, ReceiptBook(str(tmp_path), "sum"), workers=2)
    assert stage.noted("work") - before == Counter(["u002", "u007"]), "only what failed is tried again"


@pytest.mark.parametrize("stage", ["actors", "tasks", SLOW_STREAMED], indirect=True)
def test_a_unit_that_always_kills_its_worker_ends_the_run(stage: Sum, tmp_path: Path) -> None:
    units = [unit(i, work="die" if i == 1 else None) for i in range(4)]
    with pytest.raises(RunError, match="Ray gave up on a worker") as told:
        run_stage(stage, units, ReceiptBook(str(tmp_path), "sum"), workers=1)
    assert 1 <= stage.noted("work")["u001"] <= 1 + workers.LOST_WORKER_RETRIES
    assert "u001" not in receipts(tmp_path)
    if pipeline.FEW_UNITS == STREAMED:
        assert "sum: unit u001: " in str(told.value), "it is named, and the others are done"
        assert set(receipts(tmp_path)) == {"u000", "u002", "u003"}


@pytest.mark.slow  # Ray Data starts a process some ten times
@pytest.mark.parametrize("part", ["read", "open"])
def test_reading_and_loading_that_always_kill_end_the_run_too(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data alone would start their processes anew for ever."""
    monkeypatch.setattr(pipeline, "FEW_UNITS", STREAMED)
    stage = Sum(str(tmp_path), kills=part == "open")
    units = [unit(i, read="die" if (i, part) == (1, "read") else None) for i in range(3)]
    expected = {"read": "unit u001: Ray gave .* read it", "open": r"more units\): Ray gave .* loaded the model"}
    with pytest.raises(RunError, match=expected[part]):
        run_stage(stage, units, ReceiptBook(str(tmp_path), "sum"), workers=1)
    assert set(receipts(tmp_path)) == ({"u000", "u002"} if part == "read" else set())


def test_a_bell_counts_what_was_begun_and_not_ended() -> None:
    bell, other = Bell(), Bell()
    assert [bell.begun(what) for what in ("work-u1", "work-u1", "work-u10", "work-u1")] == [1, 2, 1, 3]
    bell.ended("work-u1")
    assert [bell.begun("work-u1"), bell.begun("work-u10"), other.begun("work-u10")] == [1, 2, 1]
    bell.forget()
    assert [bell.begun("work-u10"), other.begun("work-u10")] == [1, 2]
    other.forget()


@pytest.mark.parametrize("few", [PLAIN, pytest.param(STREAMED, marks=pytest.mark.slow)])
def test_a_model_that_does_not_load(few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit says so, once; no endless restarts."""
    monkeypatch.setattr(pipeline, "FEW_UNITS", few)
    failed: list[Receipt] = []
    with pytest.raises(RunError, match=r"unit u00\d \(and 4 more units\): model 'builtin:none' does not load"):
        run_stage(
            Sum(str(tmp_path), loads=False),
            [unit(i) for i in range(5)],
            ReceiptBook(str(tmp_path), "sum"),
            workers=2,
            on_receipt=failed.append,
        )
    assert sorted(r.unit for r in failed) == [f"u{i:03d}" for i in range(5)]
    assert all(r.error for r in failed) and not receipts(tmp_path)


def test_receipts_are_told_when_they_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several are written at once, to a store that is slow; one that it refuses ends the stage, the others stay."""
    enter, together, most = ReceiptBook.enter, Counter[str](), [0]

    def slowly(book: ReceiptBook, receipt: Receipt) -> None:
        together["now"] += 1
        most[0] = max(most[0], together["now"])
        time.sleep(3.0 if receipt.unit == "u003" else 0.5)  # the others have come by then, however slow their process
        together["now"] -= 1
        if receipt.unit == "u003":
            raise RunError("the store refuses")
        enter(book, receipt)

    monkeypatch.setattr(ReceiptBook, "enter", slowly)
    heard: list[str] = []

    def told(receipt: Receipt) -> None:
        assert receipt.unit in receipts(tmp_path)
        heard.append(receipt.unit)

    with pytest.raises(RunError, match="the store refuses"):
        run_stage(
            Sum(str(tmp_path), holds_model=False),
            [unit(i) for i in range(4)],
            ReceiptBook(str(tmp_path), "sum"),
            workers=2,
            on_receipt=told,
        )
    assert sorted(heard) == ["u000", "u001", "u002"] and most[0] > 1


def test_stop_ends_the_work_and_keeps_what_is_done(stage: Sum, tmp_path: Path) -> None:
    stop = threading.Event()
    heard: list[Receipt] = []

    def enough(receipt: Receipt) -> None:
        heard.append(receipt)
        if len(heard) == 3:
            stop.set()

    units = [unit(i, seconds=0.1) for i in range(200)]
    with pytest.raises(Cancelled):
        run_stage(stage, units, ReceiptBook(str(tmp_path), "sum"), workers=2, stop=stop, on_receipt=enough)
    kept = receipts(tmp_path)
    assert set(kept) == {r.unit for r in heard} and 3 <= len(kept) < 100
    time.sleep(1)
    worked = stage.noted("work").total()
    time.sleep(1)
    assert stage.noted("work").total() == worked < 200, "nothing works on behind the back"


def test_stop_does_not_wait_for_a_long_unit(stage: Sum, tmp_path: Path) -> None:
    stop = threading.Event()

    def soon() -> None:
        while not stage.noted("work"):
            time.sleep(0.05)
        stop.set()

    threading.Thread(target=soon, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        run_stage(stage, [unit(0, seconds=100)], ReceiptBook(str(tmp_path), "sum"), workers=1, stop=stop)
    assert time.monotonic() - started < 60, "a run that is interrupted ends soon, however long its units are"
    (tmp_path / "enough").touch()  # Ray Data gives its worker back when the unit ends


@pytest.mark.parametrize("few", [PLAIN, STREAMED])
def test_a_unit_whose_every_row_is_rejected_has_its_receipt(
    few: int, tmp_path: Path, context: Callable[..., StepContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real stage on real files: the second file has no text at all."""
    monkeypatch.setattr(pipeline, "FEW_UNITS", few)
    (tmp_path / "in").mkdir()
    text = "The parcel came late. The box was wet. I want my money back."
    bodies: dict[str, list[str | None]] = {"a": [text, text], "b": [None, "  ", None]}
    for name, values in bodies.items():
        rows = {"id": [f"{name}{i}" for i in range(len(values))], "body": pa.array(values, pa.string())}
        pq.write_table(pa.table(rows), tmp_path / f"in/{name}.parquet", row_group_size=2)
    step = context(tmp_path / "in", ["id"], task="summarize", text="body", max_sentences=1)
    units = freeze(step.source, NIGHT, "all", ["id", "body"], 2, 10**9).units
    book = ReceiptBook(step.state_url, "answer")
    run_stage(AnswerRows(step), [RowUnit(unit) for unit in units], book, workers=1)
    assert sorted((r.rows_in, r.rows_out, sum(r.rejected.values())) for r in book) == [(1, 0, 1), (2, 0, 2), (2, 2, 0)]
    for receipt in book:
        assert bool(receipt.files) == (receipt.rows_out > 0) and bool(receipt.reject_files) == (receipt.rows_out == 0)


HEAD_WITHOUT_CPUS = """
from types import SimpleNamespace
from ray.cluster_utils import Cluster
import ray
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
cluster.add_node(num_cpus=4, object_store_memory=100_000_000)
ray.init(address=cluster.address, log_to_driver=False)
from bizllm.infer.pools import Capacity, Pools
from bizllm.infer.room import look
capacity = Capacity.of(SimpleNamespace(uses_gpu=False), 2, None, Pools(), look())
print(capacity.workers, capacity.threads)
ray.shutdown()
cluster.shutdown()
"""


def test_a_head_that_takes_no_work_does_not_thin_the_workers() -> None:
    """Four CPUs for two units are two threads each, though the head has none."""
    with tempfile.TemporaryDirectory(
        prefix="ray", ignore_cleanup_errors=True
    ) as apart:  # no other Ray here is to see it
        own = os.environ | {"RAY_TMPDIR": apart}
        asked = [sys.executable, "-c", HEAD_WITHOUT_CPUS]
        done = subprocess.run(asked, env=own, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2", "2"], done.stderr
