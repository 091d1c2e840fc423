"""An earlier night restored, and garbage removed: what a snapshot needs is never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bizllm import api
from bizllm.errors import LockHeld, RunError, UserError
from bizllm.jobs.garbage import collect
from bizllm.jobs.job import load_job
from bizllm.jobs.lock import RunLock
from bizllm.tables.warehouse import Warehouse

NIGHT, BEFORE = "2026-03-10", "2026-03-09"
Job = Callable[..., str]
DAYS = 24 * 3600.0


@pytest.fixture(scope="module")
def kept(
    local_ray: None, shop_in: Callable[[Path], Job], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, list[str]]:
    """(what `nights` begins from, its job, its runs): a night that ran with two settings; the second left more out."""
    live = tmp_path_factory.mktemp("nights") / "live"
    live.mkdir()
    path = shop_in(live)(steps__segments=None, sources__orders=None)
    api.run(path, date=BEFORE)
    ids = []
    for most in (2, 1):
        made = api.run(path, date=NIGHT, sets=[f"steps.summary.max_sentences={most}"])
        ids.append(made.run_id)
    shutil.copytree(live, live.with_name("kept"))
    return live, path, ids


@pytest.fixture
def nights(kept: tuple[Path, str, list[str]]) -> tuple[Path, str, list[str]]:
    """(folder, job, ids of its two runs), as if no other test had touched them. They stay where they were made, since
    Iceberg's metadata names its files by their whole path."""
    live, path, ids = kept
    shutil.rmtree(live)
    shutil.copytree(live.with_name("kept"), live)
    return live, path, ids


def rows(path: str, view: str = "summary") -> list[dict[str, Any]]:
    return api.show(path, sql=f"select * exclude (produced_at) from {view} order by all").to_pylist()


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in (folder / "wh").rglob("*") if file.is_file()}


def age(folder: Path, days: float) -> None:
    """As if everything had been written so long ago."""
    then = time.time() - days * DAYS
    for file in (folder / "wh").rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))


def test_an_earlier_night_is_restored(nights: tuple[Path, str, list[str]]) -> None:
    _, path, (first, second) = nights
    now = rows(path)
    done = api.rollback(path, "summary", to=first)
    assert (done["table"], done["run_date"], done["run_id"]) == ("shop.summary", NIGHT, first)
    assert (done["replaced"], done["rows"]) == (second, 12)
    restored = rows(path)
    of_date = [row for row in restored if str(row["run_date"]) == NIGHT]
    assert {row["run_id"] for row in of_date} == {first} and len(of_date) == 12
    assert [r for r in restored if str(r["run_date"]) == BEFORE] == [r for r in now if str(r["run_date"]) == BEFORE]
    with pytest.raises(UserError, match=f"--to.*{first}.*is what shop.summary holds for {NIGHT} already"):
        api.rollback(path, "summary", to=first)
    history = Warehouse(load_job(path).job.warehouse).history("shop", "summary")
    assert [night.run_id for night in history][:3] == [first, second, first] and len(history) == 4, "one snapshot"
    assert history[0].properties["restored_from"] == str(history[2].snapshot_id)
    rejected = Warehouse(load_job(path).job.warehouse).newest("shop", "summary__rejects", history[0].run_date)
    assert rejected is not None and rejected.run_id == first
    assert api.run(path, date=NIGHT).state == "unchanged", "its settings are the file's, its input is still there"
    assert api.rollback(path, "summary", to=second)["replaced"] == first
    assert rows(path) == now


def test_only_a_night_that_is_there_can_be_restored(nights: tuple[Path, str, list[str]]) -> None:
    folder, path, (first, _) = nights
    with pytest.raises(UserError, match=r"STEP: 'sumary': no such step; the job has summary; did you mean 'summary'\?"):
        api.rollback(path, "sumary", to=first)
    with pytest.raises(UserError, match=r"--to: 'r1': no snapshot of shop\.summary is of that run; there are "):
        api.rollback(path, "summary", to="r1")
    before = rows(path)
    lock = RunLock(str(folder / f"wh/_bizllm/shop/locks/{NIGHT}"), holder="a night")
    with lock, pytest.raises(LockHeld, match="a night"):
        api.rollback(path, "summary", to=first)
    for file in (folder / f"wh/shop/summary/data/run_date={NIGHT}").glob(f"{first}*"):
        file.unlink()
    with pytest.raises(RunError, match=rf"shop\.summary: 1 files of run {first} are gone"):
        api.rollback(path, "summary", to=first)
    assert rows(path) == before


def test_gc_removes_what_nothing_needs(nights: tuple[Path, str, list[str]]) -> None:
    folder, path, (first, _) = nights
    before, kept = rows(path), files(folder)
    data = f"wh/shop/summary/data/run_date={NIGHT}"
    orphans = {f"{data}/dead-answer-u00000-1.parquet", "wh/shop/summary/metadata/dead-m0.avro"}
    orphans.add("wh/shop/runs/data/.tmp-1")
    state = "wh/_bizllm/shop/state/2026-03-08/summary"
    given_up = {f"{state}/manifest.json", f"{state}/features/f0.parquet"}
    for name in orphans | given_up:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    assert api.gc(path)["files"] == 0, "what is young may be of a run that is under way"
    age(folder, 8)
    told = api.gc(path, dry_run=True)
    assert {str(Path(one["url"]).relative_to(folder)) for one in told["removed"]} == orphans | given_up
    assert {one["what"] for one in told["removed"]} == {"file", "state"} and told["bytes"] == 10
    assert files(folder) == kept | orphans | given_up
    done = api.gc(path)
    assert {**done, "dry_run": True, "before": told["before"]} == told
    assert files(folder) == kept and rows(path) == before
    assert api.rollback(path, "summary", to=first)["rows"] == 12, "the files of earlier snapshots are there, too"
    assert api.gc(path)["files"] == 0


