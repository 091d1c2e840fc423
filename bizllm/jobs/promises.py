"""What a job's tables promise their readers: columns, types, what is never null, keys, partition; and whether a promise
that was written down still holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import yaml
from pydantic import Field, field_validator

from bizllm.errors import nearest
from bizllm.jobs.explain import validate
from bizllm.jobs.job import LoadedJob, run_date
from bizllm.jobs.ledger import TABLE as LEDGER_TABLE
from bizllm.jobs.yaml_places import read_document
from bizllm.tables.contract import CONTRACT, LEDGER, MEANINGS, reject_schema
from bizllm.tables.evolution import arrow_schema, nullable, widens
from bizllm.tables.settings import Closed
from bizllm.tables.type_names import type_name, type_of
from bizllm.tables.warehouse import Warehouse
from bizllm.tasks.base import StepInput, Task, task_class

_HEAD = """\
# What readers of the tables of {job} may rely on: `bizllm contract {path} --against THIS_FILE` tells whether it holds.
# Columns may be added and types widened (int to long, float to double, decimals to more digits), and nothing else.
"""
_REJECTS = reject_schema([])


class Column(Closed):
    """nullable: whether any night may hold a null there."""

    type: str = Field(description="Iceberg's name of the type, such as long or list<string>.")
    nullable: bool = Field(default=True, description="Whether a reader must expect nulls.")
    meaning: str = Field(default="", description="For people.")

    @field_validator("type")
    @classmethod
    def _known(cls, name: str) -> str:
        if type_of(name) is None:
            raise ValueError("expected the name of an Iceberg type, such as long, decimal(10, 2) or list<string>")
        return name


class TablePromise(Closed):
    """key: columns that are unique together within a night; empty where no such promise is made."""

    key: list[str] = Field(default=[], description="Columns that are unique together within a run_date.")
    partition: list[str] = Field(default=["run_date"], description="The table's partition columns.")
    columns: dict[str, Column] = Field(min_length=1, description="By name, in the table's order.")


class Promise(Closed):
    """A contract file."""

    job: str = Field(description="The job whose tables these are.")
    tables: dict[str, TablePromise] = Field(min_length=1, description="By the names that `bizllm show` takes.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without what is empty."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"job": self.job, "tables": _plain(self.tables)}


@dataclass(frozen=True)
class Change:
    """A difference between a promise and the tables. breaks: whether a reader that relied on it may fail."""

    table: str
    column: str | None
    kind: Literal["added", "widened", "removed", "retyped", "nullability", "key", "partition"]
    breaks: bool
    told: str

    def __str__(self) -> str:
        where = f"{self.table}.{self.column}" if self.column else self.table
        return f"{where}: {self.told}"


# -- what is promised -------------------------------------------------------------------------------------------------


def promise(loaded: LoadedJob, planned: bool = False) -> Promise:
    """The published tables; of those that are not published yet, what the job would write, which reads its sources.

    planned: what the job would write, of every step.
    """
    warehouse = Warehouse(loaded.job.warehouse)
    names = [name for step in loaded.order() for name in (step, f"{step}__rejects")]
    found: dict[str, tuple[pa.Schema, list[str]]] = {}  # columns, partition
    for name in [] if planned else [*names, LEDGER_TABLE]:
        if (table := warehouse.load(loaded.job.name, name)) is not None:
            found[name] = arrow_schema(table.schema()), [field.name for field in table.spec().fields]
    written = {LEDGER_TABLE: LEDGER} | (_written(loaded) if not found.keys() >= set(names) else {})
    tables = {
        name: _table(loaded, name, *(found.get(name) or (written[name], ["run_date"])))
        for name in [*names, LEDGER_TABLE]
    }
    return Promise(job=loaded.job.name, tables=tables)


def keys_of(loaded: LoadedJob, step: str) -> list[str]:
    """The columns that identify a row of the step's table within a night, as far as the job's file tells them."""
    return _task(loaded, step).keys()


def _task(loaded: LoadedJob, step: str) -> Task:
    """The step's task without its input's columns: these are not needed to know what its keys are."""
    settings = loaded.job.steps[step]
    if settings.input in loaded.job.steps:
        key = keys_of(loaded, settings.input)
    else:
        given = loaded.job.sources[settings.input].key
        key = ["file", "row"] if given == "auto" else given
    today = run_date(loaded.job, None, datetime.now(UTC))
    return task_class(settings.task)(settings, StepInput(settings.input, pa.schema([]), tuple(key)), today)


def _written(loaded: LoadedJob) -> dict[str, pa.Schema]:
    """The tables that the job would write tonight. Raises UserError where its sources can't be read."""
    from bizllm.jobs.prepare import prepare

    night = prepare(loaded, run_date(loaded.job, None, datetime.now(UTC)))
    return {
        name: nullable(schema)
        for step in night.steps.values()
        for name, schema in ((step.name, step.schema), (f"{step.name}__rejects", step.reject_schema))
    }


