"""Sources: what a task sees of Parquet files, and what is said of files that can't be read."""

from __future__ import annotations

import pickle
import uuid
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import RunError, UserError
from bizllm.tables import storage
from bizllm.tables.manifest import freeze
from bizllm.tables.settings import SourceSettings
from bizllm.tables.source import Source

D = date(2024, 3, 2)
ROWS = {"id": [1, 2, 3, 4], "qty": [2, -1, 5, None], "body": ["a", "b", None, "客"]}


def write(path: Path, table: pa.Table | dict[str, Any], row_group_size: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=row_group_size)


def source(path: Path | str, **settings: Any) -> Source:
    said = {"path": str(path), "key": ["id"], **settings}
    return Source("t", SourceSettings.model_validate(said), lambda *keys: ".".join(keys))


def rows(made: Source, columns: list[str], dates: Any = "all") -> list[dict[str, Any]]:
    """Through a manifest and through pickle, as a worker reads."""
    manifest = freeze(made, D, dates, columns, unit_rows=3)
    worker = pickle.loads(pickle.dumps(made))
    return [row for unit in manifest.units for row in worker.read(unit, columns).to_pylist()]


def faults(made: Source) -> list[str]:
    return [str(fault) for fault in made.faults()]


# -- what it gives ------------------------------------------------------------------------------------------------


def test_settings_apply_in_order(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {**ROWS, "unused": [0] * 4})
    made = source(
        tmp_path / "x.parquet",
        columns=["id", "qty", "body"],
        rename={"qty": "units"},
        filter="units is null or units > 0",
        select="*, units * 2 as twice",
    )
    assert made.faults() == []
    assert made.schema().names == ["id", "units", "body", "twice"]
    assert made.key == ("id",)
    assert rows(made, ["twice", "id"]) == [{"twice": 4, "id": 1}, {"twice": 10, "id": 3}, {"twice": None, "id": 4}]


