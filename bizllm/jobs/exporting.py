"""`bizllm export`: published nights of a table copied into another system, each replaced there as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bizllm.errors import Fault, RunError, UserError, nearest
from bizllm.exports.base import TableName, checked, shown, system
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.ledger import TABLE
from bizllm.jobs.promises import keys_of
from bizllm.tables.history import nights as nights_of
from bizllm.tables.query import HIDDEN, connect, is_text
from bizllm.tables.sql import quoted
from bizllm.tables.warehouse import Warehouse

_ROWS = 20_000  # of a batch: memory holds a few of these
Told = Callable[["Copied"], None]


@dataclass(frozen=True)
class Copied:
    """A night that the other system holds now."""

    run_date: date
    rows: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """An entry of `nights` in `export --json`."""
        return {"run_date": self.run_date.isoformat(), "rows": self.rows, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Exported:
    """target: without its password. hidden: columns whose texts were not copied."""

    table: str
    to: str
    target: str
    into: str
    hidden: list[str]
    nights: list[Copied] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "nights": [night.to_dict() for night in self.nights]}


def export(
    loaded: LoadedJob,
    step: str,
    to: str,
    target: str | None,
    *,
    table: str | None = None,
    day: date | None = None,
    every: bool = False,
    reveal: bool = False,
    told: Told = lambda night: None,
) -> Exported:
    """Copy the newest night of `step` (or that of `day`, or every one, oldest first), one transaction each.

    step: a step, `STEP__rejects` or `runs`. Each night is read as of one snapshot. Raises UserError, and RunError where
    a night could not be copied: those before it were.
    """
    job, chosen = loaded.job.name, system(to)
    if every and day is not None:
        raise UserError(Fault("--all", None, "expected either --all or --date"))
    address = checked(target, chosen)
    into = _into(table, job, step)
    warehouse = Warehouse(loaded.job.warehouse)
    base = step.removesuffix("__rejects")
    days = _nights(warehouse, loaded, step, day, every)
    hide = not reveal and step != TABLE and loaded.hides(base)
    schema = warehouse.files(job, step, days[-1]).schema
    hidden = [column.name for column in schema if hide and is_text(column)]
    keys = keys_of(loaded, step) if step in loaded.job.steps else []  # a step that the job has no more has a table
    keys = keys if set(keys) <= set(schema.names) and not set(keys) & set(hidden) else []
    done = Exported(f"{job}.{step}", to, shown(target or ""), str(into), hidden)
    with chosen.connect(address, into, keys) as receiver:
        for night in days:
            started = time.monotonic()
            rows = receiver.replace(night, _rows(warehouse, job, step, night, hide))
            done.nights.append(Copied(night, rows, time.monotonic() - started))
            told(done.nights[-1])
    return done


def _into(table: str | None, job: str, step: str) -> TableName:
    if table is None:
        return TableName(job, step)
    schema, _, name = table.partition(".")
    if not schema or not name or "." in name:
        raise UserError(Fault("--table", table, "expected SCHEMA.TABLE", f"by default {job}.{step}"))
    return TableName(schema, name)


def _nights(warehouse: Warehouse, loaded: LoadedJob, step: str, day: date | None, every: bool) -> list[date]:
    """Which to copy. Raises UserError where there are none."""
    name = loaded.job.name
    known = set(warehouse.tables(name))
    if step not in known:
        if not known:
            raise UserError(
                Fault("JOB", loaded.path, f"{name} has no published tables yet", f"bizllm run {loaded.path}")
            )
        raise UserError(Fault("STEP", step, f"expected one of {', '.join(sorted(known))}", nearest(step, known)))
    table = warehouse.load(name, step)
    days = nights_of(table) if table is not None else []
    if not days:
        raise UserError(Fault("STEP", step, f"{name}.{step} has no published night yet"))
    if every:
        return days
    if day is not None and day not in days:
        told = f"no such night of {name}.{step} is published; the newest is {days[-1]}"
        raise UserError(Fault("--date", day.isoformat(), told))
    return [day or days[-1]]


def _rows(warehouse: Warehouse, job: str, step: str, night: date, hide: bool) -> pa.RecordBatchReader:
    """The night's rows as of one snapshot, in the types of the Iceberg table, a batch at a time."""
    import duckdb

    schema = warehouse.files(job, step, night).schema
    steps = [] if step == TABLE else [step.removesuffix("__rejects")]  # the ledger's view is there anyway
    connection = connect(warehouse, job, steps, night)
    read = f"select {', '.join(map(quoted, schema.names))} from {quoted(step)}"
    batches = connection.sql(read).to_arrow_reader(_ROWS)

    def cast() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                columns = [
                    _without_text(column, one.type) if hide and is_text(one) else column.cast(one.type)
                    for one, column in zip(schema, batch.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
        except duckdb.Error as fault:  # its message may quote a row
            raise RunError(f"{job}.{step}, night {night}: can't be read ({type(fault).__name__})") from None
        finally:
            connection.close()

    return pa.RecordBatchReader.from_batches(schema, cast())


def _without_text(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A text is told to be there, as `show` does; of what holds texts nothing is left."""
    if not pa.types.is_string(kind):
        return pa.nulls(len(column), kind)
    return pc.if_else(column.is_null(), pa.scalar(None, kind), pa.scalar(HIDDEN, kind))
