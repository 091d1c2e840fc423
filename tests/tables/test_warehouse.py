"""Publishing into real Iceberg tables (SQLite catalog, local Parquet); DuckDB reads what was published."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bizllm.errors import RunError, UserError
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Warehouse
from tests.tables.nights import D1, D2, D3, SCHEMA, by_duckdb, opened, publish

PUBLISH_THREE = """
import sys
from datetime import date
import pyarrow as pa
import pyarrow.parquet as pq
from bizllm.tables import storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Warehouse, describe
warehouse = Warehouse(WarehouseSettings(path=sys.argv[1]))
for day in sys.argv[2:]:
    rows = pa.table({"value": [int(day)], "run_date": [date(2024, 5, int(day))]})
    url, footer = storage.join(warehouse.table_location("shop", "sales"), day + ".parquet"), []
    with storage.open_output(url) as stream:
        pq.write_table(rows, stream, metadata_collector=footer)
        file = describe(url, footer[0], stream.tell())
    if day == sys.argv[2]:
        print("ready", flush=True)
        sys.stdin.readline()
    warehouse.publish("shop", "sales", rows.schema, date(2024, 5, int(day)), [file], {"run_id": day}, lambda: None)
"""


def test_first_run_rerun_and_empty_rerun_are_one_snapshot_each(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1, "b": 2}, "r1")
    publish(warehouse, D2, {"a": 3}, "r2")
    assert by_duckdb(warehouse.files("shop", "sales", D1)) == [("a", 1), ("b", 2)]
    publish(warehouse, D1, {"c": 9}, "r3")
    assert by_duckdb(warehouse.files("shop", "sales", D1)) == [("c", 9)]
    publish(warehouse, D1, {}, "r4")
    assert warehouse.files("shop", "sales", D1).files == []
    assert by_duckdb(warehouse.files("shop", "sales", D2)) == [("a", 3)]
    history = warehouse.history("shop", "sales")
    assert [(night.run_id, night.run_date, night.rows) for night in history] == [
        ("r4", D1, 0),
        ("r3", D1, 1),
        ("r2", D2, 1),
        ("r1", D1, 2),
    ]
    table = warehouse.catalog.load_table("shop.sales")
    assert len(table.metadata.snapshots) == 4
    assert table.metadata.format_version == 2
    assert table.location() == warehouse.table_location("shop", "sales")


def test_a_rerun_finds_its_files_whatever_other_threads_look_at(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyIceberg looks through manifests with several threads; here each takes its time over one."""
    from pyiceberg.expressions import visitors

    visit = visitors.visit

    def slowly(expression: Any, visitor: Any) -> Any:
        if isinstance(visitor, visitors._ManifestEvalVisitor):
            time.sleep(0.02)
        return visit(expression, visitor)

    days = [D1 + timedelta(days=back) for back in range(6)]
    for number, day in enumerate(days):
        publish(warehouse, day, {"a": number}, f"r{number}")
    monkeypatch.setattr(visitors, "visit", slowly)
    for number in (2, 4, 0, 5, 1, 3):
        publish(warehouse, days[number], {"b": number}, f"again{number}")
    assert [by_duckdb(warehouse.files("shop", "sales", day)) for day in days] == [[("b", n)] for n in range(6)]


def test_what_was_published_is_told(warehouse: Warehouse) -> None:
    snapshot_id = publish(warehouse, D1, {"a": 1}, "r1")
    publish(warehouse, D2, {"a": 1}, "r2")
    night = warehouse.newest("shop", "sales", D1)
    assert night is not None and night.snapshot_id == snapshot_id
    assert (night.run_id, night.run_date, night.properties["fingerprint"]) == ("r1", D1, "fr1")
    assert abs(datetime.now(UTC) - night.committed_at) < timedelta(minutes=5)
    assert night.schema == SCHEMA
    assert Path(night.metadata_location).exists()
    assert warehouse.newest("shop", "sales", D3) is None
    assert warehouse.newest("shop", "costs", D1) is None
    assert warehouse.tables("shop") == ["sales"] and warehouse.tables("other") == []