def test_auto_keys_number_a_files_rows_whatever_is_filtered(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.parquet", ROWS)
    write(tmp_path / "b.parquet", ROWS)
    made = source(tmp_path, key="auto", filter="qty > 0")
    assert made.schema().names == ["id", "qty", "body", "file", "row"]
    assert rows(made, ["file", "row", "id"]) == [
        {"file": "a/x.parquet", "row": 0, "id": 1},
        {"file": "a/x.parquet", "row": 2, "id": 3},
        {"file": "b.parquet", "row": 0, "id": 1},
        {"file": "b.parquet", "row": 2, "id": 3},
    ]
    assert rows(made, ["row"]) == [{"row": 0}, {"row": 2}] * 2


def test_hidden_files_are_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", ROWS)
    for name in ("_SUCCESS", ".x.parquet.crc", "_temporary/0/y.parquet", ".tmp/z.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no Parquet")
    assert len(rows(source(tmp_path), ["id"])) == 4


def test_a_folder_level_is_a_partition_and_a_column(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        write(tmp_path / f"dt=2024-03-0{day}" / "x.parquet", {"id": [day]})
    write(tmp_path / "dt=__HIVE_DEFAULT_PARTITION__" / "x.parquet", {"id": [9]})
    made = source(tmp_path, partition="dt")
    assert made.schema().field("dt").type == pa.date32()
    assert rows(made, ["id", "dt"], "day") == [{"id": 2, "dt": D}]
    assert [row["id"] for row in rows(made, ["id"], "to_date")] == [1, 2]
    assert [row["id"] for row in rows(made, ["id"], "all")] == [1, 2, 3]
    assert rows(source(tmp_path, partition="dt", filter="day(dt) = 1"), ["id"], "to_date") == [{"id": 1}]


@pytest.mark.parametrize(
    "days",
    [
        pa.array([date(2024, 3, 1), D, date(2024, 3, 3), None], pa.date32()),
        pa.array([datetime(2024, 3, 1, 23, 59), datetime(2024, 3, 2), datetime(2024, 3, 3), None], pa.timestamp("ns")),
        # 16:00 UTC is midnight in Shanghai: the day is that of the column's own zone.
        pa.array(
            [datetime(2024, 3, 1, 15, 59), datetime(2024, 3, 1, 16), datetime(2024, 3, 2, 16), None],
            pa.timestamp("us", "Asia/Shanghai"),
        ),
    ],
)
@pytest.mark.parametrize("row_group_size", [1, 4])
def test_a_date_column_is_a_partition(tmp_path: Path, days: pa.Array, row_group_size: int) -> None:
    write(tmp_path / "x.parquet", {"id": [1, 2, 3, 4], "at": days}, row_group_size)
    made = source(tmp_path, partition="at", key="auto")
    assert rows(made, ["id", "row"], "day") == [{"id": 2, "row": 1}]
    assert [row["id"] for row in rows(made, ["id"], "to_date")] == [1, 2]
    assert [row["id"] for row in rows(made, ["id"], "all")] == [1, 2, 3, 4]


def test_types_of_one_meaning_are_one_type(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", {"id": pa.array([1], pa.int32()), "s": pa.array(["a"]).dictionary_encode()})
    write(tmp_path / "2.parquet", {"id": pa.array([2**40]), "s": pa.array(["b"], pa.large_string())})
    write(tmp_path / "3.parquet", {"s": pa.nulls(1), "id": pa.array([3], pa.int16())})
    made = source(tmp_path)
    assert made.schema() == pa.schema([("id", pa.int64()), ("s", pa.string())])
    assert rows(made, ["id", "s"]) == [{"id": 1, "s": "a"}, {"id": 2**40, "s": "b"}, {"id": 3, "s": None}]


def test_nested_columns_are_carried(tmp_path: Path) -> None:
    nested = {"id": [1, 2], "l": [["a", None], None], "st": [{"x": 1, "y": [1.5]}, None]}
    write(tmp_path / "x.parquet", nested)
    expected = pa.table(nested).to_pylist()
    assert rows(source(tmp_path), ["id", "l", "st"]) == expected
    assert rows(source(tmp_path, select="*, len(l) as n", filter="id > 0"), ["id", "l", "st"]) == expected


def test_times_finer_than_microseconds_fail_by_column_without_the_value(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"id": [1, 2], "t": pa.array([1000, 1001], pa.timestamp("ns"))}, 1)
    made = source(tmp_path)
    assert made.schema().field("t").type == pa.timestamp("us")
    assert len(rows(made, ["id"])) == 2
    with pytest.raises(RunError, match="column 't'") as caught:
        rows(made, ["t"])
    assert "1001" not in str(caught.value)


@pytest.mark.objectstore
def test_s3(s3_endpoint: str) -> None:
    import boto3

    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    for day in (1, 2):
        with storage.open_output(f"s3://{bucket}/t/dt=2024-03-0{day}/x.parquet") as stream:
            pq.write_table(pa.table(ROWS), stream, row_group_size=1)
    made = source(f"s3://{bucket}/t/", partition="dt", key="auto", filter="qty > 0")
    expected = [{"file": "dt=2024-03-02/x.parquet", "row": row, "id": row + 1} for row in (0, 2)]
    assert rows(made, ["file", "row", "id"], "day") == expected
    assert "no bucket 'no-such-lake'" in faults(source("s3://no-such-lake/t"))[0]


# -- bad input ----------------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    (fault,) = faults(source(tmp_path / "nothing.parquet"))
    assert fault.startswith("sources.t.path: ") and "no such file or folder" in fault


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    (fault,) = faults(source(tmp_path))
    assert "the folder has no Parquet file" in fault


@pytest.mark.parametrize("content", [b"", b"id,qty\n1,2\n", b"PAR1" + b"\0" * 20 + b"PAR1"])
def test_a_file_that_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "good.parquet", ROWS)
    (tmp_path / "bad.parquet").write_bytes(content)
    (fault,) = faults(source(tmp_path))
    assert fault == "sources.t.path: 'bad.parquet': expected a Parquet file"


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({**ROWS, "qty": ["1"] * 4}, "column 'qty' is int64 in the first and string in the second"),
        ({"id": [1], "body": ["a"]}, "column 'qty' is missing in the second"),
        ({**ROWS, "extra": [1] * 4}, "column 'extra' is missing in the first"),
    ],
)
def test_two_schemas(tmp_path: Path, other: dict[str, Any], difference: str) -> None:
    """A column that not all files have is no column of the source; whoever asks for it is told why."""
    write(tmp_path / "1.parquet", ROWS)
    write(tmp_path / "2.parquet", other)
    given = source(tmp_path)
    name = difference.split("'")[1]
    assert faults(given) == [] and name not in given.schema().names and difference in given.mixed(name)
    assert faults(source(tmp_path, columns=["id", "body"])) == []
    for asking in ({"columns": ["id", name]}, {"rename": {name: "other"}}, {"key": [name]}):
        (fault,) = faults(source(tmp_path, **asking))
        assert "in 1.parquet and 2.parquet column" in fault and difference in fault


def test_a_column_that_many_files_lack_is_found_when_they_are_frozen(tmp_path: Path) -> None:
    """Only some footers are read before: all of them are, of the columns that are used, when the night is frozen."""
    for i in range(400):
        extra = {"qty": [1] * 4} if i != 101 else {}
        write(tmp_path / f"{i:03}.parquet", {"id": [i * 4 + k for k in range(4)], "body": ["a"] * 4, **extra})
    given = source(tmp_path, key=["id"])
    assert faults(given) == [] and "qty" in given.schema().names, "that file is not among those that are looked at"
    freeze(given, D, "all", ["id", "body"])
    with pytest.raises(UserError, match=r"101\.parquet column 'qty' is missing in the second; it is read"):
        freeze(given, D, "all", ["id", "qty"])


