"""The nightly script as a Ray job: submitted to a real head that asks for a token."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from heads import Head

from bizllm import api

NIGHT = "2026-03-10"
ROOT = Path(__file__).parents[2]
Job = Callable[..., str]


@pytest.fixture
def shop(job: Job, tmp_path: Path) -> Path:
    """A folder to submit: the job, its data and the script; the package itself is installed on the cluster."""
    folder = tmp_path / "upload"
    folder.mkdir()
    job(steps__segments=None, sources__orders=None)
    shutil.copy(ROOT / "jobs" / "nightly.py", folder)
    shutil.move(tmp_path / "tickets", folder)
    shutil.move(tmp_path / "shop.yaml", folder)
    return folder


def test_a_warehouse_in_the_jobs_own_copy_is_refused(head: Head) -> None:
    """The whole project as working folder, and the demo, whose warehouse is beside it by default."""
    status, said = head.submit(
        ROOT, "python", "jobs/nightly.py", "--job", "jobs/demo.yaml", "--date", "2026-06-30", "--only", "ticket_summary"
    )
    assert status != 0 and "exit code 2" in said, said
    assert "warehouse.path: " in said and "working folder, which Ray deletes when the job ends" in said
    assert "Traceback (most recent call last)" not in said


def test_a_night_as_a_ray_job(head: Head, shop: Path, tmp_path: Path) -> None:
    script = ["python", "nightly.py", "--job", "shop.yaml", "--date", NIGHT]
    warehouse = f"warehouse.path={tmp_path / 'wh'}"
    status, said = head.submit(shop, *script, "--set", warehouse)
    assert status == 0 and "succeeded" in said.lower(), said
    path = str(shop / "shop.yaml")
    (count,) = api.show(path, sql="select count(*) n, count(summary) s from summary", sets=[warehouse]).to_pylist()
    assert count == {"n": 12, "s": 12}
    assert [row["state"] for row in api.runs(path, sets=[warehouse])] == ["done"]


def test_a_night_from_elsewhere(head: Head, job: Job) -> None:
    """The driver is a Ray client; more units than go through plain Ray on the cluster itself."""
    path = job(steps__summary=None, sources__tickets=None, runtime={"unit_rows": 2})
    done = subprocess.run(
        [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--address", head.client, "--json"],
        env=head.env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"]) == ("done", 40, 40)


@pytest.mark.slow
def test_workers_elsewhere_are_told_of_the_store(head: Head, job: Job, s3_endpoint: str, tmp_path: Path) -> None:
    """Neither the cluster nor the driver has more than keys: what the file says of the store must reach both."""
    import boto3

    store = boto3.client("s3", endpoint_url=s3_endpoint)
    store.create_bucket(Bucket="elsewhere")
    store.upload_file(str(tmp_path / "orders/part-0.parquet"), "elsewhere", "orders/part-0.parquet")
    path = job(
        steps__summary=None,
        sources={"orders": {"path": "s3://elsewhere/orders", "key": ["order_id"]}},
        warehouse={"path": "s3://elsewhere/wh", "uri": f"sqlite:///{tmp_path}/catalog.db"},
        storage={"endpoint": s3_endpoint, "region": "us-east-1"},
    )
    done = subprocess.run(
        [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--address", head.client, "--json"],
        env=head.env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"]) == ("done", 40, 40)


def test_a_client_without_the_token_is_refused(head: Head, shop: Path) -> None:
    bare = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    status, said = head.submit(shop, "python", "-c", "print('ran')", env=bare | {"RAY_AUTH_MODE": "disabled"})
    assert status != 0 and "ran\n" not in said
    assert "token" in said.lower(), said