def test_newest_before_skips_empty_and_later_nights(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1}, "r1")
    publish(warehouse, D3, {"a": 3}, "r3")
    publish(warehouse, D2, {"a": 2}, "r2")
    publish(warehouse, D2, {}, "r4")
    publish(warehouse, D1, {"a": 5}, "r5")
    night = warehouse.newest_before("shop", "sales", D3)
    assert night is not None and (night.run_date, night.run_id) == (D1, "r5")
    assert warehouse.newest_before("shop", "sales", D1) is None


def test_looking_leaves_nothing_behind(warehouse: Warehouse, tmp_path: Path) -> None:
    assert warehouse.newest("shop", "sales", D1) is None
    assert warehouse.history("shop", "sales") == [] and warehouse.tables("shop") == []
    assert warehouse.read("shop", "runs") is None
    with pytest.raises(RunError, match=r"no table shop.sales"):
        warehouse.files("shop", "sales", D1)
    assert list(tmp_path.iterdir()) == []


def test_time_travel_by_run(warehouse: Warehouse) -> None:
    first = publish(warehouse, D1, {"a": 1}, "r1")
    publish(warehouse, D1, {"a": 2, "b": 3}, "r2")
    assert by_duckdb(warehouse.files("shop", "sales", D1, first)) == [("a", 1)]
    rows = warehouse.read("shop", "sales", ["value", "key"], where={"run_id": "r1"}, snapshot_id=first)
    assert rows is not None and rows.to_pydict() == {"value": [1], "key": ["a"]}


def test_predicate_on_the_date_opens_one_nights_files(warehouse: Warehouse) -> None:
    for day in (D1, D2, D3):
        publish(warehouse, day, {"a": day.day}, f"r{day.day}")
    for day in (D1, D3):
        for file in warehouse.files("shop", "sales", day).files:
            os.unlink(file.url)  # a read that opens another night fails
    rows = warehouse.read("shop", "sales", where={"run_date": D2})
    assert rows is not None and rows["value"].to_pylist() == [2]


def test_failed_first_night_leaves_no_table(warehouse: Warehouse) -> None:
    def fail() -> None:
        raise RunError("lost the lock")

    with pytest.raises(RunError, match=r"lost the lock"):
        publish(warehouse, D1, {"a": 1}, "r1", check=fail)
    assert warehouse.tables("shop") == [] and warehouse.newest("shop", "sales", D1) is None
    publish(warehouse, D1, {"a": 1}, "r2")
    assert by_duckdb(warehouse.files("shop", "sales", D1)) == [("a", 1)]


@pytest.mark.parametrize("existing", [False, True])
def test_same_date_conflict_raises_and_leaves_the_other_run(warehouse: Warehouse, existing: bool) -> None:
    if existing:
        publish(warehouse, D1, {"a": 0}, "r0")
    other = opened(warehouse.settings.path)
    calls = []

    def interfere() -> None:
        calls.append(1)
        publish(other, D1, {"a": 7}, "r7")

    with pytest.raises(RunError, match=r"2024-01-01 was published by another run"):
        publish(warehouse, D1, {"a": 1}, "r1", check=interfere)
    assert len(calls) == 1  # not retried
    assert by_duckdb(warehouse.files("shop", "sales", D1)) == [("a", 7)]


@pytest.mark.parametrize("existing", [False, True])
def test_commit_of_another_date_meanwhile_is_no_conflict(warehouse: Warehouse, existing: bool) -> None:
    if existing:
        publish(warehouse, D3, {"a": 0}, "r0")
    other = opened(warehouse.settings.path)
    calls = []

    def interfere() -> None:
        calls.append(1)
        if len(calls) == 1:
            publish(other, D2, {"b": 2}, "r2")

    publish(warehouse, D1, {"a": 1}, "r1", check=interfere)
    assert len(calls) == 2  # the epoch is checked before each attempt
    assert by_duckdb(warehouse.files("shop", "sales", D1)) == [("a", 1)]
    assert by_duckdb(warehouse.files("shop", "sales", D2)) == [("b", 2)]
    assert [night.run_id for night in warehouse.history("shop", "sales")][:2] == ["r1", "r2"]


