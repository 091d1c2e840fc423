"""What a consumer sees through DuckDB of really published tables; and what a query can not reach."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import RunError, UserError
from bizllm.tables import storage
from bizllm.tables.query import connect, select
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Warehouse, describe

D1, D2 = date(2026, 3, 9), date(2026, 3, 10)
Publish = Callable[..., None]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(WarehouseSettings(path=str(tmp_path / "it's a 仓库")))


@pytest.fixture
def publish(warehouse: Warehouse) -> Publish:
    """publish(step, day, run, column=[…]): replace that night of a table by one file."""
    numbers: Iterator[int] = iter(range(1_000))

    def publish(step: str, day: date, run: str, **columns: Any) -> None:
        rows = pa.table(columns)
        for name, value in (("run_date", day), ("run_id", run)):
            rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.date32() if value is day else None))
        rows = rows.cast(pa.schema([*rows.schema.remove(rows.num_columns - 1), pa.field("run_id", pa.string())]))
        files = []
        if rows.num_rows:
            folder = storage.join(warehouse.table_location("shop", step), "data")
            url, footer = storage.join(folder, f"{run}-{next(numbers)}.parquet"), []
            with storage.open_output(url) as stream:
                pq.write_table(rows, stream, metadata_collector=footer)
                files = [describe(url, footer[0], stream.tell())]
        warehouse.publish("shop", step, rows.schema, day, files, {"run_id": run}, lambda: None)

    return publish


def ask(warehouse: Warehouse, sql: str, day: date | None = None, steps: tuple[str, ...] = ("sales",)) -> list[Any]:
    """The rows of a query as tuples."""
    table = select(connect(warehouse, "shop", steps, day), sql, steps)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_every_night_or_one(warehouse: Warehouse, publish: Publish) -> None:
    publish("sales", D1, "r1", sku=["a", "b"], units=[1, 2])
    publish("sales", D2, "r2", sku=["a", "小"], units=[3, 4])
    publish("sales", D2, "r3", sku=["a", "小"], units=[5, 6])
    every = [("a", 1, D1, "r1"), ("b", 2, D1, "r1"), ("a", 5, D2, "r3"), ("小", 6, D2, "r3")]
    assert ask(warehouse, "select * from sales order by run_date, sku") == every
    assert ask(warehouse, "select * from sales order by sku", D1) == every[:2]
    assert ask(warehouse, "select * from sales order by sku", D2) == every[2:]
    assert ask(warehouse, "select * from sales", date(2026, 3, 11)) == []
    assert ask(warehouse, "select run_date, sum(units)::int from sales group by 1 order by 1") == [(D1, 3), (D2, 11)]


def test_rejects_of_the_tables_own_run_alone(warehouse: Warehouse, publish: Publish) -> None:
    """Rejects are published first: those of a run that then failed or died belong to no table."""
    publish("sales__rejects", D1, "r1", sku=["x"], code=["empty"])
    publish("sales", D1, "r1", sku=["a"], units=[1])
    publish("sales__rejects", D2, "r2", sku=["y"], code=["empty"])
    publish("sales", D2, "r2", sku=["a"], units=[1])
    rejects = "select sku, run_id from sales__rejects order by sku"
    assert ask(warehouse, rejects) == [("x", "r1"), ("y", "r2")]
    assert ask(warehouse, rejects, D1) == [("x", "r1")]
    publish("sales__rejects", D2, "r3", sku=["y", "z"], code=["failed", "failed"])
    assert ask(warehouse, rejects) == [("x", "r1"), ("y", "r2")], "the table's run still has its own"
    assert ask(warehouse, rejects, D2) == [("y", "r2")]
    publish("sales", D2, "r3", sku=["b"], units=[1])
    assert ask(warehouse, rejects) == [("x", "r1"), ("y", "r3"), ("z", "r3")]


def test_a_file_that_somebody_deleted_is_named(warehouse: Warehouse, publish: Publish) -> None:
    publish("summary", D1, "r1", id=[1, 2])
    publish("summary", D2, "r2", id=[3])
    (file,) = warehouse.files("shop", "summary", D1).files
    os.unlink(file.url.removeprefix("file://"))
    with pytest.raises(
        RunError, match=r"^shop\.summary: 1 files of the published table are gone, such as .*r1-0.*--fresh"
    ):
        connect(warehouse, "shop", ["summary"])
    assert select(connect(warehouse, "shop", ["summary"], D2), "select id from summary", []).to_pylist() == [{"id": 3}]


def test_an_empty_night_is_a_view_without_rows(warehouse: Warehouse, publish: Publish) -> None:
    publish("sales", D1, "r1", sku=["a"], units=[1])
    publish("sales", D1, "r2", sku=pa.array([], pa.string()), units=pa.array([], pa.int64()))
    assert ask(warehouse, "select * from sales") == []
    assert ask(warehouse, "describe sales")[0][:2] == ("sku", "VARCHAR")


def test_a_column_that_came_later_is_null_in_older_nights(warehouse: Warehouse, publish: Publish) -> None:
    publish("sales", D1, "r1", sku=["a"], units=[1])
    publish("sales", D2, "r2", sku=["a"], units=[2], price=[9.5])
    found = "select sku, units, price, run_id from sales order by run_date"
    assert ask(warehouse, found) == [("a", 1, None, "r1"), ("a", 2, 9.5, "r2")]
    assert ask(warehouse, found, D1) == [("a", 1, None, "r1")], "also where no file has the column"
    assert ask(warehouse, "select max(price) from sales") == [(9.5,)]


@pytest.mark.parametrize("name", ['a"b', "it's", "select", "A b", "价格", "a;drop table x", "%s{x}"])
def test_columns_of_any_name(warehouse: Warehouse, publish: Publish, name: str) -> None:
    publish("sales", D1, "r1", **{name: [7]})
    assert ask(warehouse, "select * from sales") == [(7, D1, "r1")]
    quoted = name.replace('"', '""')
    assert ask(warehouse, f'select "{quoted}" from sales where "{quoted}" = 7') == [(7,)]


HOSTILE = [
    "select * from read_csv('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from '{secret}'",
    "select * from read_csv('{inside}/../../secret.csv')",
    "select * from read_parquet('{secret}')",
    "select * from glob('{folder}/*')",
    "select * from read_csv('{link}')",
    "copy (select 1) to '{folder}/out.csv'",
    "copy sales to '{inside}/out.parquet'",
    "copy (select 'x' as sku) to '{live}' (format parquet)",
    "copy (pivot sales on sku using sum(units)) to '{live}' (format parquet)",
    "explain analyze copy (select 1) to '{live}'",
    "select * from read_parquet('{orphan}')",
    "select * from read_parquet('{inside}/**/*.parquet')",
    "attach '{folder}/other.db'",
    "attach '{inside}/catalog.db' as c (type sqlite)",
    "install httpfs",
    "load httpfs",
    "load '{secret}'",
    "export database '{folder}/dump'",
    "import database '{folder}'",
    "set enable_external_access = true",
    "reset allowed_directories",
    "set allowed_directories = ['/']",
    "set lock_configuration = false",
    "pragma database_list; select * from read_csv('{secret}')",
    "select getenv('HOME')",
    "create secret s (type s3, key_id 'a', secret 'b')",
    "select * from duckdb_secrets() where 1 / 0 = error('{secret}')",
    "select * from '/etc/passwd'",
    "select * from read_text('/proc/self/environ')",
    "select * from read_csv('http://127.0.0.1:9/x.csv')",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_query_reads_the_tables_and_nothing_else(
    warehouse: Warehouse, publish: Publish, tmp_path: Path, sql: str
) -> None:
    publish("sales", D1, "r1", sku=["a"], units=[1])
    secret = tmp_path / "secret.csv"
    secret.write_text("top,secret\n1,2\n")
    inside = Path(warehouse.path)
    os.symlink(secret, tmp_path / "link.csv")
    [live] = warehouse.files("shop", "sales", D1).files
    orphan = Path(live.url).with_name("orphan.parquet")
    pq.write_table(pa.table({"sku": ["of a run that failed"]}), orphan)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    places = {"secret": secret, "folder": tmp_path, "inside": inside, "link": tmp_path / "link.csv"}
    places |= {"live": Path(live.url), "orphan": orphan}
    asked = sql.format(**{name: str(path).replace("'", "''") for name, path in places.items()})
    with pytest.raises(UserError, match="--sql"):
        ask(warehouse, asked)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing was written"
    assert ask(warehouse, "select units from sales") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select units from sales; -- done", [(1,)]),
        ("with s as (select * from sales) from s select units", [(1,)]),
        ("describe select units from sales", [("units", "BIGINT", "YES", None, None, None)]),
        ("select * from (pivot sales on sku in ('a', 'b') using sum(units)::int group by run_id)", [("r1", 1, None)]),
        ("values (1), (2)", [(1,), (2,)]),
    ],
)
def test_what_a_consumer_may_ask(warehouse: Warehouse, publish: Publish, sql: str, rows: list[Any]) -> None:
    publish("sales", D1, "r1", sku=["a"], units=[1])
    assert ask(warehouse, sql) == rows


@pytest.mark.parametrize("sql", ["", "-- nothing", "select 1; select 2", "create table x as select 1"])
def test_one_select_is_expected(warehouse: Warehouse, publish: Publish, sql: str) -> None:
    publish("sales", D1, "r1", sku=["a"], units=[1])
    with pytest.raises(UserError, match="expected one SELECT; views: sales"):
        ask(warehouse, sql)


def test_a_mistake_in_a_query_names_the_views(warehouse: Warehouse, publish: Publish) -> None:
    publish("sales", D1, "r1", sku=["a"], units=[1])
    with pytest.raises(UserError, match=r"(?s)unts.*views: sales"):
        ask(warehouse, "select unts from sales")
    with pytest.raises(UserError, match="views: sales"):
        ask(warehouse, "select 1 from sale")
