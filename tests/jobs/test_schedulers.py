"""The examples for Airflow and Dagster, in environments of their own, on a real Ray: `make test-schedulers`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heads import VENV_BIN, Head

from bizllm import api
from bizllm.jobs.lock import RunLock

ROOT = Path(__file__).parents[2]
NIGHT = "2026-03-10"
Job = Callable[..., str]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ZONES = "America/New_York Europe/Berlin Asia/Shanghai Africa/Cairo Australia/Lord_Howe"


def python_of(name: str) -> str:
    """The interpreter of build/NAME."""
    python = ROOT / f"build/{name}/bin/python"
    if not python.exists():
        pytest.skip(f"make build/{name} makes its environment")
    return str(python)


def child(name: str, script: str, *args: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A script of tests/jobs in that environment; the last line of its output is JSON."""
    command = [python_of(name), str(Path(__file__).parent / script), *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, cwd=env["HOME"])


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """What the scheduler's environment has: bizllm's command, not its libraries."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "AIRFLOW", "DAGSTER", "PYTHON"))}
    home = tmp_path / "home"
    home.mkdir()
    command = tmp_path / "bizllm"
    path = os.environ.get("PYTHONPATH", str(ROOT))
    command.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {VENV_BIN / "bizllm"} "$@"\n')
    command.chmod(0o755)
    return kept | {"HOME": str(home), "BIZLLM": str(command), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def made(fault: str, folder: Path) -> Iterator[None]:
    """What makes a night of the shop end with status 1 (`failed`) or 3 (`held`) while the block lasts."""
    if fault == "failed":  # every row is a reject
        empty = pa.table({"ticket_id": ["a", "b"], "body": pa.array([None, None], pa.string())})
        pq.write_table(empty, folder / f"tickets/dt={NIGHT}/part-0.parquet")
    with RunLock(str(folder / f"wh/_bizllm/shop/locks/{NIGHT}"), "by hand") if fault == "held" else nullcontext():
        yield


# -- Airflow ------------------------------------------------------------------------------------------------------


@pytest.fixture
def airflow(outside: dict[str, str], head: Head) -> dict[str, str]:
    token = {name: value for name, value in head.env.items() if name.startswith("RAY_AUTH")}
    return {
        **outside,
        **token,
        "AIRFLOW_HOME": outside["HOME"],
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "cluster/airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "BIZLLM_ADDRESS": head.url,
        "BIZLLM_AGAIN_S": "1",
    }


def whole(job: Job, tmp_path: Path, **changes: Any) -> str:
    """The shop with a warehouse that outlives Ray's copy of the folder."""
    return job(
        warehouse__path=str(tmp_path / "wh"),
        steps__segments=None,
        sources__orders=None,
        runtime={"num_cpus": 1},
        **changes,
    )


def dag_run(airflow: dict[str, str], path: str, how: str = "run") -> Any:
    """The run that is due at 1:30 on the 11th in Shanghai, when it is the 10th in UTC still."""
    env = airflow | {"BIZLLM_JOB": path}
    return said(child("airflow", "airflow_child.py", how, "2026-03-11T01:30+08:00", env=env))


def test_an_airflow_run_makes_the_night_of_its_interval(job: Job, airflow: dict[str, str], tmp_path: Path) -> None:
    path = whole(job, tmp_path, timezone="Asia/Shanghai")
    told = dag_run(airflow, path)
    assert told == {"run": "success", "task": "success", "tries": 1}
    assert [(row["run_date"].isoformat(), row["state"]) for row in api.runs(path)] == [(NIGHT, "done")]


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        ("wrong", 1),  # status 2
        ("held", 4),  # status 3
        ("failed", 4),  # status 1
    ],
)
def test_airflow_tries_again_what_may_pass_and_nothing_else(
    fault: str, tries: int, job: Job, airflow: dict[str, str], tmp_path: Path
) -> None:
    path = whole(job, tmp_path, **({"steps__summary__text": "bdy"} if fault == "wrong" else {}))
    with made(fault, tmp_path):
        told = dag_run(airflow, path)
    assert told == {"run": "failed", "task": "failed", "tries": tries}


def test_airflow_stops_the_night_of_a_task_that_is_killed(
    many: Job, airflow: dict[str, str], head: Head, tmp_path: Path
) -> None:
    path = many(240, warehouse__path=str(tmp_path / "wh"))
    dag_run(airflow, path, "timeout")  # its attempts go on from each other's receipts: it may come to its end
    listed = [str(VENV_BIN / "ray"), "job", "list", "--address", head.url]
    jobs = subprocess.run(listed, env=head.env, capture_output=True, text=True).stdout
    assert "STOPPED" in jobs, jobs
    assert "RUNNING" not in jobs, jobs


def test_airflow_names_every_night_once_whatever_the_clocks_do(airflow: dict[str, str]) -> None:
    told = said(child("airflow", "airflow_child.py", "nights", *ZONES.split(), env=airflow))
    assert set(told) == set(ZONES.split())
    for zone, nights in told.items():
        assert (len(nights), nights[0], nights[-1]) == (365, "2026-01-01", "2026-12-31"), zone
        assert nights == sorted(set(nights)), zone


# -- Dagster ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dagster(outside: dict[str, str]) -> dict[str, str]:
    return {**outside, "DAGSTER_HOME": outside["HOME"], "BIZLLM_AGAIN_S": "1", "DAGSTER_DISABLE_TELEMETRY": "1"}


def test_a_dagster_partition_is_a_night(job: Job, dagster: dict[str, str], tmp_path: Path) -> None:
    path = job(timezone="Asia/Shanghai", runtime={"num_cpus": 1})
    told = said(child("dagster", "dagster_child.py", "run", NIGHT, env=dagster | {"BIZLLM_JOB": path}))
    assert told["success"] and told["attempts"] == 1
    counts = {row["step"]: row for row in api.runs(path)}
    assert set(told["assets"]) == {"shop/summary", "shop/segments"}
    for name, metadata in told["assets"].items():
        row = counts[name.removeprefix("shop/")]
        assert {n: metadata[n] for n in ("rows_in", "rows_out", "rows_rejected", "run_id")} == {
            n: row[n] for n in ("rows_in", "rows_out", "rows_rejected", "run_id")
        }
        assert metadata["dagster/row_count"] == row["records_out"]
    assert told["checks"] == {"shop/summary": True, "shop/segments": True}
    assert told["deps"] == {"shop/segments": ["shop/sources/orders"], "shop/summary": ["shop/sources/tickets"]}
    assert told["schedule"] == ["30 1 * * *", "Asia/Shanghai"]


@pytest.mark.parametrize(("fault", "attempts"), [("wrong", 1), ("failed", 4), ("held", 7)])
def test_dagster_tries_again_what_may_pass_and_nothing_else(
    fault: str, attempts: int, job: Job, dagster: dict[str, str], tmp_path: Path
) -> None:
    path = whole(job, tmp_path, **({"steps__summary__text": "bdy"} if fault == "wrong" else {}))
    with made(fault, tmp_path):
        told = said(child("dagster", "dagster_child.py", "run", NIGHT, env=dagster | {"BIZLLM_JOB": path}))
    assert (told["success"], told["attempts"]) == (False, attempts), told