def test_gc_spares_an_unfinished_run(nights: tuple[Path, str, list[str]]) -> None:
    """Its staged files are named by receipts, however old they are, as long as something of the run is young."""
    from bizllm.infer.receipts import Receipt, ReceiptBook
    from bizllm.tables.warehouse import StagedFile

    folder, path, _ = nights
    staged = folder / "wh/shop/summary/data/run_date=2026-03-08/r-answer-u0-1.parquet"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"rows")
    state = folder / "wh/_bizllm/shop/state/2026-03-08/summary"
    book = ReceiptBook(str(state), "answer")
    made = StagedFile(str(staged), 1, 4, {})
    age(folder, 8)
    book.enter(Receipt("answer", "u0", "r", files=(made,)))
    assert api.gc(path)["files"] == 0 and staged.exists()
    age(folder, 8)
    with RunLock(str(folder / "wh/_bizllm/shop/locks/2026-03-08")):
        assert api.gc(path)["files"] == 0, "a run is under way, in a unit that takes long"
    age(folder, 8)
    assert {one["what"] for one in api.gc(path)["removed"]} == {"file", "state"} and not staged.exists()


def test_gc_expires_snapshots_by_the_tables_policy(nights: tuple[Path, str, list[str]]) -> None:
    folder, path, (first, second) = nights
    table = Warehouse(load_job(path).job.warehouse).load("shop", "summary")
    assert table is not None
    with table.transaction() as tx:
        tx.set_properties({"history.expire.max-snapshot-age-ms": "1", "history.expire.min-snapshots-to-keep": "2"})
    before = rows(path)
    age(folder, 8)
    told = api.gc(path, dry_run=True)
    assert told["expired"] == {"summary": 1}, "three snapshots, two of them stay"
    done = api.gc(path)
    assert done["expired"] == {"summary": 1} and rows(path) == before
    assert {one["url"] for one in done["removed"]} == {one["url"] for one in told["removed"]}
    table.refresh()
    assert len(table.metadata.snapshots) == 2
    with table.transaction() as tx:
        tx.set_properties({"history.expire.min-snapshots-to-keep": "1"})
    age(folder, 8)
    gone = api.gc(path)
    assert [first in one["url"] for one in gone["removed"] if one["url"].endswith(".parquet")] == [True]
    assert rows(path) == before and {row["run_id"] for row in before} >= {second}
    with pytest.raises(UserError, match="no snapshot of shop"):
        api.rollback(path, "summary", to=first)


def test_gc_leaves_alone_what_it_does_not_know(nights: tuple[Path, str, list[str]]) -> None:
    """Another catalog over the same folder knows none of these tables: their files are no orphans."""
    folder, path, _ = nights
    age(folder, 8)
    kept = files(folder)
    elsewhere = [f"warehouse.uri=sqlite:///{folder}/other.db", "warehouse.catalog=sql"]
    done = api.gc(path, sets=elsewhere)
    assert done["files"] == 0 and len(done["left"]) == 3 and files(folder) == kept
    assert set(done["left"].values()) == {"holds a table that this catalog doesn't know"}


@pytest.mark.parametrize("text", ["7", "d7", "-1d", "7 d", "30m", "0h", "1.5d"])
def test_an_age_is_checked(job: Job, text: str) -> None:
    with pytest.raises(UserError, match="--older-than"):
        api.gc(job(), older_than=text)


def test_gc_in_an_object_store(job: Job, s3_endpoint: str, tmp_path: Path) -> None:
    """An upload that never ended, and an orphan, go; the table stays."""
    import boto3

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="upkeep")
    warehouse = {"path": "s3://upkeep/wh", "catalog": "sql", "uri": f"sqlite:///{tmp_path}/c.db"}
    runtime = {"num_cpus": 2, "object_store_mb": 100}
    path = job(steps__segments=None, sources__orders=None, warehouse=warehouse, runtime=runtime)
    command = [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT]
    subprocess.run(command, check=True, capture_output=True)  # a Ray of its own, which knows the endpoint
    before = rows(path)
    key = f"wh/shop/summary/data/run_date={NIGHT}/dead.parquet"
    s3.put_object(Bucket="upkeep", Key=key, Body=b"1234")
    s3.create_multipart_upload(Bucket="upkeep", Key=key)
    other = s3.create_multipart_upload(Bucket="upkeep", Key="elsewhere/x")["UploadId"]
    loaded = load_job(path)
    told = collect(loaded, timedelta(seconds=-5), dry_run=True)
    assert {(one.what, one.url, one.bytes) for one in told.removed} == {
        ("file", f"s3://upkeep/{key}", 4),
        ("upload", f"s3://upkeep/{key}", 0),
    }
    collect(loaded, timedelta(seconds=-5))
    assert [up["UploadId"] for up in s3.list_multipart_uploads(Bucket="upkeep")["Uploads"]] == [other]
    assert rows(path) == before and not collect(loaded, timedelta(seconds=-5)).removed
    assert told.before > datetime.now(UTC) - timedelta(minutes=5)