def test_two_processes_publish_other_dates_at_once(warehouse: Warehouse) -> None:
    command = [sys.executable, "-c", PUBLISH_THREE, warehouse.settings.path]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, *days], **pipes) for days in (("1", "2", "3"), ("4", "5", "6"))]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    rows = warehouse.read("shop", "sales")
    assert rows is not None and sorted(rows["value"].to_pylist()) == [1, 2, 3, 4, 5, 6]
    assert len(warehouse.history("shop", "sales")) == 6


def test_namespace_made_by_another_meanwhile_is_no_conflict(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.catalog.create_namespace("shop")
    there = warehouse.catalog.namespace_exists
    answers = [False]  # as it was when this publish looked, right before the other one
    monkeypatch.setattr(warehouse.catalog, "namespace_exists", lambda name: answers.pop() if answers else there(name))
    publish(warehouse, D1, {"a": 1}, "r1")
    assert answers == []
    assert by_duckdb(warehouse.files("shop", "sales", D1)) == [("a", 1)]


def test_locked_catalog_is_waited_for(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bizllm.tables.catalog.SQLITE_BUSY_S", 0.05)
    monkeypatch.setattr("bizllm.tables.warehouse._ATTEMPTS", 3)
    publish(warehouse, D1, {"a": 1}, "r1")
    holder = sqlite3.connect(Path(warehouse.settings.path) / "catalog.db", isolation_level=None)
    holder.execute("begin immediate")
    releases = []

    def release_on_second() -> None:
        releases.append(1)
        if len(releases) == 2:
            holder.execute("rollback")

    publish(warehouse, D2, {"a": 2}, "r2", check=release_on_second)
    assert len(releases) == 2
    holder.execute("begin immediate")
    with pytest.raises(RunError, match=r"no commit in 3 attempts.*locked"):
        publish(warehouse, D3, {"a": 3}, "r3")
    holder.close()
    assert [night.run_id for night in warehouse.history("shop", "sales")] == ["r2", "r1"]


def test_commit_whose_answer_was_lost_is_not_repeated(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.exceptions import CommitStateUnknownException

    publish(warehouse, D1, {"a": 1}, "r1")
    commit = warehouse.catalog.commit_table

    def lose_the_answer(*given: Any) -> Any:
        commit(*given)
        raise CommitStateUnknownException("gateway timeout")

    monkeypatch.setattr(warehouse.catalog, "commit_table", lose_the_answer)
    snapshot_id = publish(warehouse, D2, {"a": 2}, "r2")
    night = warehouse.newest("shop", "sales", D2)
    assert night is not None and night.snapshot_id == snapshot_id
    assert len(warehouse.history("shop", "sales")) == 2


# -- what people get wrong ----------------------------------------------------------------------------------------


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # not a mode, which root would not feel
    with pytest.raises(UserError, match=r"warehouse.path: .*can't write there"):
        opened(tmp_path / "file" / "wh").check_writable()
    with pytest.raises(UserError, match=r"warehouse.path: .*can't open catalog.db there"):
        _ = opened(tmp_path / "file" / "wh").catalog


def test_catalog_that_does_not_answer(tmp_path: Path) -> None:
    settings = WarehouseSettings(path=str(tmp_path), catalog="rest", uri="http://me:secret@127.0.0.1:9/api")
    with pytest.raises(UserError, match=r"warehouse.uri: .*does not answer.*ConnectionError") as fault:
        Warehouse(settings).newest("shop", "sales", D1)
    assert "secret" not in str(fault.value)
    with pytest.raises(UserError, match=r"warehouse.uri: expected the address of the rest catalog"):
        Warehouse(WarehouseSettings(path=str(tmp_path), catalog="rest")).tables("shop")


def test_travels_to_workers_and_imports_in_no_time(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1}, "r1")
    assert len(pickle.loads(pickle.dumps(warehouse)).history("shop", "sales")) == 1
    code = "import sys, bizllm.tables.warehouse; sys.exit('pyiceberg' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
