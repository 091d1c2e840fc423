"""Published tables as DuckDB views: what a query sees, and what it can't reach."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import UserError
from bizllm.tables import storage
from bizllm.tables.query import connect, select
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Warehouse, describe

D1, D2 = date(2024, 1, 1), date(2024, 1, 2)
ODD = 'a"b'


def publish(warehouse: Warehouse, table: str, rows: pa.Table, run_date: date, run_id: str) -> None:
    contract = {"run_date": [run_date] * rows.num_rows, "run_id": [run_id] * rows.num_rows}
    for name, values in contract.items():
        rows = rows.append_column(name, pa.array(values))
    url = storage.join(warehouse.table_location("shop", table), "data", f"run_date={run_date}", f"{run_id}.parquet")
    footer: list[pq.FileMetaData] = []
    with storage.open_output(url) as stream:
        pq.write_table(rows, stream, metadata_collector=footer)
        file = describe(url, footer[0], stream.tell())
    warehouse.publish("shop", table, rows.schema, run_date, [file], {"run_id": run_id}, lambda: None)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    made = Warehouse(WarehouseSettings(path=str(tmp_path / "it's a 仓库")))
    for day, run in ((D1, "r1"), (D2, "r2")):
        publish(made, "sales", pa.table({ODD: [f"{run} x", f"{run} y"], "n": [1, 2]}), day, run)
        publish(made, "sales__rejects", pa.table({ODD: [f"{run} z"], "code": ["empty"]}), day, run)
    publish(made, "sales", pa.table({ODD: ["r3 x"], "n": [7]}), D2, "r3")  # its rejects weren't published
    return made


def test_columns_of_any_name_are_seen_and_rejects_are_those_of_the_published_run(warehouse: Warehouse) -> None:
    with connect(warehouse, "shop", ["sales"]) as connection:
        found = select(connection, "select * from sales order by 1", ["sales"])
        assert found.column_names == [ODD, "n", "run_date", "run_id"]
        assert found[ODD].to_pylist() == ["r1 x", "r1 y", "r3 x"]
        rejects = select(connection, 'select "a""b" as odd from sales__rejects', ["sales"])
        assert rejects["odd"].to_pylist() == ["r1 z"]


def test_one_night_alone(warehouse: Warehouse) -> None:
    with connect(warehouse, "shop", ["sales"], D2) as connection:
        assert select(connection, "select n from sales", ["sales"])["n"].to_pylist() == [7]


def test_a_query_reaches_no_other_file_and_names_the_views(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with connect(warehouse, "shop", ["sales"]) as connection:
        for sql in (f"from '{tmp_path}/secret.csv'", "set enable_external_access = true", "attach 'x.db'", "from nope"):
            with pytest.raises(UserError, match="views: sales"):
                select(connection, sql, ["sales"])
