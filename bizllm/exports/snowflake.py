"""Snowflake: the connector's `write_pandas` fills a temporary table, then one transaction puts its rows in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName, check_count, client_of, parts, shown
from bizllm.exports.types import Counted, converted, widest
from bizllm.tables.sql import quoted

EXPECTS = (
    "snowflake://USER@ACCOUNT/DATABASE?warehouse=W&role=R; SNOWFLAKE_PASSWORD, SNOWFLAKE_TOKEN or "
    "SNOWFLAKE_PRIVATE_KEY_FILE lets it in"
)
EXTRA = "snowflake"
_OPTIONS = ("warehouse", "role", "authenticator")
_SECRETS = {"SNOWFLAKE_PASSWORD": "password", "SNOWFLAKE_TOKEN": "token"}
_SECRETS |= {"SNOWFLAKE_PRIVATE_KEY_FILE": "private_key_file", "SNOWFLAKE_PRIVATE_KEY_FILE_PWD": "private_key_file_pwd"}
_ASIDE = "BIZLLM_EXPORT"
_CHUNK_ROWS = 200_000


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[Snowflake]:
    """A session whose database and warehouse are set; names are in upper case there, as unquoted ones are."""
    user, account, _, path, options = parts(target, "snowflake", EXPECTS)
    if not user or len(path) != 1 or (set(options) - set(_OPTIONS)):
        raise UserError(Fault(PLACE, shown(target), f"expected {EXPECTS}"))
    with client_of("snowflake", EXTRA):
        from snowflake import connector
    secrets = {key: os.environ[name] for name, key in _SECRETS.items() if os.environ.get(name)}
    formats = {f"{kind}_INPUT_FORMAT": "AUTO" for kind in ("DATE", "TIME", "TIMESTAMP")}
    login = {**options, **secrets, "session_parameters": formats}
    try:
        session = connector.connect(user=user, account=account, database=path[0].upper(), **login)
    except connector.errors.Error as fault:
        raise UserError(Fault(PLACE, shown(target), f"can't log in (error {fault.errno})", "see its log")) from None
    try:
        yield Snowflake(session, TableName(table.schema.upper(), table.name.upper()), connector.errors.Error)
    finally:
        session.close()


class Snowflake:
    """One table in one database."""

    def __init__(self, session: Any, table: TableName, error: type[Exception]) -> None:
        self._session, self._table, self._error = session, table, error
        self._name = f"{quoted(table.schema)}.{quoted(table.name)}"

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """`write_pandas` makes a stage, and any such statement ends a transaction: so it loads aside, before it."""
        from snowflake.connector.pandas_tools import write_pandas

        columns = {field.name.upper(): widest(field.type) for field in rows.schema}
        sent = Counted(converted(rows, types.is_nested))
        try:
            with self._session.cursor() as cursor:
                cursor.execute(
                    "select 1 from information_schema.schemata where schema_name = %s", (self._table.schema,)
                )
                if cursor.fetchone() is None:  # making one wants a right of its own
                    cursor.execute(f"create schema if not exists {quoted(self._table.schema)}")
                cursor.execute(f"use schema {quoted(self._table.schema)}")
                # Under numbers: the connector does not escape names.
                aside = ", ".join(f"C{i} {_aside_type(kind)}" for i, kind in enumerate(columns.values()))
                cursor.execute(f"create or replace temporary table {_ASIDE} ({aside})")
                for chunk in _chunks(sent.reader):
                    # pandas has one word for null and for NaN: both are null there.
                    frame = _as_text(chunk).to_pandas(integer_object_nulls=True)
                    write_pandas(self._session, frame, _ASIDE, quote_identifiers=True)
                self._declare(cursor, columns)
                names = ", ".join(map(quoted, columns))
                values = ", ".join(_value(f"C{i}", kind) for i, kind in enumerate(columns.values()))
                cursor.execute("begin")
                cursor.execute(f"delete from {self._name} where run_date = '{night}'::date")
                cursor.execute(f"insert into {self._name} ({names}) select {values} from {_ASIDE}")
                cursor.execute(f"select count(*) from {self._name} where run_date = '{night}'::date")
                found = check_count(self._table, night, cursor.fetchone()[0], sent.rows)
                cursor.execute("commit")
                cursor.execute(f"drop table if exists {_ASIDE}")
        except BaseException as fault:
            with suppress(self._error), self._session.cursor() as cursor:
                cursor.execute("rollback")
            if isinstance(fault, self._error):
                told = f"error {getattr(fault, 'errno', '')}, SQLSTATE {getattr(fault, 'sqlstate', '')}"
                query = getattr(fault, "sfqid", None)
                raise RunError(
                    f"snowflake {self._table}, night {night}: refused ({told}); its history has query {query}"
                ) from None
            raise
        return found

    def _declare(self, cursor: Any, columns: dict[str, pa.DataType]) -> None:
        listed = ", ".join(f"{quoted(name)} {_type(kind)}" for name, kind in columns.items())
        cursor.execute(f"create table if not exists {self._name} ({listed})")
        cursor.execute(f"describe table {self._name}")
        known = {row[0] for row in cursor.fetchall()}
        for name, kind in columns.items():
            if name not in known:
                cursor.execute(f"alter table {self._name} add column {quoted(name)} {_type(kind)}")


def _type(kind: pa.DataType) -> str:
    if types.is_nested(kind):
        return "variant"
    if types.is_decimal(kind):
        return f"number({kind.precision}, {kind.scale})"
    if types.is_timestamp(kind):
        return "timestamp_tz" if kind.tz else "timestamp_ntz"
    names = {
        pa.bool_(): "boolean",
        pa.int64(): "number(38, 0)",
        pa.float64(): "double",
        pa.string(): "varchar",
        pa.binary(): "binary",
        pa.date32(): "date",
        pa.time64("us"): "time",
    }
    return names[kind]


def _aside_type(kind: pa.DataType) -> str:
    """Times and decimals travel as text: what they mean then depends on no setting of a session or of a driver."""
    travels = kind in (pa.bool_(), pa.int64(), pa.float64(), pa.binary())
    return _type(kind) if travels else "varchar"


def _chunks(rows: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Each costs an upload and a COPY, so they are larger than batches."""
    held: list[pa.RecordBatch] = []
    for batch in rows:
        held.append(batch)
        if sum(one.num_rows for one in held) >= _CHUNK_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _as_text(chunk: pa.Table) -> pa.Table:
    columns = []
    for column in chunk.columns:
        if types.is_timestamp(column.type):
            told = pc.strftime(column.cast(pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%S")
            column = pc.binary_join_element_wise(told, pa.scalar("+00:00"), "") if column.type.tz else told
        elif types.is_date(column.type) or types.is_time(column.type) or types.is_decimal(column.type):
            column = column.cast(pa.string())
        columns.append(column)
    return pa.table(columns, names=[f"C{i}" for i in range(len(columns))])


def _value(name: str, kind: pa.DataType) -> str:
    if types.is_nested(kind):
        return f"parse_json({name})"
    return name if _aside_type(kind) == _type(kind) else f"{name}::{_type(kind)}"
