"""An Iceberg table as a source: pinned by the driver, read file by file by workers that need no catalog."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from bizllm.errors import Fault, UserError, nearest
from bizllm.tables.catalog import io_properties
from bizllm.tables.evolution import arrow_schema

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.schema import Schema
    from pyiceberg.table import DataScan, FileScanTask, Table

Dates = Literal["day", "to_date", "all"]
Operator = Literal["==", "<", ">="]
Condition = tuple[Operator, str, str]  # operator, column, ISO value


@dataclass(frozen=True, slots=True)
class DataFile:
    """A live Parquet file of a table. bytes: its size. deletes: a digest of its delete files, empty without any."""

    url: str
    rows: int
    bytes: int
    deletes: str = ""


@dataclass(frozen=True, slots=True)
class IcebergScan:
    """What to read of a table, the same whatever is committed to it later.

    files: sorted by URL; `rows` counts a file's rows before delete files and `where`.
    where: conditions that all hold of the rows: (operator, column, ISO value). A file may hold others too.
    snapshot_id: None for a table without a snapshot, which has no files.
    """

    metadata_location: str
    snapshot_id: int | None
    schema: pa.Schema
    files: list[DataFile]
    where: tuple[Condition, ...]


def freeze(table: Table, run_date: date, partition_column: str | None, mode: Dates, place: str) -> IcebergScan:
    """Pin the table's current snapshot. Raises UserError where the partition column is none."""
    where = _conditions(table.schema(), run_date, partition_column, mode, place)
    snapshot = table.current_snapshot()
    scan = table.scan(expression(where))
    files = [
        DataFile(task.file.file_path, task.file.record_count, task.file.file_size_in_bytes, _digest(task))
        for task in (scan.plan_files() if snapshot else ())
    ]
    return IcebergScan(
        table.metadata_location,
        snapshot.snapshot_id if snapshot else None,
        arrow_schema(scan.projection()),
        sorted(files, key=lambda file: file.url),
        where,
    )


def _digest(task: FileScanTask) -> str:
    """What changes when a file's live rows do: the file itself never does."""
    names = sorted(file.file_path for file in task.delete_files)
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""


def read_scan_files(
    metadata_location: str,
    snapshot_id: int,
    urls: Sequence[str],
    columns: Sequence[str] | None = None,
    properties: Mapping[str, str] | None = None,
    where: Sequence[Condition] = (),
) -> pa.Table:
    """The rows of some of a frozen scan's files, in the order of `urls` and, in a file, of its rows.

    Deletes, renames and evolved types are applied. properties: the warehouse's, for the file system. The plan is kept
    for the process, so that a worker reads the manifests once.
    """
    from pyiceberg.io.pyarrow import ArrowScan

    plan, tasks = _plan(metadata_location, snapshot_id, tuple(where), tuple(sorted((properties or {}).items())))
    known = arrow_schema(plan.projection())
    names = list(columns) if columns is not None else known.names
    reader = ArrowScan(plan.table_metadata, plan.io, plan.select(*names).projection(), plan.row_filter)
    rows = reader.to_table([tasks[url] for url in urls])
    return rows.select(names).cast(pa.schema([known.field(name) for name in names]))


@lru_cache(maxsize=16)
def _plan(
    metadata_location: str,
    snapshot_id: int,
    where: tuple[Condition, ...],
    properties: tuple[tuple[str, str], ...],
) -> tuple[DataScan, dict[str, FileScanTask]]:
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(metadata_location, io_properties(dict(properties)))
    scan = table.scan(expression(where), snapshot_id=snapshot_id)
    return scan, {task.file.file_path: task for task in scan.plan_files()}


def _conditions(schema: Schema, run_date: date, column: str | None, mode: Dates, place: str) -> tuple[Condition, ...]:
    if column is None or mode == "all":
        return ()
    arrow = arrow_schema(schema)
    if column not in arrow.names:
        hint = nearest(column, arrow.names)
        raise UserError(Fault(place, column, f"no such column; the table has {', '.join(arrow.names)}", hint))
    kind = arrow.field(column).type
    if pa.types.is_date(kind) or pa.types.is_string(kind):
        if mode == "day":
            return (("==", column, run_date.isoformat()),)
        # Text sorts as dates do when it is ISO; the day after is left out, a time of day within the day is not.
        return (("<", column, (run_date + timedelta(days=1)).isoformat()),)
    if pa.types.is_timestamp(kind):
        midnight = "T00:00:00+00:00" if kind.tz else "T00:00:00"
        before: Condition = ("<", column, (run_date + timedelta(days=1)).isoformat() + midnight)
        return (before,) if mode == "to_date" else ((">=", column, run_date.isoformat() + midnight), before)
    raise UserError(Fault(place, column, f"expected a date, timestamp or text column, not {kind}"))


def expression(where: Iterable[tuple[Operator, str, Any]]) -> BooleanExpression:
    """The conditions, all of which must hold, as PyIceberg takes them."""
    from pyiceberg.expressions import AlwaysTrue, And, EqualTo, GreaterThanOrEqual, LessThan

    kinds: dict[str, Any] = {"==": EqualTo, "<": LessThan, ">=": GreaterThanOrEqual}
    found: BooleanExpression = AlwaysTrue()
    for operator, column, value in where:
        found = And(found, kinds[operator](column, value))
    return found
