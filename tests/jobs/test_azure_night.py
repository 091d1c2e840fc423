"""A night whose source and warehouse lie in Azure's blob service, as Azurite emulates it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bizllm import api
from bizllm.tables import storage

NIGHT = "2026-03-10"

pytestmark = pytest.mark.azurite


def test_a_night_on_abfs(azurite: str, job: Callable[..., str], tmp_path: Path) -> None:
    for file in tmp_path.rglob("*.parquet"):
        storage.write_bytes(f"{azurite}/raw/{file.relative_to(tmp_path)}", file.read_bytes())
        file.unlink()
    path = job(
        sources__tickets__path=f"{azurite}/raw/tickets",
        sources__orders__path=f"{azurite}/raw/orders",
        warehouse={"path": f"{azurite}/wh", "uri": f"sqlite:///{tmp_path}/catalog.db"},
        storage={"azure_account": "devstoreaccount1", "azure_endpoint": os.environ["BIZLLM_AZURE_ENDPOINT"]},
        runtime={"num_cpus": 2, "object_store_mb": 200, "unit_rows": 5},
    )
    asked = [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--json"]
    for state in ("done", "unchanged"):
        done = subprocess.run(asked, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {step["state"] for step in json.loads(done.stdout)["steps"]} == {state}
    found = api.show(path, sql="select * from summary order by ticket_id").to_pylist()
    assert {row["ticket_id"] for row in found} == {f"{NIGHT}-{i}" for i in range(12)}
    (count,) = api.show(path, sql="select count(distinct customer_id) n from segments").to_pylist()
    assert count["n"] == 40
    assert not [file.url for file in storage.list_files(f"{azurite}/wh") if "/state/" in file.url]
    assert not list(tmp_path.rglob("*.parquet")), "no row was written to local disk"
