"""Publishing into real Iceberg tables (SQLite catalog, local Parquet); DuckDB reads what was published."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import RunError, UserError
from bizllm.tables import storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Slice, StagedFile, Warehouse, describe, read_scan_files

D1, D2, D3 = date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)
SCHEMA = pa.schema([("key", pa.string()), ("value", pa.int32()), ("run_date", pa.date32()), ("run_id", pa.string())])

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


def opened(folder: Path | str) -> Warehouse:
    return Warehouse(WarehouseSettings(path=str(folder)))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return opened(tmp_path / "数据 warehouse")


def stage(warehouse: Warehouse, rows: pa.Table, run_date: date, name: str, **options: Any) -> StagedFile:
    url = storage.join(warehouse.table_location("shop", "sales"), "data", f"run_date={run_date}", f"{name}.parquet")
    footer: list[pq.FileMetaData] = []
    with storage.open_output(url) as stream:
        pq.write_table(rows, stream, metadata_collector=footer, **options)
        size = stream.tell()
    return describe(url, footer[0], size)


def rows_of(values: dict[str, Any], run_date: date, run_id: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    columns = {"key": list(values), "value": list(values.values())}
    columns |= {"run_date": [run_date] * len(values), "run_id": [run_id] * len(values)}
    return pa.table({name: columns.get(name, [None] * len(values)) for name in schema.names}, schema=schema)


def publish(
    warehouse: Warehouse,
    run_date: date,
    values: dict[str, Any],
    run_id: str,
    schema: pa.Schema = SCHEMA,
    check: Any = lambda: None,
) -> int:
    rows = rows_of(values, run_date, run_id, schema)
    files = [stage(warehouse, rows, run_date, f"{run_id}-00000-1")] if values else []
    properties = {"run_id": run_id, "fingerprint": "f" + run_id}
    return warehouse.publish("shop", "sales", schema, run_date, files, properties, check)


def by_duckdb(slice_: Slice, columns: str = "key, value") -> list[tuple[Any, ...]]:
    """The slice as a reader sees it that knows nothing of PyIceberg."""
    assert slice_.plain
    urls = [file.url for file in slice_.files]
    query = f"select {columns} from read_parquet($urls, union_by_name = true, hive_partitioning = false) order by all"
    return duckdb.execute(query, {"urls": urls}).fetchall() if urls else []


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


# -- statistics ---------------------------------------------------------------------------------------------------


def test_statistics_equal_what_pyiceberg_reads_from_the_footer(warehouse: Warehouse) -> None:
    from pyiceberg.io.pyarrow import parquet_files_to_data_files

    n = 1000
    rows = pa.table(
        {
            "text": ["一段很长的中文文本，超过十六个字符的那种" + str(i) for i in range(n)],
            "bytes": [b"\xff" * 20] * n,
            "small": pa.array([None if i % 7 == 0 else i for i in range(n)], pa.int32()),
            "big": pa.array(range(n), pa.int64()),
            "real": pa.array([float("nan") if i % 5 == 0 else i / 3 for i in range(n)], pa.float64()),
            "money": pa.array([Decimal(i) / 100 for i in range(n)], pa.decimal128(12, 2)),
            "flag": pa.array([i % 2 == 0 for i in range(n)]),
            "nothing": pa.array([None] * n, pa.string()),
            "at": pa.array([datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)]),
            "tags": pa.array([["a", "b"]] * n, pa.list_(pa.field("element", pa.string()))),
            "spans": pa.array([[{"start": i, "stop": 2}] for i in range(n)]),
            "run_date": pa.array([D1] * n, pa.date32()),
        }
    )
    file = stage(warehouse, rows, D1, "many", row_group_size=300)
    assert StagedFile(**json.loads(json.dumps(asdict(file)))) == file
    warehouse.publish("shop", "sales", rows.schema, D1, [file], {"run_id": "r"}, lambda: None)
    table = warehouse.catalog.load_table("shop.sales")
    [task] = table.scan().plan_files()
    [expected] = parquet_files_to_data_files(table.io, table.metadata, iter([file.url]))
    found = task.file
    for name in ("record_count", "file_size_in_bytes", "split_offsets", "partition", "file_path"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("column_sizes", "value_counts", "null_value_counts", "lower_bounds", "upper_bounds"):
        given = {key: value for key, value in getattr(expected, name).items() if value is not None}
        assert given and getattr(found, name) == given, name
    back = warehouse.read("shop", "sales")
    assert back is not None and back.drop(["real"]).equals(rows.drop(["real"]).cast(back.drop(["real"]).schema))


def test_bounds_let_readers_skip_files(warehouse: Warehouse) -> None:
    files = [
        stage(warehouse, rows_of({f"k{i}": i for i in part}, D1, "r1"), D1, f"p{part.start}")
        for part in (range(10), range(10, 20))
    ]
    warehouse.publish("shop", "sales", SCHEMA, D1, files, {"run_id": "r1"}, lambda: None)
    table = warehouse.catalog.load_table("shop.sales")
    [task] = table.scan("value >= 15").plan_files()
    assert task.file.file_path == files[1].url


def test_file_of_another_date_is_never_published(warehouse: Warehouse) -> None:
    file = stage(warehouse, rows_of({"a": 1}, D2, "r1"), D1, "wrong")
    with pytest.raises(AssertionError, match=r"holds other dates"):
        warehouse.publish("shop", "sales", SCHEMA, D1, [file], {"run_id": "r1"}, lambda: None)
    assert warehouse.tables("shop") == []


# -- schema -------------------------------------------------------------------------------------------------------


def with_column(name: str, kind: pa.DataType) -> pa.Schema:
    index = SCHEMA.get_field_index(name)
    field = pa.field(name, kind)
    return SCHEMA.set(index, field) if index >= 0 else SCHEMA.insert(2, field)


def test_added_and_widened_columns_in_the_same_snapshot(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1}, "r1")
    wide = with_column("value", pa.int64()).insert(2, pa.field("label", pa.string(), nullable=False))
    rows = rows_of({"b": 2**40}, D2, "r2", pa.schema([pa.field(f.name, f.type) for f in wide]))
    rows = rows.set_column(2, "label", pa.array(["x"]))
    file = stage(warehouse, rows, D2, "r2")
    warehouse.publish("shop", "sales", wide, D2, [file], {"run_id": "r2"}, lambda: None)
    assert len(warehouse.history("shop", "sales")) == 2
    new, old = warehouse.history("shop", "sales")
    assert old.schema == SCHEMA and new.schema.field("value").type == pa.int64() and "label" in new.schema.names
    found = warehouse.read("shop", "sales", ["key", "value", "label"])
    assert found is not None
    assert sorted(found.to_pylist(), key=str) == [
        {"key": "a", "value": 1, "label": None},
        {"key": "b", "value": 2**40, "label": "x"},
    ]
    table = warehouse.catalog.load_table("shop.sales")
    assert len(list(table.scan("value > 5").plan_files())) == 1  # the old file's four-byte bounds still prune


def test_dropped_column_stays_and_is_null(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1}, "r1", with_column("label", pa.string()))
    publish(warehouse, D2, {"b": 2}, "r2")
    rows = warehouse.read("shop", "sales", ["key", "label"], where={"run_date": D2})
    assert rows is not None and rows.to_pylist() == [{"key": "b", "label": None}]
    night = warehouse.newest("shop", "sales", D2)
    assert night is not None and "label" in night.schema.names


@pytest.mark.parametrize(
    ("kind", "values"), [(pa.string(), {"b": "2"}), (pa.float64(), {"b": 2.0}), (pa.date32(), {"b": D1})]
)
def test_retyped_column_is_refused_by_name(warehouse: Warehouse, kind: pa.DataType, values: dict[str, Any]) -> None:
    publish(warehouse, D1, {"a": 1}, "r1")
    with pytest.raises(RunError, match=r"shop.sales: column 'value' is int32 in the table and"):
        publish(warehouse, D2, values, "r2", with_column("value", kind))
    assert [night.run_id for night in warehouse.history("shop", "sales")] == ["r1"]


def test_narrowed_column_is_refused(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1}, "r1", with_column("value", pa.int64()))
    with pytest.raises(RunError, match=r"column 'value' is int64 in the table and int32 now"):
        publish(warehouse, D1, {"a": 1}, "r2")


# -- ledger -------------------------------------------------------------------------------------------------------


def test_append_happens_once_for_a_token(warehouse: Warehouse) -> None:
    rows = pa.table({"run_date": [D1, D1], "step": ["x", "y"]})
    for token in ("r1", "r1", "r2", "r1"):
        warehouse.append("shop", "runs", rows, D1, token)
    found = warehouse.read("shop", "runs")
    assert found is not None and found.num_rows == 4
    assert len(list((Path(warehouse.table_location("shop", "runs")) / "data").rglob("*.parquet"))) == 2
    assert warehouse.history("shop", "runs") == []


# -- as a source --------------------------------------------------------------------------------------------------


def test_frozen_scan_reads_the_same_after_later_commits(warehouse: Warehouse) -> None:
    for day in (D1, D2, D3):
        publish(warehouse, day, {"a": day.day, "b": day.day * 10}, f"r{day.day}")
    scans = {mode: warehouse.freeze_scan("shop.sales", D2, "run_date", mode) for mode in ("day", "to_date", "all")}
    publish(warehouse, D2, {"z": 0}, "r9")
    for mode, expected in {"day": [2, 20], "to_date": [1, 2, 10, 20], "all": [1, 2, 3, 10, 20, 30]}.items():
        scan = scans[mode]  # type: ignore[index]
        assert scan.snapshot_id is not None
        urls = [file.url for file in scan.files]
        rows = read_scan_files(scan.metadata_location, scan.snapshot_id, urls, ["value"], where=scan.where)
        assert sorted(rows["value"].to_pylist()) == expected
        assert sum(file.rows for file in scan.files) == len(expected)


def test_source_with_a_rename_and_a_rewritten_file(warehouse: Warehouse) -> None:
    at = [datetime(2024, 1, 1, 23, 59), datetime(2024, 1, 2, 0, 0), datetime(2024, 1, 2, 23, 59), datetime(2024, 1, 3)]
    given = pa.table(
        {"id": [1, 2, 3, 4], "at": pa.array(at, pa.timestamp("us")), "day": ["2024-01-01", "2024-01-02"] * 2}
    )
    warehouse.catalog.create_namespace("lake")
    table = warehouse.catalog.create_table("lake.events", given.schema, f"{warehouse.path}/lake/events")
    table.append(given)
    with table.update_schema() as update:
        update.rename_column("id", "event")
    table.append(pa.table({"event": [5], "at": pa.array([at[1]], pa.timestamp("us")), "day": ["2024-01-02"]}))
    table.delete("event == 3")

    def read(column: str, mode: Any) -> list[int]:
        scan = warehouse.freeze_scan("lake.events", D2, column, mode)
        assert scan.snapshot_id is not None
        urls = [file.url for file in scan.files]
        rows = read_scan_files(scan.metadata_location, scan.snapshot_id, urls, ["event"], where=scan.where)
        return sorted(rows["event"].to_pylist())

    assert read("at", "day") == [2, 5]
    assert read("at", "to_date") == [1, 2, 5]
    assert read("day", "day") == [2, 4, 5]
    assert read("day", "to_date") == [1, 2, 4, 5]


def test_unknown_source_table_and_column(warehouse: Warehouse) -> None:
    publish(warehouse, D1, {"a": 1}, "r1")
    with pytest.raises(UserError, match=r"sources.x.table: 'shop.sale': no such table.*did you mean 'shop.sales'"):
        warehouse.freeze_scan("shop.sale", D1, None, "all", place="sources.x.table")
    with pytest.raises(UserError, match=r"no such column.*did you mean 'run_date'"):
        warehouse.freeze_scan("shop.sales", D1, "rundate", "day")
    with pytest.raises(UserError, match=r"expected a date, timestamp or text column, not int32"):
        warehouse.freeze_scan("shop.sales", D1, "value", "day")


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
