"""The warehouse and the run lock on an object store (moto's server), with the catalog on local disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import LockHeld, RunError, UserError
from bizllm.jobs import lock as lock_module
from bizllm.jobs.lock import RunLock
from bizllm.tables import storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import StagedFile, Warehouse, describe, read_scan_files

pytestmark = pytest.mark.objectstore
DAY = date(2024, 1, 2)
ROWS = pa.table({"key": ["a", "小"], "value": [1.5, 2.5], "run_date": [DAY, DAY]})


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> str:
    boto3.client("s3").create_bucket(Bucket="lake")
    return "s3://lake"


def staged(warehouse: Warehouse, name: str) -> StagedFile:
    url = storage.join(warehouse.table_location("shop", "sales"), "data", f"run_date={DAY}", f"{name}.parquet")
    footer: list[pq.FileMetaData] = []
    with storage.open_output(url) as stream:
        pq.write_table(ROWS, stream, metadata_collector=footer)
        size = stream.tell()
    return describe(url, footer[0], size)


def test_publish_and_read_on_s3(bucket: str, tmp_path: Path) -> None:
    warehouse = Warehouse(WarehouseSettings(path=f"{bucket}/wh", uri=f"sqlite:///{tmp_path}/catalog.db"))
    warehouse.check_writable()
    assert storage.list_files(f"{bucket}/wh") == []
    with RunLock(f"{bucket}/wh/_bizllm/shop/locks/{DAY}.json", "r1") as lock:
        for run in ("r1", "r2"):
            file = staged(warehouse, run)
            warehouse.publish("shop", "sales", ROWS.schema, DAY, [file], {"run_id": run}, lock.check)
    found = warehouse.read("shop", "sales", ["key", "value", "run_date"])
    assert found is not None and found.equals(ROWS.cast(found.schema))
    [live] = warehouse.files("shop", "sales", DAY).files
    assert live.url.startswith(f"{bucket}/wh/shop/sales/data/run_date=2024-01-02/r2")
    scan = warehouse.freeze_scan("shop.sales", DAY, "run_date", "day")
    assert scan.snapshot_id is not None and scan.metadata_location.startswith("s3://")
    answer = read_scan_files(scan.metadata_location, scan.snapshot_id, [live.url], ["value"])
    assert answer.to_pydict() == {"value": [1.5, 2.5]}


def test_missing_bucket_is_the_users_fault(s3_endpoint: str, tmp_path: Path) -> None:
    warehouse = Warehouse(WarehouseSettings(path="s3://nowhere/wh", uri=f"{tmp_path}/catalog.db"))
    with pytest.raises(UserError, match=r"warehouse.path: 's3://nowhere/wh'.*no bucket 'nowhere'"):
        warehouse.check_writable()


def test_sqlite_catalog_cannot_live_in_a_bucket() -> None:
    with pytest.raises(UserError, match=r"can't live in s3://lake/wh.*rest"):
        Warehouse(WarehouseSettings(path="s3://lake/wh")).newest("shop", "sales", DAY)


def test_lock_on_s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{bucket}/locks/d.json"
    with RunLock(url, "first", lease_s=60) as first:
        first.check()
        with pytest.raises(LockHeld, match=r"first"):
            RunLock(url, "second").__enter__()
    dead = RunLock(url, "dead", lease_s=0.6).__enter__()
    dead._stop.set()  # its process stands still: no more beats
    monkeypatch.setattr(lock_module, "_machine", lambda: "elsewhere")

    locks = [RunLock(url, f"r{number}", lease_s=30) for number in range(4)]

    def attempt(lock: RunLock) -> int:
        try:
            return lock.__enter__().epoch
        except LockHeld:
            return 0

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, locks)) == [0, 0, 0, 3]
    with pytest.raises(RunError, match=r"taken over"):
        dead.check()
    for lock in (dead, *locks):
        lock.__exit__(None, None, None)
