"""A night whose sources and tables lie in an object store, run by the command line as a scheduler would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from bizllm import api

pytestmark = pytest.mark.objectstore
NIGHT = "2026-03-10"
Job = Callable[..., str]


@pytest.fixture
def lake(s3_endpoint: str, job: Job, tmp_path: Path) -> str:
    """The shop's job with its files in a bucket, and nothing but the catalog on disk."""
    store = boto3.client("s3")
    store.create_bucket(Bucket="shop")
    orders = tmp_path / "orders/part-0.parquet"
    few = pq.read_table(orders, filters=[("customer_id", "in", [f"c{i}" for i in range(9)])])
    pq.write_table(few, orders)  # a dozen units instead of sixty
    for file in tmp_path.rglob("*.parquet"):
        store.upload_file(str(file), "shop", f"raw/{file.relative_to(tmp_path)}")
        file.unlink()
    return job(
        sources__tickets__path="s3://shop/raw/tickets",
        sources__orders__path="s3://shop/raw/orders",
        warehouse={"path": "s3://shop/wh", "catalog": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"},
        runtime={"num_cpus": 2, "object_store_mb": 200, "unit_rows": 5},
    )


def command(path: str, *more: str) -> dict[str, Any]:
    """`bizllm run --json` in a process of its own, so that Ray's workers get the store's address and keys."""
    asked = [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--json", *more]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def objects(prefix: str) -> dict[str, str]:
    """Key → etag of the bucket's objects."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="shop", Prefix=prefix)
    return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}


def test_a_night_in_an_object_store(lake: str, tmp_path: Path) -> None:
    raw = objects("raw/")
    first = command(lake)
    assert {step["step"]: step["state"] for step in first["steps"]} == {"summary": "done", "segments": "done"}

    found = api.show(lake, sql="select * from summary order by ticket_id").to_pylist()
    assert {row["ticket_id"] for row in found} == {f"{NIGHT}-{i}" for i in range(12)}
    assert {row["run_id"] for row in found} == {first["run_id"]} and all(row["summary"] for row in found)
    (count,) = api.show(lake, sql="select count(distinct customer_id) n from segments").to_pylist()
    assert count["n"] == 9
    assert api.show(lake, "summary", limit=3).num_rows == 3
    assert [row["state"] for row in api.runs(lake)] == ["done", "done"]
    assert first["report"] == api.report(lake) and first["report"].startswith("s3://shop/wh/_bizllm/shop/runs/")

    second = command(lake)
    assert second["state"] == "unchanged" and {step["state"] for step in second["steps"]} == {"unchanged"}
    assert api.show(lake, sql="select distinct run_id from summary").to_pylist() == [{"run_id": first["run_id"]}]

    keys = objects("wh/")
    assert not [key for key in keys if "/state/" in key], "a finished step leaves no scratch objects"
    assert any(key.startswith("wh/shop/summary/data/run_date=2026-03-10/") for key in keys)
    assert objects("raw/") == raw, "a source is never written"
    assert not list(tmp_path.rglob("*.parquet")), "no row was written to local disk"


def test_plan_tells_of_paths_that_other_nodes_do_not_have(
    job: Job, lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = "ray://head:10001"
    monkeypatch.setenv("RAY_ADDRESS", cluster)  # where a run would go; the flag would have it looked at, too
    assert api.plan(lake, date=NIGHT).warnings == []
    boto3.client("s3").download_file("shop", "raw/orders/part-0.parquet", str(tmp_path / "orders/part-0.parquet"))
    (tmp_path / f"tickets/dt={NIGHT}").mkdir(exist_ok=True)
    boto3.client("s3").download_file(
        "shop", f"raw/tickets/dt={NIGHT}/part-0.parquet", str(tmp_path / f"tickets/dt={NIGHT}/part-0.parquet")
    )
    assert pq.read_metadata(tmp_path / "orders/part-0.parquet").num_rows > 0
    local = job(sources__orders__path="orders", warehouse={"path": "wh"})
    told = api.plan(local, date=NIGHT).warnings
    assert [warning.split(": ")[0].split(" ")[1] for warning in told] == ["sources.orders.path", "warehouse.path"]
    assert all("local path" in warning and cluster in warning for warning in told)
    monkeypatch.delenv("RAY_ADDRESS")
    assert api.plan(local, date=NIGHT).warnings == []