def test_missing_columns_are_all_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", ROWS)
    found = faults(source(tmp_path, columns=["id", "bdy", "qqty"]))
    assert [fault.split(":")[0] for fault in found] == ["sources.t.columns.1", "sources.t.columns.2"]
    assert "did you mean 'body'?" in found[0] and "it has id, qty, body" in found[0]
    assert "did you mean 'body'?" in faults(source(tmp_path, rename={"bod": "text"}))[0]
    assert "expected one column of that name" in faults(source(tmp_path, rename={"body": "qty"}))[0]
    assert "did you mean 'id'?" in faults(source(tmp_path, key=["idd"]))[0]
    assert "did you mean 'body'?" in faults(source(tmp_path, filter="bodi = 'a'"))[0]
    assert "expected a folder level" in faults(source(tmp_path, partition="dt"))[0]


def test_columns_of_a_wrong_type(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"id": [1.5], "tags": [["a"]], "day": ["2024-03-02"]})
    assert "it is double" in faults(source(tmp_path))[0]
    assert "it is list" in faults(source(tmp_path, key=["tags"]))[0]
    assert "expected a date or timestamp column; it is string" in faults(source(tmp_path, partition="day"))[0]
    assert "one or more different columns" in faults(source(tmp_path, key=["day", "day"]))[0]


def test_auto_keys_need_their_names(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", {"id": [1], "File": ["a"]})
    assert "use `rename`" in faults(source(tmp_path, key="auto"))[0]
    assert faults(source(tmp_path, key="auto", rename={"File": "name"})) == []


@pytest.mark.parametrize("level", ["dt=yesterday", "dt=2024-3-2", "dt=2024-02-30"])
def test_folders_that_are_no_dates(tmp_path: Path, level: str) -> None:
    write(tmp_path / "dt=2024-03-01" / "x.parquet", ROWS)
    write(tmp_path / level / "x.parquet", ROWS)
    (fault,) = faults(source(tmp_path, partition="dt"))
    assert level in fault and "YYYY-MM-DD" in fault


def test_a_file_outside_the_partitions(tmp_path: Path) -> None:
    write(tmp_path / "dt=2024-03-01" / "x.parquet", ROWS)
    write(tmp_path / "zz.parquet", ROWS)
    (fault,) = faults(source(tmp_path, partition="dt"))
    assert "'zz.parquet'" in fault and "expected every file below a folder dt=" in fault


def test_a_date_that_is_not_there(tmp_path: Path) -> None:
    for day in range(3, 10):
        write(tmp_path / "folders" / f"dt=2024-03-0{day}" / "x.parquet", {"id": [day]})
    with pytest.raises(UserError, match=r"the newest: 2024-03-09, 2024-03-08, .* \(7 in all\)"):
        rows(source(tmp_path / "folders", partition="dt"), ["id"], "day")
    write(tmp_path / "column.parquet", {"id": [1], "day": pa.array([date(2024, 3, 5)], pa.date32())})
    with pytest.raises(UserError, match="from 2024-03-05 to 2024-03-05"):
        rows(source(tmp_path / "column.parquet", partition="day"), ["id"], "to_date")


def test_schema_raises_every_fault(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", ROWS)
    with pytest.raises(UserError) as caught:
        source(tmp_path, columns=["a", "b"]).schema()
    assert len(caught.value.faults) == 2


# -- Iceberg ------------------------------------------------------------------------------------------------------


def test_an_iceberg_table_is_read_at_its_frozen_snapshot(tmp_path: Path) -> None:
    from bizllm.tables.settings import WarehouseSettings
    from bizllm.tables.warehouse import Warehouse

    warehouse = Warehouse(WarehouseSettings(path=str(tmp_path / "warehouse")))
    night = pa.table({"id": [1, 2, 3], "qty": [2, -1, 5], "day": [D, D, date(2024, 3, 3)]})
    warehouse.catalog.create_namespace_if_not_exists("shop")
    table = warehouse.catalog.create_table("shop.sales", night.schema, str(tmp_path / "sales"))
    table.append(night.slice(0, 2))
    table.append(night.slice(2))
    said = SourceSettings(
        table="shop.sales", key=["id"], partition="day", filter="qty > 0", select="*, qty * 2 as twice"
    )
    made = Source("t", said, lambda *keys: ".".join(keys), warehouse)
    assert made.faults() == []
    manifest = freeze(made, date(2024, 3, 3), "to_date", ["id", "twice"], unit_rows=2)
    assert len(manifest.units) == 2 and manifest.rows == 3
    table.append(night)  # after the freeze
    worker = pickle.loads(pickle.dumps(made))
    found = [row for unit in manifest.units for row in worker.read(unit, ["id", "twice"]).to_pylist()]
    assert sorted(row["id"] for row in found) == [1, 3]
    assert rows(made, ["id"], "day") == [{"id": 1}] * 2  # a new freeze sees the new snapshot

    wrong = Source("t", said.model_copy(update={"table": "shop.sale"}), lambda *keys: ".".join(keys), warehouse)
    (fault,) = faults(wrong)
    assert fault.startswith("sources.t.table: 'shop.sale'") and "shop.sales" in fault
