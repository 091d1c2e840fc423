"""A DuckDB file: one transaction deletes the night and inserts it anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa

from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName, check_count
from bizllm.exports.types import Counted, converted
from bizllm.tables.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EXPECTS = "a file such as marts.duckdb, which is made where there is none"
EXTRA = ""
_SENT = "__bizllm_sent"


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[DuckDB]:
    """The file's only writer, as DuckDB has it."""
    import duckdb

    if "://" in target or os.path.isdir(target):
        raise UserError(Fault(PLACE, target, f"expected {EXPECTS}"))
    try:
        connection = duckdb.connect(target)
        connection.execute("set timezone = 'UTC'")
    except duckdb.Error as fault:
        held = "another process has it open" if "lock" in str(fault) else type(fault).__name__
        raise UserError(Fault(PLACE, target, f"can't be opened ({held}); expected {EXPECTS}")) from None
    try:
        yield DuckDB(connection, table)
    finally:
        connection.close()


class DuckDB:
    """One table in one file."""

    def __init__(self, connection: DuckDBPyConnection, table: TableName) -> None:
        self._connection, self._table = connection, table
        self._name = f"{quoted(table.schema)}.{quoted(table.name)}"

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """Types are DuckDB's own choice for Arrow's."""
        import duckdb

        sent, ask = Counted(converted(rows)), self._connection.execute
        try:
            ask("begin")
            self._declare(sent.reader.schema)
            ask(f"delete from {self._name} where run_date = date '{night}'")
            self._connection.register(_SENT, sent.reader)
            ask(f"insert into {self._name} by name select * from {_SENT}")
            ((found,),) = ask(f"select count(*) from {self._name} where run_date = date '{night}'").fetchall()
            check_count(self._table, night, found, sent.rows)
            ask("commit")
        except BaseException as fault:
            with suppress(duckdb.Error):
                ask("rollback")
            if isinstance(fault, duckdb.Error):
                raise RunError(f"duckdb {self._table}, night {night}: {type(fault).__name__}") from None
            raise
        finally:
            self._connection.unregister(_SENT)
        return sent.rows

    def _declare(self, schema: pa.Schema) -> None:
        ask = self._connection.execute
        ask(f"create schema if not exists {quoted(self._table.schema)}")
        self._connection.register("__bizllm_new", schema.empty_table())
        described = ask("describe select * from __bizllm_new").fetchall()
        ask(f"create table if not exists {self._name} as select * from __bizllm_new")
        for name, kind, *_ in described:
            ask(f"alter table {self._name} add column if not exists {quoted(name)} {kind}")
        self._connection.unregister("__bizllm_new")
