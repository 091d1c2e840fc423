"""Catalogs that were lost, restored to an older state, or replaced, and what `recover` tells them of the tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bizllm import api
from bizllm.cli import app
from bizllm.errors import LockHeld, RunError, UserError
from bizllm.jobs.job import load_job
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.jobs.prepare import check_tables, prepare
from bizllm.tables import storage
from bizllm.tables.warehouse import StagedFile, Warehouse, describe

NIGHT, BEFORE = "2026-03-10", "2026-03-09"
SCHEMA = pa.schema([("ticket_id", pa.string()), ("run_date", pa.date32()), ("run_id", pa.string())])
Job = Callable[..., str]


@pytest.fixture
def path(job: Job) -> str:
    return job(steps__segments=None, sources__orders=None)


def publish(path: str, day: str, run: str, step: str = "summary") -> int:
    """A night of one row, without a Ray."""
    warehouse, when = Warehouse(load_job(path).job.warehouse), date.fromisoformat(day)
    url = storage.join(warehouse.table_location("shop", step), "data", f"run_date={day}", f"{run}.parquet")
    footer: list[pq.FileMetaData] = []
    with storage.open_output(url) as stream:
        rows = pa.table({"ticket_id": [run], "run_date": [when], "run_id": [run]}, schema=SCHEMA)
        pq.write_table(rows, stream, metadata_collector=footer)
        staged: StagedFile = describe(url, footer[0], stream.tell())
    return warehouse.publish("shop", step, SCHEMA, when, [staged], {"run_id": run}, lambda: None)


def published(path: str, step: str = "summary") -> list[str]:
    """Runs whose rows the catalog shows."""
    rows = Warehouse(load_job(path).job.warehouse).read("shop", step, ["run_id"])
    return sorted(rows["run_id"].to_pylist()) if rows is not None else []


def what(path: str, **options: Any) -> dict[str, str]:
    return {one["table"]: one["what"] for one in api.recover(path, **options)["tables"]}


def test_a_lost_catalog_gets_every_table_back(path: str, tmp_path: Path) -> None:
    for day, run in ((BEFORE, "r1"), (NIGHT, "r2")):
        publish(path, day, run)
        publish(path, day, run, "gone")  # a step that the job no longer has
    (tmp_path / "wh/catalog.db").unlink()
    assert published(path) == []
    assert set(what(path, dry_run=True).values()) == {"registered"} and not (tmp_path / "wh/catalog.db").exists()
    assert what(path) == {"shop.gone": "registered", "shop.summary": "registered"}
    assert published(path) == ["r1", "r2"] == published(path, "gone")
    assert set(what(path).values()) == {"current"}
    publish(path, BEFORE, "r3")
    assert published(path) == ["r2", "r3"]


def test_a_run_does_not_begin_anew_what_its_catalog_forgot(path: str, tmp_path: Path) -> None:
    publish(path, BEFORE, "r1")
    night = prepare(load_job(path), date.fromisoformat(NIGHT))
    (tmp_path / "wh/catalog.db").unlink()
    check_tables(night)  # a first night that died leaves the same: the table's first metadata file, and no more
    (tmp_path / "wh/shop/summary/metadata").rename(tmp_path / "aside")
    shutil.rmtree(tmp_path / "wh/shop")
    publish(path, BEFORE, "r1")
    publish(path, NIGHT, "r2")
    (tmp_path / "wh/catalog.db").unlink()
    with pytest.raises(UserError, match=r"shop.summary lies there, and its catalog doesn't know it.*bizllm recover"):
        api.run(path, date=NIGHT)
    assert not (tmp_path / "wh/_bizllm").exists(), "nothing was begun"
    api.recover(path)
    check_tables(prepare(load_job(path), date.fromisoformat(NIGHT)))


def test_a_catalog_from_a_backup_moves_on_to_what_was_published_since(path: str, tmp_path: Path) -> None:
    catalog, backup = tmp_path / "wh/catalog.db", tmp_path / "backup.db"
    publish(path, BEFORE, "r1")
    shutil.copy(catalog, backup)
    publish(path, NIGHT, "r2")
    shutil.copy(backup, catalog)
    assert published(path) == ["r1"]
    assert what(path, dry_run=True) == {"shop.summary": "moved"} and published(path) == ["r1"]
    assert what(path) == {"shop.summary": "moved"}
    assert published(path) == ["r1", "r2"]


def test_a_catalog_that_went_on_from_a_backup_is_left_and_lost_nights_are_named(path: str, tmp_path: Path) -> None:
    catalog, backup = tmp_path / "wh/catalog.db", tmp_path / "backup.db"
    publish(path, BEFORE, "r1")
    shutil.copy(catalog, backup)
    for run, day in (("r2", "2026-03-11"), ("r3", "2026-03-12")):
        publish(path, day, run)
    shutil.copy(backup, catalog)
    publish(path, NIGHT, "r4")  # two metadata files fewer than what lies aside, and newer
    (table,) = api.recover(path)["tables"]
    assert (table["what"], published(path)) == ("current", ["r1", "r4"])
    assert table["aside"] == [
        {"run_date": "2026-03-11", "run_id": "r2"},
        {"run_date": "2026-03-12", "run_id": "r3"},
    ]
    said = CliRunner().invoke(app, ["recover", path])
    assert "not in its history: 2026-03-12 by r3; run that date again" in said.stdout
    catalog.unlink()
    assert what(path) == {"shop.summary": "registered"} and published(path) == ["r1", "r4"]


def test_a_state_that_lacks_files_is_passed_over_and_told(path: str, tmp_path: Path) -> None:
    for day, run in ((BEFORE, "r1"), (NIGHT, "r2"), ("2026-03-11", "r3")):
        publish(path, day, run)
    metadata = sorted((tmp_path / "wh/shop/summary/metadata").glob("*.metadata.json"))
    metadata[-1].write_text(metadata[-1].read_text()[:-200])  # cut off
    (tmp_path / f"wh/shop/summary/data/run_date={NIGHT}/r2.parquet").unlink()
    (tmp_path / "wh/catalog.db").unlink()
    (table,) = api.recover(path)["tables"]
    assert published(path) == ["r1"]
    assert table["broken"][str(metadata[-1])] == "it can't be read"
    assert table["broken"][str(metadata[-2])].endswith("r2.parquet is gone")
    for lost in (tmp_path / "wh/shop/summary/data").rglob("*.parquet"):
        lost.unlink()
    (table,) = api.recover(path)["tables"]
    assert table["what"] == "left" and "restore the folder" in table["why"]


def test_a_catalog_that_names_metadata_which_is_gone_is_put_right(path: str, tmp_path: Path) -> None:
    catalog, backup = tmp_path / "wh/catalog.db", tmp_path / "backup.db"
    publish(path, BEFORE, "r1")
    shutil.copy(catalog, backup)
    publish(path, NIGHT, "r2")
    shutil.copy(backup, catalog)
    (oldest, _) = sorted((tmp_path / "wh/shop/summary/metadata").glob("*.metadata.json"))
    oldest.unlink()  # as Iceberg itself does after 100 commits
    with pytest.raises(RunError, match=r"can't load shop.summary"):
        published(path)
    assert what(path) == {"shop.summary": "moved"} and published(path) == ["r1", "r2"]


def test_another_kind_of_catalog_takes_its_place(path: str, job: Job, tmp_path: Path) -> None:
    publish(path, BEFORE, "r1")
    publish(path, NIGHT, "r2")
    job(warehouse={"path": "wh", "catalog": "sql", "uri": f"sqlite:///{tmp_path}/other.db"})
    assert published(path) == []
    assert what(path) == {"shop.summary": "registered"} and published(path) == ["r1", "r2"]


def test_not_while_a_run_is_under_way_and_not_where_nothing_lies(path: str) -> None:
    with pytest.raises(UserError, match=r"warehouse.path.*no table of the job shop lies there"):
        api.recover(path)
    publish(path, BEFORE, "r1")
    warehouse = Warehouse(load_job(path).job.warehouse)
    with RunLock(lock_url(warehouse.path, "shop", date.fromisoformat(NIGHT)), holder="tonight"):
        with pytest.raises(LockHeld, match="tonight"):
            api.recover(path)
        assert what(path, dry_run=True) == {"shop.summary": "current"}
    assert what(path) == {"shop.summary": "current"}
