"""Processes that a run keeps from stage to stage: which stages share them, and when they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray import cloudpickle

from bizllm.errors import RunError
from bizllm.infer import workers
from bizllm.infer.pipeline import run_stage
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.infer.workers import Capacity, Workers

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(autouse=True)
def classes_travel_by_value() -> Iterator[None]:
    """Workers can't import a test module."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class One:
    id: str


@dataclass
class Tells:
    """Tells the process that it was opened and worked in, and how often it was opened."""

    name: str
    holds_model: bool = True
    uses_gpu: bool = True
    dies: str = ""  # a file: the first time, the process dies and leaves it
    opened: list[int] = field(default_factory=list)

    def open(self) -> None:
        self.opened.append(os.getpid())

    def read(self, unit: Any) -> list[pa.Table]:
        return []

    def work(self, unit: Any, tables: list[pa.Table]) -> Receipt:
        if self.dies and not Path(self.dies).exists():
            Path(self.dies).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Receipt(self.name, unit.id, "r", extra={"pid": os.getpid(), "opened": len(self.opened)})


def pids(stage: Tells, processes: Workers, folder: Path, units: int = 1) -> set[int]:
    """The processes of a stage's units; each was opened once, for all units that it worked on."""
    book = ReceiptBook(str(folder), stage.name)
    run_stage(stage, [One(f"u{i}") for i in range(units)], book, processes=processes)
    assert [receipt.extra["opened"] for receipt in book] == [1] * units
    return {receipt.extra["pid"] for receipt in book}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(pid: int) -> bool:
    """Whether it ends within some seconds."""
    until = time.monotonic() + 20
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def test_stages_of_one_size_share_a_process_whether_they_hold_a_model_or_not(tmp_path: Path) -> None:
    with Workers() as processes:
        first = pids(Tells("learn"), processes, tmp_path)
        assert pids(Tells("answer"), processes, tmp_path, units=1) == first
        assert pids(Tells("audit", holds_model=False), processes, tmp_path) == first
        assert pids(Tells("next"), processes, tmp_path) == first
        (pid,) = first
        assert alive(pid)
    assert ended(pid)


def test_a_stage_of_another_size_ends_them_for_the_room_that_they_hold(tmp_path: Path) -> None:
    with Workers() as processes:
        (own,) = pids(Tells("zero"), processes, tmp_path)
        with processes.lent(None, start=True) as none:  # as a stage whose processes Ray Data starts
            assert none == [] and ended(own)
        (wide,) = pids(Tells("one"), processes, tmp_path)
        narrow = pids(Tells("many"), processes, tmp_path, units=6)
        assert wide not in narrow and len(narrow) == 2 and ended(wide)
        assert pids(Tells("again", holds_model=False), processes, tmp_path, units=4) <= narrow
        assert not pids(Tells("audit", holds_model=False), processes, tmp_path) & narrow
        assert all(map(ended, narrow))


def test_a_process_that_was_lost_or_grew_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers() as processes:
        lost = pids(Tells("dies", dies=str(tmp_path / "died")), processes, tmp_path)
        assert not pids(Tells("later"), processes, tmp_path) & lost
        monkeypatch.setattr(workers, "KEPT_BYTES", 1)
        (large,) = pids(Tells("large"), processes, tmp_path)
        assert ended(large)


def test_none_is_kept_beside_another_stage_or_after_a_fault(tmp_path: Path) -> None:
    capacity = Capacity(1, 1, 0.4, 0.0)
    with Workers() as processes, ThreadPoolExecutor(1) as thread:
        with processes.lent(capacity, start=True) as outer:
            with processes.lent(capacity, start=True) as inner:
                assert inner[0] is not outer[0]
            assert processes._kept == []
        assert [lent for _, lent in processes._kept] == outer
        with pytest.raises(RunError), processes.lent(capacity, start=True) as taken:
            assert taken == outer
            raise RunError("interrupted")
        assert processes._kept == []
        late = processes.lent(capacity, start=True)
        thread.submit(late.__enter__).result()
    late.__exit__(None, None, None)
    assert processes._kept == [], "what ends after the run ends its processes"


def test_a_stage_that_raises_while_it_opens_says_so_and_the_next_one_works(tmp_path: Path) -> None:
    @dataclass
    class Broken(Tells):
        def open(self) -> None:
            raise RunError("does not load")

    with Workers() as processes:
        with pytest.raises(RunError, match="unit u0: does not load"):
            run_stage(Broken("broken"), [One("u0")], ReceiptBook(str(tmp_path), "broken"), processes=processes)
        assert len(pids(Tells("next"), processes, tmp_path)) == 1
    assert ray.is_initialized()
