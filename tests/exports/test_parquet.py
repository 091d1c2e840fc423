"""Published nights copied into Parquet files: in a folder, and on S3 in one upload of parts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import duckdb
import pyarrow as pa
import pytest

from bizllm import api
from bizllm.errors import RunError
from bizllm.exports.base import TableName, system
from bizllm.tables.urls import split
from tests.published import D1, D2, Shop


def test_parquet(published: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    for _ in range(2):
        api.export(published.path, "summary", to="parquet", target=str(folder), every=True)
    nights = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert nights == [f"shop/summary/run_date={day}/night.parquet" for day in (D1, D2)]
    found = duckdb.sql(f"select ticket_id, summary from '{folder}/shop/summary/*/*.parquet' order by run_date, 1")
    assert found.fetchall()[2:] == [("t1", "Uno"), ("t3", None), ("t4", "")]
    schema = pa.parquet.read_schema(folder / nights[0])
    assert schema.field("input_tokens").type == pa.int32() and schema.field("produced_at").type == pa.timestamp(
        "us", "UTC"
    )
    broken = pa.RecordBatchReader.from_batches(schema, iter(_raising()))
    with system("parquet").connect(str(folder), TableName("shop", "summary"), []) as receiver, pytest.raises(RunError):
        receiver.replace(D1, broken)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == nights


def _raising() -> Any:
    yield from ()
    raise RunError("the source failed")


def test_parquet_on_s3(published: Shop, s3_endpoint: str) -> None:
    store = boto3.client("s3")
    store.create_bucket(Bucket="marts")
    api.export(published.path, "summary", to="parquet", target="s3://marts/copies/", every=True)
    api.export(published.path, "summary", to="parquet", target="s3://marts/copies/")
    keys = [found["Key"] for found in store.list_objects_v2(Bucket="marts")["Contents"]]
    assert keys == [f"copies/shop/summary/run_date={day}/night.parquet" for day in (D1, D2)]


def big(seed: int, fail: Callable[[], None] = lambda: None) -> pa.RecordBatchReader:
    """12 MiB that don't compress, and then `fail`."""
    noise = random.Random(seed)
    batches = [pa.record_batch({"n": [part], "noise": [noise.randbytes(1 << 20)]}) for part in range(12)]

    def read() -> Iterator[pa.RecordBatch]:
        yield from batches
        fail()

    return pa.RecordBatchReader.from_batches(batches[0].schema, read())


@pytest.fixture
def parts(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder in a bucket of its own, where a night of 12 MiB takes three parts: S3 wants 5 MiB at least."""
    monkeypatch.setattr("bizllm.tables.s3_upload.PART_BYTES", 5 << 20)
    bucket = f"parts-{uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/marts"


@pytest.mark.objectstore
def test_a_night_of_any_size_is_put_on_s3_at_once(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (bucket, key) = boto3.client("s3"), split(f"{parts}/shop/big/run_date={D1}/night.parquet")

    def held() -> pa.Table:
        (one,) = store.list_objects_v2(Bucket=bucket)["Contents"]
        assert (one["Key"], one["ETag"].strip('"').partition("-")[2]) == (key, "3"), "in three parts"
        return pa.parquet.read_table(pa.BufferReader(store.get_object(Bucket=bucket, Key=key)["Body"].read()))

    def unseen() -> None:
        assert len(store.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1, "parts are there"
        assert "Contents" not in store.list_objects_v2(Bucket=bucket)

    def broken() -> None:
        raise RunError("the source failed")

    with system("parquet").connect(parts, TableName("shop", "big"), []) as receiver:
        assert receiver.replace(D1, big(1, unseen)) == 12
        assert held() == big(1).read_all()
        receiver.replace(D1, big(2))
        with pytest.raises(RunError, match="the source failed"):
            receiver.replace(D1, big(3, broken))
        assert held() == big(2).read_all()
    assert "Uploads" not in store.list_multipart_uploads(Bucket=bucket), "what failed is not kept"


KILLED = """
import os, signal, sys
from datetime import date
import pyarrow as pa
from bizllm.exports.base import TableName, system
from bizllm.tables import s3_upload

def read():
    yield from [pa.record_batch({"noise": [os.urandom(1 << 20)]})] * 12
    os.kill(os.getpid(), signal.SIGKILL)

s3_upload.PART_BYTES = 5 << 20
with system("parquet").connect(sys.argv[1], TableName("shop", "big"), []) as receiver:
    receiver.replace(date(2026, 6, 29), pa.RecordBatchReader.from_batches(pa.schema({"noise": pa.binary()}), read()))
"""


@pytest.mark.objectstore
def test_a_killed_export_is_never_seen_and_swept_by_a_later_one(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, bucket = boto3.client("s3"), split(parts)[0]

    def uploads() -> int:
        return len(store.list_multipart_uploads(Bucket=bucket).get("Uploads", []))

    def replaced() -> None:
        with system("parquet").connect(parts, TableName("shop", "big"), []) as receiver:
            receiver.replace(D2, big(4))

    done = subprocess.run([sys.executable, "-c", KILLED, parts], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert "Contents" not in store.list_objects_v2(Bucket=bucket) and uploads() == 1
    monkeypatch.setattr("bizllm.exports.parquet.LEFT_AFTER_S", 1e9)  # moto dates every upload to 2010
    replaced()
    assert uploads() == 1, "too young: it may live"
    monkeypatch.setattr("bizllm.exports.parquet.LEFT_AFTER_S", -60.0)
    replaced()
    assert uploads() == 0


def test_files_of_killed_exports_are_swept_after_a_day(published: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "shop" / "summary"
    folder.mkdir(parents=True)
    old, young, other = folder / f"_{uuid4().hex}.tmp", folder / f"_{uuid4().hex}.tmp", folder / "_notes.tmp"
    for file in (old, young, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (time.time() - 25 * 3600,) * 2)
    api.export(published.path, "summary", to="parquet", target=str(tmp_path))
    assert {path.name for path in folder.iterdir()} == {young.name, "_notes.tmp", f"run_date={D2}"}
