"""ClickHouse: a night is loaded into a table of its own, whose partition then replaces the table's in one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any
from uuid import uuid4

import pyarrow as pa
from pyarrow import types

from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName, check_count, client_of, parts, shown
from bizllm.exports.types import Counted, converted, deep, widest

EXPECTS = "clickhouse://USER@HOST:8443?secure=true; `:${CLICKHOUSE_PASSWORD}` after the user lets it in"
EXTRA = "clickhouse"


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[ClickHouse]:
    """A session over HTTP, or of chDB, ClickHouse in the process (`chdb:///FOLDER`)."""
    if not target.startswith("chdb:"):
        parts(target, "clickhouse", EXPECTS)
    with client_of("clickhouse", EXTRA):
        import clickhouse_connect
        from clickhouse_connect.driver.exceptions import ClickHouseError
    try:
        client = clickhouse_connect.get_client(dsn=target)
    except ClickHouseError as fault:
        raise UserError(Fault(PLACE, shown(target), f"can't connect ({type(fault).__name__})")) from None
    try:
        yield ClickHouse(client, table, keys, ClickHouseError)
    finally:
        client.close()


class ClickHouse:
    """One MergeTree table, partitioned by run_date and sorted by the keys."""

    def __init__(self, client: Any, table: TableName, keys: list[str], error: type[Exception]) -> None:
        self._client, self._table, self._keys, self._error = client, table, keys, error
        self._name = f"{_quoted(table.schema)}.{_quoted(table.name)}"

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """REPLACE PARTITION and DROP PARTITION are atomic; what was loaded before is a table that nobody reads."""
        columns = {f.name: _column(f.name, widest(f.type), self._keys) for f in rows.schema}
        sent, ask = Counted(converted(rows, _is_text)), self._client.command
        aside = f"{_quoted(self._table.schema)}.{_quoted(f'bizllm_export_{uuid4().hex}')}"
        try:
            self._declare(columns)
            ask(f"create table {aside} as {self._name}")
            for batch in sent.reader:
                if batch.num_rows:
                    self._client.insert_arrow(aside, pa.Table.from_batches([batch]))
            found = check_count(self._table, night, int(ask(f"select count() from {aside}")), sent.rows)
            if found:
                ask(f"alter table {self._name} replace partition '{night}' from {aside}")
            else:
                ask(f"alter table {self._name} drop partition '{night}'")
        except self._error as fault:
            code = str(fault).partition("Code: ")[2].partition(".")[0]
            said = f"{type(fault).__name__}{f', code {code}' if code.isdecimal() else ''}"
            raise RunError(f"clickhouse {self._table}, night {night}: {said}") from None
        finally:
            with suppress(self._error):
                ask(f"drop table if exists {aside}")
        return found

    def _declare(self, columns: dict[str, str]) -> None:
        ask = self._client.command
        if not int(ask(f"exists database {_quoted(self._table.schema)}")):  # making one wants a right of its own
            ask(f"create database if not exists {_quoted(self._table.schema)}")
        listed = ", ".join(f"{_quoted(name)} {kind}" for name, kind in columns.items())
        order = ", ".join(map(_quoted, self._keys))
        ask(
            f"create table if not exists {self._name} ({listed}) engine = MergeTree"
            f" partition by run_date order by ({order})"
        )
        for name, kind in columns.items():
            ask(f"alter table {self._name} add column if not exists {_quoted(name)} {kind}")
        there = {row[0]: row[1] for row in self._client.query(f"describe table {self._name}").result_rows}
        for name, kind in columns.items():
            # ClickHouse would make what it can of another type: null, mostly.
            if ("String" in there[name]) != ("String" in kind):
                raise RunError(f"clickhouse {self._table}: column '{name}' is {there[name]} there and {kind} here")


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _column(name: str, kind: pa.DataType, keys: list[str]) -> str:
    """Nullable, but for what sorts or partitions, and for lists: ClickHouse has no null of them, only empty ones."""
    if types.is_list(kind) and not deep(kind):
        return f"Array(Nullable({_type(kind.value_type)}))"
    told = _type(kind)
    return told if name == "run_date" or name in keys else f"Nullable({told})"


def _type(kind: pa.DataType) -> str:
    if types.is_decimal(kind):
        return f"Decimal({kind.precision}, {kind.scale})"
    if types.is_timestamp(kind):
        return "DateTime64(6, 'UTC')"
    names = {
        pa.bool_(): "Bool",
        pa.int64(): "Int64",
        pa.float64(): "Float64",
        pa.binary(): "String",
        pa.date32(): "Date32",
    }
    return names.get(kind, "String")  # text, and what became text


def _is_text(kind: pa.DataType) -> bool:
    """Times of day, which ClickHouse has in few versions; and what is more than a list."""
    return deep(kind) or types.is_time(kind)
