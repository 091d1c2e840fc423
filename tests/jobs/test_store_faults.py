"""Whole nights through a real local Ray whose object store fails at random, for good, or refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest

from bizllm import api
from tests.fault_proxy import FaultProxy, Kind

pytestmark = pytest.mark.objectstore
NIGHT = "2026-03-10"
SURVIVED: tuple[Kind, ...] = ("slow_down", "too_many", "error_500", "reset", "stall", "truncate", "expired", "lost")
APART = {"run_id", "produced_at"}  # what two nights of the same answers differ in
Job = Callable[..., str]


@pytest.fixture(scope="module")
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="faultyshop")
    with FaultProxy(s3_endpoint, stall_s=4.0).serving() as running:
        yield running
        running.clear()


@pytest.fixture
def lake(proxy: FaultProxy, s3_endpoint: str, job: Job, tmp_path: Path) -> Callable[..., str]:
    """The shop's tickets in a bucket, 12 in units of 5; `lake(name, endpoint)`: its job with a warehouse of its own."""
    store = boto3.client("s3", endpoint_url=s3_endpoint)
    proxy.clear()
    for file in tmp_path.rglob("tickets/**/*.parquet"):
        store.upload_file(str(file), "faultyshop", f"raw/{file.relative_to(tmp_path)}")

    def written(name: str, endpoint: str, **changes: Any) -> str:
        return job(
            sources={"tickets": {"path": "s3://faultyshop/raw/tickets", "key": ["ticket_id"], "partition": "dt"}},
            steps={"summary": {"task": "summarize", "input": "tickets", "text": "body", "max_sentences": 2}},
            warehouse={"path": f"s3://faultyshop/{name}", "uri": f"sqlite:///{tmp_path}/{name}.db"},
            storage={"endpoint": endpoint, "timeout_s": 2},
            runtime={"num_cpus": 2, "object_store_mb": 200, "unit_rows": 5},
            **changes,
        )

    return written


def command(path: str) -> tuple[int, str, float]:
    """(exit status, what it said, seconds) of `bizllm run`."""
    began = time.monotonic()
    asked = [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--json"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=290, env={**os.environ, "BIZLLM_LOG": "error"})
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def answers(path: str) -> pa.Table:
    found = api.show(path, sql="select * from summary order by ticket_id")
    return found.select([name for name in found.column_names if name not in APART])


@pytest.mark.parametrize(
    ("seed", "rate"), [(1, 0.05), *(pytest.param(seed, 0.1, marks=pytest.mark.slow) for seed in range(2, 8))]
)
def test_a_night_over_a_store_that_fails_now_and_then(
    proxy: FaultProxy, lake: Callable[..., str], job: Job, local_ray: None, seed: int, rate: float
) -> None:
    quiet = job(steps__segments=None, sources__orders=None, runtime={"unit_rows": 5})  # the same files on local disk
    assert api.run(quiet, date=NIGHT).state == "done"
    expected = answers(quiet)
    disturbed = lake(f"disturbed{seed}", proxy.endpoint)
    proxy.fail_some(rate, seed, SURVIVED)
    status, said, _ = command(disturbed)
    failed = sum(proxy.failed.values())
    proxy.clear()
    assert status == 0, said
    assert failed >= 5, "the store did fail"
    result = json.loads(said[said.index("{") :])
    (step,) = result["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"], step["rows_rejected"]) == ("done", 12, 12, 0)
    assert answers(disturbed).equals(expected)
    assert [row["state"] for row in api.runs(disturbed)] == ["done"]


def test_denied_writes_end_the_night_at_once(proxy: FaultProxy, lake: Callable[..., str]) -> None:
    path = lake("denied", proxy.endpoint)
    proxy.fail("denied", "PUT|POST", "/denied/shop/summary/data/", times=0)
    status, said, _ = command(path)
    assert status == 1
    assert "bucket 'faultyshop': access denied" in said and "s3:PutObject" in said
    assert proxy.failed["denied"] <= 3 * 2, "each unit once, and the end of its upload"
    proxy.clear()
    proxy.fail("denied", "PUT", "/denied/_bizllm", times=0)
    status, said, seconds = command(path)
    assert status == 2 and "warehouse.path" in said and "s3:PutObject" in said
    assert seconds < 30 and proxy.failed == {"denied": 1}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["reset", "slow_down", "stall"])
def test_an_outage_for_good_ends_in_bounded_time(proxy: FaultProxy, lake: Callable[..., str], kind: Kind) -> None:
    """From the first read of a source's rows on nothing is answered any more."""
    path = lake(f"outage_{kind.replace('_', '')}", proxy.endpoint)
    proxy.fail(kind, ".*", "", nth=25, times=0)
    status, said, seconds = command(path)
    assert status == 1, said
    assert "bucket 'faultyshop'" in said and "Traceback" not in said
    assert seconds < 280
    proxy.clear()
    status, said, _ = command(path)
    assert status == 0, said
