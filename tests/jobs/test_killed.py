"""Runs that are killed or interrupted half way: the next one finishes the night, and nobody saw half of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from nights import ROWS, night, receipts

from bizllm import api
from bizllm.infer.pipeline import FEW_UNITS

NIGHT = "2026-03-10"
Job = Callable[..., str]


class Run:
    """`bizllm run` in a session of its own, with what it logs."""

    def __init__(self, path: str, folder: Path, *more: str) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--json", *more],
            env=os.environ | {"BIZLLM_LOG": "info", "BIZLLM_LOG_FILE": str(self.log)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def units(self) -> set[str]:
        """The answered units that it logged."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return {line["unit"] for line in lines if line["event"] == "unit_done" and line["stage"] == "answer"}

    def until(self, ready: Callable[[], bool], within_s: float = 120.0) -> None:
        """Wait for it; the run must still be under way."""
        deadline = time.monotonic() + within_s
        while not ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the run got nowhere"
            time.sleep(0.005)

    def members(self) -> dict[int, str]:
        """pid → command of every process of the run's session: the driver, Ray's own, and workers."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found[int(stat.parent.name)] = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, IndexError):
                continue  # ended meanwhile
        return found

    def ended(self) -> dict[str, Any]:
        """Its JSON, and `status` in it."""
        out, err = self.process.communicate(timeout=200)
        assert out, err
        said: dict[str, Any] = json.loads(out)
        return {**said, "exit": self.process.returncode, "stderr": err}

    def kill(self) -> None:
        """Nothing of it is left behind, whatever happened."""
        for pid in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """start(path, *options): a run, ended with all its processes when the test is over."""
    runs: list[Run] = []

    def start(path: str, *more: str) -> Run:
        runs.append(Run(path, tmp_path, *more))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


@pytest.mark.parametrize("units", [60, pytest.param(120, marks=pytest.mark.slow)], ids=["plain", "streamed"])
def test_a_killed_run_is_finished_by_the_next(
    units: int, many: Job, start: Callable[..., Run], undisturbed: Callable[[str], Any], tmp_path: Path
) -> None:
    path = many(units, **({"steps__summary__model": "builtin:minilm"} if units > FEW_UNITS else {}))
    first = start(path)
    first.until(lambda: len(receipts(tmp_path)) >= 4)
    first.kill()  # driver, raylet, workers: all at once, like a machine that loses its power
    done = receipts(tmp_path)
    assert 4 <= len(done) < units, "killed in the middle"
    assert not (tmp_path / "wh/shop/summary/metadata").exists(), "nothing is published"

    second = start(path)
    said = second.ended()
    assert (said["exit"], said["state"]) == (0, "done")
    step = said["steps"][0]
    assert (step["rows_in"], step["rows_out"], step["rows_rejected"]) == (ROWS, ROWS - 3, 3)
    again = second.units()
    assert not again & done and len(again | done) == units, "only what was not durable is worked on again"
    assert night(path) == undisturbed(path)
    assert api.show(path, sql="select distinct run_id from summary").to_pylist() == [{"run_id": said["run_id"]}]
    (orphans,) = api.show(path, sql="select count(*) n, count(distinct ticket_id) k from summary").to_pylist()
    assert orphans == {"n": ROWS - 3, "k": ROWS - 3}, "files that the killed run left are not part of the table"
    assert api.run(path, date=NIGHT).state == "unchanged"


# Ray's own agents of a node outlive a raylet that was killed (seen in 2.60); they hold no lock and do no work.
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def left(run: Run) -> set[str]:
    """What the processes of a run are called."""
    return {command.strip() for command in run.members().values()}


def test_a_killed_driver_takes_its_processes_with_it(many: Job, start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(many())
    run.until(lambda: len(receipts(tmp_path)) >= 2)
    assert len(run.members()) > 3
    run.process.kill()
    deadline = time.monotonic() + 60
    while not left(run) <= AGENTS and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left(run) <= AGENTS


@pytest.mark.slow  # tests/infer kills workers by every way; this is the same through the command line
def test_a_killed_worker_is_replaced(
    many: Job, start: Callable[..., Run], undisturbed: Callable[[str], Any], tmp_path: Path
) -> None:
    path = many()
    run = start(path)
    run.until(lambda: len(receipts(tmp_path)) >= 4)
    at_work: list[int] = []

    def found() -> bool:
        at_work[:] = [pid for pid, command in run.members().items() if command.startswith(("ray::_both", "ray::_Work"))]
        return bool(at_work)

    run.until(found)
    os.kill(at_work[0], signal.SIGKILL)
    assert len(receipts(tmp_path)) < 60, "killed in the middle"
    said = run.ended()
    assert (said["exit"], said["state"]) == (0, "done"), said["stderr"]
    assert night(path) == undisturbed(path)


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_leaves_the_old_night_and_a_free_lock(
    sent: signal.Signals, many: Job, start: Callable[..., Run], local_ray: None, tmp_path: Path
) -> None:
    path = many()
    run = start(path)
    run.until(lambda: len(receipts(tmp_path)) >= 2)
    asked = time.monotonic()
    if sent is signal.SIGINT:
        os.killpg(run.process.pid, sent)  # what Ctrl-C in a terminal does: every process of the group hears it
    else:
        run.process.send_signal(sent)
    said = run.ended()
    assert time.monotonic() - asked < 60
    assert (said["exit"], said["state"]) == (130, "cancelled"), said
    assert [step["state"] for step in said["steps"]] == ["cancelled"]
    assert [(row["step"], row["state"]) for row in api.runs(path)] == [("summary", "cancelled")]
    assert not (tmp_path / "wh/shop/summary/metadata").exists(), "nothing is published"
    assert run.members() == {}
    assert "Traceback" not in said["stderr"]
    done = receipts(tmp_path)
    result = api.run(path, date=NIGHT)
    assert result.state == "done" and len(done) >= 2, "the lock is free, and what was done is taken over"
    (count,) = api.show(path, sql="select count(*) n from summary").to_pylist()
    assert count["n"] == ROWS - 3


def test_a_reader_sees_the_old_night_or_the_new_one(many: Job, local_ray: None, tmp_path: Path) -> None:
    """Polls table and rejects through DuckDB over PyIceberg's plan while another run replaces both."""
    path = many(4)
    old = api.run(path, date=NIGHT)
    file = tmp_path / f"tickets/dt={NIGHT}/part-0.parquet"
    rows = pq.read_table(file)
    pq.write_table(rows.slice(100), file)
    seen: set[tuple[str, int, int]] = set()
    faults: list[BaseException] = []
    over = threading.Event()

    def poll() -> None:
        sql = """select run_id, count(*)::int n, (select count(*)::int from summary__rejects) rejected
                 from summary group by all"""
        try:
            while not over.is_set():
                seen.update(tuple(row.values()) for row in api.show(path, sql=sql).to_pylist())
        except BaseException as fault:
            faults.append(fault)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        new = api.run(path, date=NIGHT)
        deadline = time.monotonic() + 30
        while len({run_id for run_id, _, _ in seen}) < 2 and not faults and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        over.set()
        reader.join()
    assert not faults
    rejected = {old.run_id: 3, new.run_id: sum(body is None for body in rows["body"].to_pylist()[100:])}
    assert rejected[new.run_id] == 2
    told = {(run_id, n) for run_id, n, _ in seen}
    assert told == {(old.run_id, ROWS - 3), (new.run_id, ROWS - 100 - 2)}
    assert {(run_id, r) for run_id, _, r in seen} <= {*rejected.items(), (old.run_id, 0)}
