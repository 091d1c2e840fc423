"""Nights that nobody ran, and running them: on real tables, and by real processes that come at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bizllm import api
from bizllm.cli import app
from bizllm.errors import UserError
from bizllm.jobs import ledger
from bizllm.jobs.catch_up import catch_up, missing
from bizllm.jobs.job import load_job
from bizllm.jobs.ledger import StepResult
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.jobs.observe import Observer
from bizllm.jobs.prepare import prepare
from bizllm.jobs.run import RunResult, run

LAST = date(2026, 3, 10)
Job = Callable[..., str]
AGAIN = {"task": "summarize", "input": "tickets", "text": "body", "max_chars": 9}


def march(*numbers: int) -> list[date]:
    return [date(2026, 3, number) for number in numbers]


def arrive(folder: Path, *days: date, bodies: list[str | None] | None = None) -> None:
    """Partitions of tickets."""
    bodies = bodies or ["The box was wet. I want my money back. Please call me. Thank you."] * 3
    for day in days:
        (folder / f"tickets/dt={day}").mkdir(exist_ok=True)
        rows = pa.table(
            {"ticket_id": [f"{day}-{i}" for i in range(len(bodies))], "body": pa.array(bodies, pa.string())}
        )
        pq.write_table(rows, folder / f"tickets/dt={day}/part-0.parquet")


def caught_up(path: str, observer: Observer | None = None, **more: Any) -> list[tuple[int, str]]:
    """(day of March, state or why it was not run) of each entry."""
    loaded = load_job(path)

    def one(day: date, lacking: UserError | None) -> RunResult:
        if lacking:
            raise lacking
        return run(loaded, day, observer=observer)

    entries = [entry.to_dict() for entry in catch_up(loaded, LAST, one, **more)]
    return [(date.fromisoformat(e["date"]).day, e.get("reason", e["state"])) for e in entries]


# -- what is missing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "failed", "since", "expected"),
    [
        ({}, {}, None, [10]),  # a job that never ran has no past
        ({}, {}, 8, [8, 9, 10]),
        ({"summary": [10], "again": [10]}, {}, None, []),
        ({"summary": [5, 6, 9], "again": [5, 6, 9]}, {}, None, [7, 8, 10]),
        ({"summary": [5, 6, 9], "again": [5, 6, 9]}, {}, 8, [8, 10]),
        ({"summary": [5, 6, 9], "again": [5, 6, 9]}, {}, 3, [3, 4, 7, 8, 10]),
        ({"summary": [7, 8, 9, 10], "again": [7, 10]}, {}, None, [8, 9]),  # each step counts
        ({"summary": [7, 8, 9, 10]}, {}, None, [10]),  # a step that is new tonight has no past either
        ({"summary": [8, 9, 10], "again": [10]}, {"again": [8, 9]}, None, [8, 9]),  # it was tried, and failed
        ({"summary": [8, 9, 10], "again": [10], "gone": [1]}, {}, None, []),  # of a step that the job had once
    ],
)
def test_what_is_missing(
    job: Job, published: dict[str, list[int]], failed: dict[str, list[int]], since: int | None, expected: list[int]
) -> None:
    night = prepare(load_job(job(steps__segments=None, sources__orders=None, steps__again=AGAIN)), LAST)
    warehouse, schema = night.warehouse, night.steps["summary"].schema
    for step, numbers in published.items():
        for day in march(*numbers):
            warehouse.publish("shop", step, schema, day, [], {"run_id": f"{step}-{day}"}, lambda: None)
    for step, numbers in failed.items():
        for day in march(*numbers):
            row = StepResult(day, f"f-{day}", step, "summarize", f"shop.{step}", "failed", datetime.now(UTC))
            ledger.write(warehouse, "shop", row.run_id, day, [row])
    assert missing(night, march(since)[0] if since else None) == march(*expected)


def test_a_night_whose_snapshot_expired_is_not_missing(job: Job) -> None:
    night = prepare(load_job(job(steps__segments=None, sources__orders=None)), LAST)
    for day in march(8, 9):
        row = StepResult(day, f"r-{day}", "summary", "summarize", "shop.summary", "done", datetime.now(UTC))
        ledger.write(night.warehouse, "shop", row.run_id, day, [row])
    assert missing(night, None) == march(8, 9, 10), "whoever drops the table wants it back"
    schema = night.steps["summary"].schema
    night.warehouse.publish("shop", "summary", schema, LAST, [], {"run_id": "r"}, lambda: None)
    assert missing(night, None) == []


# -- running it ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("local_ray")
def test_the_oldest_come_first_a_bound_cuts_and_days_without_input_are_told(job: Job, tmp_path: Path) -> None:
    path = job(steps__segments=None, sources__orders=None)
    arrive(tmp_path, *march(6, 7))  # 9 and 10 are there
    assert api.run(path, date="2026-03-06").state == "done"
    assert caught_up(path, most=2) == [(7, "done"), (8, "no_input"), (9, "done"), (10, "bound")]
    assert caught_up(path) == [(8, "no_input"), (10, "done")]
    assert caught_up(path) == [(8, "no_input")], "told every night, and nothing else is done"
    arrive(tmp_path, *march(8))
    assert caught_up(path) == [(8, "done")]
    assert caught_up(path) == []
    dates = [row["run_date"].day for row in reversed(ledger.read(prepare(load_job(path), LAST).warehouse, "shop"))]
    assert dates == [6, 7, 9, 10, 8]


@pytest.mark.usefixtures("local_ray")
def test_a_bad_night_holds_up_no_other(job: Job, tmp_path: Path) -> None:
    """One fails, one is held by another run, the files of one go meanwhile, and last night's have not come."""
    path = job(steps__segments=None, sources__orders=None)
    shutil.rmtree(tmp_path / f"tickets/dt={LAST}")
    arrive(tmp_path, *march(5, 6, 8))
    arrive(tmp_path, *march(7), bodies=[None, None])
    night = prepare(load_job(path), LAST)

    class Meanwhile(Observer):
        def run_started(self, job: str, run_id: str, run_date: date, steps: Any) -> None:
            shutil.rmtree(tmp_path / "tickets/dt=2026-03-09", ignore_errors=True)

    with RunLock(lock_url(night.warehouse.path, "shop", march(6)[0]), "by hand"):
        found = caught_up(path, since=march(5)[0], observer=Meanwhile())
    assert found == [(5, "done"), (6, "locked"), (7, "failed"), (8, "done"), (9, "wrong_input"), (10, "late_input")]