def _table(loaded: LoadedJob, name: str, schema: pa.Schema, partition: list[str]) -> TablePromise:
    step = name.removesuffix("__rejects")
    key: list[str] = []
    meanings: Mapping[str, str] = MEANINGS
    if name == LEDGER_TABLE:
        never = {field.name for field in LEDGER if not field.nullable}
    elif name != step:
        never = {field.name for field in _REJECTS if not field.nullable}
    else:
        task = _task(loaded, step)
        key = task.keys()
        never = {*key, *(field.name for field in CONTRACT if not field.nullable)}
        meanings = {**dict(_meanings(task, schema.names)), **MEANINGS}
    columns = {
        field.name: Column(
            type=type_name(field.type), nullable=field.name not in never, meaning=meanings.get(field.name, "")
        )
        for field in schema
    }
    return TablePromise(key=key, partition=partition, columns=columns)


def _meanings(task: Task, columns: list[str]) -> Iterator[tuple[str, str]]:
    """What the task says of its columns, whose names may be patterns: `<time>` is what that setting names, and
    `q<level>` any such name."""
    for name, told in task.writes.items():
        meaning = told.partition(": ")[2] or told
        if name in columns:
            yield name, meaning
        elif found := re.fullmatch(r"<(\w+)>", name):
            named = getattr(task.settings, found[1], None)
            if named in columns:
                yield str(named), meaning
        elif "<" in name:
            pattern = re.sub(r"<\w+>", ".+", re.sub(r"[.*+?()\[\]]", "", name))
            yield from ((column, meaning) for column in columns if re.fullmatch(pattern, column))


# -- the file ---------------------------------------------------------------------------------------------------------


def text_of(promised: Promise, path: str) -> str:
    """The file: one line for each column, in the table's order, so that a change is a line in a diff."""
    body = yaml.safe_dump(
        promised.to_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=1_000_000
    )
    return _HEAD.format(job=promised.job, path=path) + body


def read(path: str, job: str) -> Promise:
    """A contract file of that job. Raises UserError with every fault."""
    document = read_document(path)
    found = validate(Promise, document.values, document)
    if found is not None and found.job != job:
        document.fault(("job",), found.job, f"is the contract of another job; expected {job}")
    document.raise_faults()
    assert found is not None, "a file that is not valid has a fault"
    return found


def _plain(tables: Mapping[str, TablePromise]) -> dict[str, Any]:
    return {
        name: {
            **({"key": table.key} if table.key else {}),
            "partition": table.partition,
            "columns": {
                column: {"type": said.type, "nullable": said.nullable}
                | ({"meaning": said.meaning} if said.meaning else {})
                for column, said in table.columns.items()
            },
        }
        for name, table in tables.items()
    }


# -- whether it holds -------------------------------------------------------------------------------------------------


def compare(promised: Promise, now: Promise) -> list[Change]:
    """Every difference, table by table, in the order of the promise and then of what came since."""
    changes: list[Change] = []
    for name, before in promised.tables.items():
        after = now.tables.get(name)
        if after is None:
            hint = nearest(name, now.tables)
            told = "the table is gone: the job has no such step" + (f"; {hint}" if hint else "")
            changes.append(Change(name, None, "removed", True, told))
            continue
        changes += _changes(name, before, after)
    added = [name for name in now.tables if name not in promised.tables]
    return changes + [Change(name, None, "added", False, "is a new table") for name in added]


def _changes(name: str, before: TablePromise, after: TablePromise) -> Iterator[Change]:
    if set(before.key) != set(after.key):
        yield Change(name, None, "key", True, f"the key was {_listed(before.key)} and is {_listed(after.key)} now")
    if before.partition != after.partition:
        told = f"was partitioned by {_listed(before.partition)} and is by {_listed(after.partition)} now"
        yield Change(name, None, "partition", True, told)
    new = [column for column in after.columns if column not in before.columns]
    for column, was in before.columns.items():
        if column not in after.columns:
            renamed = nearest(column, new) or next(
                (f"was it renamed to '{one}'?" for one in new if after.columns[one].type == was.type), ""
            )
            told = f"was {was.type} and is gone" + (f"; {renamed}" if renamed else "")
            yield Change(name, column, "removed", True, told)
            continue
        now = after.columns[column]
        if _type(was) != _type(now):
            wider = _widened(_type(was), _type(now))
            told = f"{was.type} became {now.type}" + ("" if wider else ", which is no wider type")
            yield Change(name, column, "widened" if wider else "retyped", not wider, told)
        if was.nullable != now.nullable:
            told = "was never null and may be now" if now.nullable else "might be null, and is promised not to be now"
            told += "" if now.nullable else ": older nights may hold nulls"
            yield Change(name, column, "nullability", True, told)
    for column in new:
        yield Change(name, column, "added", False, f"is new: {after.columns[column].type}")


def _type(column: Column) -> pa.DataType:
    kind = type_of(column.type)
    assert kind is not None, "the model has checked it"
    return kind


def _widened(old: pa.DataType, new: pa.DataType) -> bool:
    """Iceberg's promotions, and new fields in structs, but no field that is gone: a table keeps such a one."""
    if pa.types.is_struct(old) and pa.types.is_struct(new):
        return all(
            new.get_field_index(field.name) >= 0 and _widened(field.type, new.field(field.name).type) for field in old
        )
    if pa.types.is_list(old) and pa.types.is_list(new):
        return _widened(old.value_type, new.value_type)
    return widens(old, new)


def _listed(columns: list[str]) -> str:
    return ", ".join(columns) or "none"
