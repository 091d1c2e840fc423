"""Published tables as DuckDB views, one a step. DuckDB reads the Parquet files that the Iceberg snapshot names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa

from bizllm.errors import Fault, RunError, UserError
from bizllm.tables import storage
from bizllm.tables.contract import CONTRACT, reject_schema
from bizllm.tables.sql import quoted
from bizllm.tables.warehouse import Published, Slice, Warehouse

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


_OURS = frozenset([*CONTRACT.names, *reject_schema([]).names])

HIDDEN = "•••"


def connect(
    warehouse: Warehouse, job: str, steps: Iterable[str], run_date: date | None = None, hidden: Collection[str] = ()
) -> DuckDBPyConnection:
    """A private connection with a view for each of the job's tables that is published: `STEP`, `STEP__rejects`, `runs`.

    hidden: steps whose texts are shown as •••, in their rejects too: all but the contract's own.
    run_date: only that night; else every published one. Rejects are those of the run that made the table's night. The
    connection reads those tables' files and nothing else.
    """
    import duckdb

    known = set(warehouse.tables(job))
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    local: list[str] = []
    for step in [name for name in steps if name in known]:
        now = warehouse.files(job, step, run_date)
        local += _view(connection, warehouse, job, step, run_date, [now], hide=step in hidden)
        if (rejects := f"{step}__rejects") in known:
            # As of the very snapshot whose rows are shown, though another night be published meanwhile.
            nights = {n.run_date: n.run_id for n in reversed(warehouse.history(job, step, now.snapshot_id))}
            nights = {day: run for day, run in nights.items() if run_date in (None, day)}
            slices = _rejects_of(warehouse, job, rejects, run_date, nights)
            raw = f"{step}__all_rejects"
            local += _view(connection, warehouse, job, raw, run_date, slices, rejects, hide=step in hidden)
            ids = pa.table({"run_id": pa.array(nights.values(), pa.string())})
            connection.register(f"{step}__runs", ids)
            connection.execute(
                f"create view {quoted(rejects)} as select * from {quoted(raw)}"
                f" where run_id in (select run_id from {quoted(step + '__runs')})"
            )
    if "runs" in known:
        local += _view(connection, warehouse, job, "runs", run_date, [warehouse.files(job, "runs", run_date)])
    # Only the files that the snapshots name: a query must not become a way to read others.
    connection.execute("set allowed_paths = $1", [local])
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _rejects_of(
    warehouse: Warehouse, job: str, table: str, run_date: date | None, nights: Mapping[date, str]
) -> list[Slice]:
    """The rejects as they are now, and the older slices of dates whose newest rejects are of another run than the
    table's: a run that died between its two commits leaves such."""
    slices = [warehouse.files(job, table, run_date)]
    newest: dict[date, str] = {}
    older: dict[tuple[date, str], Published] = {}
    for night in warehouse.history(job, table, slices[0].snapshot_id):
        newest.setdefault(night.run_date, night.run_id)
        older.setdefault((night.run_date, night.run_id), night)
    for day, run in nights.items():
        night_of_run = older.get((day, run))
        if night_of_run is not None and newest[day] != run:
            slices.append(warehouse.files(job, table, day, night_of_run.snapshot_id))
    return slices


def _view(
    connection: DuckDBPyConnection,
    warehouse: Warehouse,
    job: str,
    name: str,
    run_date: date | None,
    slices: Sequence[Slice],
    table: str = "",
    hide: bool = False,
) -> list[str]:
    """Make the view; the local files that DuckDB itself reads for it. table: whose slices they are, if not `name`'s."""
    local: list[str] = []
    urls = list(dict.fromkeys(file.url for slice_ in slices for file in slice_.files))
    schema = slices[0].schema
    if not urls:
        connection.register(f"__{name}", schema.empty_table())
    elif not all(slice_.plain for slice_ in slices):  # PyIceberg applies the deletes
        where = {"run_date": run_date} if run_date else None
        parts = [warehouse.read(job, table or name, where=where, snapshot_id=slice_.snapshot_id) for slice_ in slices]
        rows = pa.concat_tables([part for part in parts if part is not None], promote_options="default")
        connection.register(f"__{name}", rows.select(schema.names))
    elif storage.is_local(warehouse.path):
        # union_by_name: files written before a column was added lack it.
        connection.register(f"__{name}_empty", schema.empty_table())
        local = [url.removeprefix("file://") for url in urls]
        if gone := [path for path in local if not os.path.exists(path)]:
            expected = f"{len(gone)} files of the published table are gone, such as {gone[0]}"
            hint = "`bizllm rollback` to a night before, or `bizllm run --fresh` makes the date anew"
            raise RunError(f"{job}.{name}: {expected}; {hint}")
        files = ", ".join("'" + path.replace("'", "''") + "'" for path in local)
        connection.execute(
            f"create view {quoted('__' + name)} as select * from {quoted(f'__{name}_empty')} "
            f"union all by name select * from read_parquet([{files}], union_by_name = true)"
        )
    else:
        from pyarrow import dataset

        store = storage.filesystem(urls[0])[0]
        paths = [storage.filesystem(url)[1] for url in urls]
        connection.register(f"__{name}", dataset.dataset(paths, schema=schema, filesystem=store))
    columns = ", ".join(_shown(field) if hide and is_text(field) else quoted(field.name) for field in schema)
    connection.execute(f"create view {quoted(name)} as select {columns} from {quoted('__' + name)}")
    return local


def _shown(column: pa.Field) -> str:
    """The column in a view that shows no texts."""
    name = quoted(column.name)
    return f"case when {name} is null then null else '{HIDDEN}' end as {name}"


def is_text(column: pa.Field) -> bool:
    """Whether a column of a published table may hold a row's texts: a string, or what holds some, that is not ours."""
    return column.name not in _OURS and _holds_text(column.type)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def select(connection: DuckDBPyConnection, sql: str, views: Sequence[str]) -> pa.Table:
    """The rows of one SELECT. Raises UserError with DuckDB's own words, which name columns and places."""
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        # COPY could write over the very files that may be read; EXPLAIN ANALYZE and a bare PIVOT may wrap one.
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise UserError(Fault("--sql", sql, "expected one SELECT", f"views: {', '.join(views)}"))
        return connection.sql(statements[0]).to_arrow_table()
    except duckdb.Error as fault:
        said = " ".join(str(fault).split())
        raise UserError(Fault("--sql", sql, said, f"views: {', '.join(views)}")) from fault