@pytest.mark.usefixtures("local_ray")
def test_steps_that_look_back_wait_for_the_night_before(job: Job, tmp_path: Path) -> None:
    path = job()  # segments tell where a customer was the night before
    night = prepare(load_job(path), LAST)
    with RunLock(lock_url(night.warehouse.path, "shop", march(9)[0]), "by hand"):
        assert caught_up(path, since=march(9)[0]) == [(9, "locked"), (10, "order")]


def test_dates_that_can_not_be(job: Job) -> None:
    path = job()
    with pytest.raises(UserError, match=r"--since: '2999-01-01': is after last night, 2\d{3}-\d\d-\d\d in UTC"):
        api.catch_up(path, since="2999-01-01")
    with pytest.raises(UserError, match="expected a date YYYY-MM-DD"):
        api.catch_up(path, since="yesterday")
    with pytest.raises(UserError, match="--most: 0: expected at least 1"):
        api.catch_up(path, most=0)


def test_two_schedulers_at_once_run_each_night_once(job: Job, tmp_path: Path) -> None:
    path = job(steps__segments=None, sources__orders=None, runtime={"num_cpus": 1, "object_store_mb": 100})
    last = datetime.now(UTC).date() - timedelta(days=1)
    days = [last - timedelta(days=back) for back in (2, 1, 0)]
    arrive(tmp_path, *days)
    command = [sys.executable, "-m", "bizllm.cli", "run", path, "--catch-up", "--since", str(days[0]), "--json"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start()
    lock, deadline = tmp_path / "wh/_bizllm/shop/locks/catch-up", time.monotonic() + 60
    while not list(lock.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    second = start()
    said, told = second.communicate(timeout=60)
    assert first.poll() is None, "the first is at work still"
    assert second.returncode == 3, told
    assert "another catch-up of this job is under way" in json.loads(said)["error"]
    done, told = first.communicate(timeout=120)
    assert first.returncode == 0, told
    assert [(e["date"], e["state"]) for e in json.loads(done)] == [(str(day), "done") for day in days]
    assert [row["run_date"] for row in reversed(api.runs(path))] == days, "each once, the oldest first"
    third = CliRunner().invoke(app, command[3:])
    assert (json.loads(third.stdout), third.exit_code) == ([], 0)
