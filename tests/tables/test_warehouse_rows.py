"""What a published table holds and how it may change: statistics, schema, the ledger's rows, a table as a source."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bizllm.errors import RunError, UserError
from bizllm.tables.warehouse import StagedFile, Warehouse, read_scan_files
from tests.tables.nights import D1, D2, D3, SCHEMA, publish, rows_of, stage


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


def test_append_happens_once_for_a_token(warehouse: Warehouse) -> None:
    rows = pa.table({"run_date": [D1, D1], "step": ["x", "y"]})
    for token in ("r1", "r1", "r2", "r1"):
        warehouse.append("shop", "runs", rows, D1, token)
    found = warehouse.read("shop", "runs")
    assert found is not None and found.num_rows == 4
    assert len(list((Path(warehouse.table_location("shop", "runs")) / "data").rglob("*.parquet"))) == 2
    assert warehouse.history("shop", "runs") == []


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
