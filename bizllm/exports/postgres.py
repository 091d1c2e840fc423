"""PostgreSQL, and what speaks its protocol and COPY: rows go through ADBC into a temporary table, then one transaction
puts them in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName, check_count, client_of, shown
from bizllm.exports.types import Counted, converted, deep, widest
from bizllm.tables.sql import quoted

EXPECTS = "a URL such as postgresql://loader@db.example.com:5432/analytics; PGPASSWORD or ~/.pgpass holds the password"
EXTRA = "postgres"
_LONGEST = 63  # bytes of an identifier; the server would cut a longer one
_LOCK_TIMEOUT = "5min"
_ASIDE = "bizllm_export"
# Classes of SQLSTATE whose messages name tables, columns, rights and limits, and never quote rows.
_TELLING = ("08", "25", "28", "3D", "3F", "42", "53", "54", "55", "57")


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[Postgres]:
    """A connection of its own; what it left open is rolled back."""
    if not target.startswith(("postgresql://", "postgres://")):
        raise UserError(Fault(PLACE, shown(target), f"expected {EXPECTS}"))
    for name in (table.schema, table.name):
        if len(name.encode()) > _LONGEST:
            raise UserError(Fault("--table", name, f"PostgreSQL's names have at most {_LONGEST} bytes", "give another"))
    with client_of("postgres", EXTRA):
        from adbc_driver_postgresql import dbapi
    try:
        connection = dbapi.connect(target)
    except dbapi.Error as fault:
        told = " ".join(str(fault).split()).partition("Failed to connect: ")[2]
        raise UserError(Fault(PLACE, shown(target), told or "can't connect")) from None
    try:
        yield Postgres(connection, table, keys, dbapi.Error)
    finally:
        with suppress(dbapi.Error):
            connection.close()


class Postgres:
    """One table in one database."""

    def __init__(self, connection: Any, table: TableName, keys: list[str], error: type[Exception]) -> None:
        self._connection, self._table, self._keys, self._error = connection, table, keys, error
        self._name = f"{quoted(table.schema)}.{quoted(table.name)}"

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """Rows are loaded aside first, so that the table is locked for its delete and insert only, and that against
        other writers, not against readers."""
        columns = {field.name: _type(widest(field.type)) for field in rows.schema}
        if long := next((name for name in columns if len(name.encode()) > _LONGEST), None):
            raise RunError(f"{self._table}: column '{long}': PostgreSQL's names have at most {_LONGEST} bytes")
        sent = Counted(_without_nul(converted(rows, _is_json)))
        try:
            with self._connection.cursor() as cursor:
                cursor.adbc_ingest(_ASIDE, sent.reader, mode="create", temporary=True)
                cursor.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT}'")
                self._declare(cursor, columns)
                cursor.execute(f"lock table {self._name} in share row exclusive mode")
                cursor.execute(f"delete from {self._name} where run_date = date '{night}'")
                names = ", ".join(map(quoted, columns))
                values = ", ".join(f"{quoted(name)}::{kind}" for name, kind in columns.items())
                cursor.execute(f"insert into {self._name} ({names}) select {values} from pg_temp.{_ASIDE}")
                cursor.execute(f"drop table pg_temp.{_ASIDE}")
                cursor.execute(f"select count(*) from {self._name} where run_date = date '{night}'")
                found = check_count(self._table, night, cursor.fetchone()[0], sent.rows)
            self._connection.commit()
        except BaseException as fault:
            with suppress(self._error):
                self._connection.rollback()
            if isinstance(fault, self._error):
                raise RunError(f"postgres {self._table}, night {night}: {_said(fault)}") from None
            raise
        return found

    def _declare(self, cursor: Any, columns: dict[str, str]) -> None:
        """Make the schema, the table, or its new columns. Only what is missing: each wants a right of its own."""
        cursor.execute("select 1 from pg_namespace where nspname = $1", (self._table.schema,))
        if cursor.fetchone() is None:
            cursor.execute(f"create schema if not exists {quoted(self._table.schema)}")
        cursor.execute(
            "select attname from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
            (self._name,),
        )
        known = {name for (name,) in cursor.fetchall()}
        if known:
            for name, kind in columns.items():
                if name not in known:
                    cursor.execute(f"alter table {self._name} add column if not exists {quoted(name)} {kind}")
            return
        # A night is deleted by its date, so there must be an index that begins with it.
        listed = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
        unique = f", primary key ({', '.join(map(quoted, ['run_date', *self._keys]))})" if self._keys else ""
        cursor.execute(f"create table {self._name} ({listed}{unique})")
        if not self._keys:
            cursor.execute(f"create index on {self._name} (run_date)")


def _type(kind: pa.DataType) -> str:
    """Of a column, given one of the widest types."""
    if _is_json(kind):
        return "jsonb"
    if types.is_list(kind):
        return _type(kind.value_type) + "[]"
    if types.is_decimal(kind):
        return f"numeric({kind.precision}, {kind.scale})"
    if types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if types.is_time(kind):
        return "time"
    names = {
        pa.bool_(): "boolean",
        pa.int64(): "bigint",
        pa.float64(): "double precision",
        pa.string(): "text",
        pa.binary(): "bytea",
        pa.date32(): "date",
    }
    return names[kind]


def _is_json(kind: pa.DataType) -> bool:
    """What has no column type that ADBC can copy into: all but plain values and lists of numbers or texts."""
    if types.is_list(kind):
        return kind.value_type not in (pa.int64(), pa.float64(), pa.string())
    return deep(kind)


def _without_nul(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """PostgreSQL's text holds no NUL character: U+FFFD stands for it."""

    def clean(column: pa.Array) -> pa.Array:
        if types.is_string(column.type):
            return pc.replace_substring(column, "\0", "\ufffd")
        if types.is_list(column.type) and types.is_string(column.type.value_type):
            found = pc.any(pc.match_substring(column.flatten(), "\0")).as_py()
            if found:
                lists = column.to_pylist()
                cleaned = [one and [text and text.replace("\0", "\ufffd") for text in one] for one in lists]
                return pa.array(cleaned, column.type)
        return column

    batches = (pa.RecordBatch.from_arrays([clean(c) for c in b.columns], schema=b.schema) for b in rows)
    return pa.RecordBatchReader.from_batches(rows.schema, batches)


def _said(fault: Exception) -> str:
    """Why the server refused, as far as it can't quote a row."""
    state = getattr(fault, "sqlstate", None) or ""
    if not state.startswith(_TELLING):
        return f"the server refused it (SQLSTATE {state or 'unknown'})"
    first = str(fault).partition("ERROR:")[2].partition("\n")[0].strip()
    return f"{first or 'the server refused it'} (SQLSTATE {state})"
