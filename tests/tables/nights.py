"""Nights of a small table, published into real Iceberg tables (SQLite catalog, local Parquet)."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.tables import storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.warehouse import Slice, StagedFile, Warehouse, describe

D1, D2, D3 = date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)


SCHEMA = pa.schema([("key", pa.string()), ("value", pa.int32()), ("run_date", pa.date32()), ("run_id", pa.string())])


def opened(folder: Path | str) -> Warehouse:
    return Warehouse(WarehouseSettings(path=str(folder)))


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
