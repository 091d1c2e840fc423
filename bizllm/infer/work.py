"""What every stage of a step shares: the step's context and its staged files."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.infer.kept_engines import Kept
from bizllm.infer.learned import load
from bizllm.infer.receipts import Receipt, reject_key
from bizllm.infer.subjects import Subjects
from bizllm.infer.vectors import Shelf
from bizllm.models.batches import placement
from bizllm.models.endpoint import computed_here
from bizllm.models.engines.base import Engine, Network
from bizllm.models.engines.choice import engine_of
from bizllm.models.engines.remembering import Remembering
from bizllm.models.load import ModelLoader, ResolvedModel
from bizllm.tables import dropped, hashing, storage
from bizllm.tables.manifest import Unit as SourceUnit
from bizllm.tables.source import Source
from bizllm.tables.warehouse import StagedFile, describe
from bizllm.tasks.base import Models, Outcome, Reject, Task

KEPT = (
    "model",
    "model_version",
    "input_hash",
    "produced_at",
)  # contract columns that belong to an answer: copied with it
ROW_GROUP_ROWS = 1 << 17  # of published files: enough to compress well, small enough to read in parallel


class Unit(Protocol):
    """A descriptor of work: small, picklable, with a name that is unique in its stage."""

    @property
    def id(self) -> str: ...


class Stage(Protocol):
    """One pass over units. `read` runs on CPU workers, ahead; `work` where `open` was called once."""

    @property
    def name(self) -> str: ...

    @property
    def holds_model(self) -> bool:
        """Whether `work` needs a process that stays, with a model loaded by `open`."""

    @property
    def uses_gpu(self) -> bool:
        """Whether what `open` loads is computed by that process: on a GPU, where there is one."""

    def open(self) -> None: ...

    def read(self, unit: Any) -> list[pa.Table]: ...

    def work(self, unit: Any, tables: list[pa.Table]) -> Receipt: ...


@dataclass(frozen=True)
class StepContext:
    """One step of one run, as its workers see it. Pickled once for each worker; holds settings, never rows."""

    job: str
    step: str
    run_id: str
    run_date: date
    task: Task
    source: Source
    model: str | None
    model_version: str | None
    schema: pa.Schema  # of the step's table
    reject_schema: pa.Schema
    data_url: str  # where staged files of the table go
    reject_url: str  # … and of the rejects
    state_url: str  # the run's private folder for this step and date
    pinned: Mapping[str, ResolvedModel] = field(default_factory=dict)  # by URI: what the driver resolved
    engines: Mapping[str, Kept] = field(default_factory=dict)  # by URI: what computes it, where that was measured
    vectors: Mapping[str, str] = field(default_factory=dict)  # by URI: where vectors are that other steps read, too
    shown: bool = True  # whether the report may show rows of it
    learned: str | None = None  # where it is kept what the task learned of the tables that it reads whole

    @property
    def reject_keys(self) -> list[str]:
        """Group columns, then the source's own key: what finds the row again."""
        return list(dict.fromkeys([*self.task.group_by(), *self.source_key]))

    def opened(self, models: Models) -> Task:
        """The task, ready to answer (or, as long as nothing is learned, to learn)."""
        self.knowing().open(models)
        return self.task

    def knowing(self) -> Task:
        """The task with what it learned, but without its models: ready to combine."""
        self.task.learned = load(self.learned) if self.learned else None
        return self.task

    @property
    def source_key(self) -> tuple[str, ...]:
        """The columns that identify an input row."""
        return self.task.source.key


@dataclass
class PlainStage:
    """A stage that loads nothing: Ray runs it as tasks."""

    context: StepContext

    @property
    def holds_model(self) -> bool:
        """Never."""
        return False

    @property
    def uses_gpu(self) -> bool:
        """Never."""
        return False

    def open(self) -> None:
        """Nothing to load."""


@dataclass
class TaskStage:
    """A stage that asks the task: where the task has models, it runs in processes that load them once."""

    context: StepContext
    loader: ModelLoader | None = field(default=None, init=False, repr=False)
    shelves: dict[str, Shelf] = field(default_factory=dict, init=False, repr=False)  # by URI
    _told_usage: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)  # in earlier receipts

    @property
    def holds_model(self) -> bool:
        """Whether the task has models."""
        return bool(self.context.task.models())

    @property
    def uses_gpu(self) -> bool:
        """Whether any of its models is computed here, and not behind an endpoint."""
        return computed_here(self.context.task.models().values())

    def open(self) -> None:
        """Load them, once a worker, each with the engine that was chosen."""
        writer = self.context.task.settings.engine
        self.loader = ModelLoader(pinned=self.context.pinned, engine=self._engine, writer=writer)
        self.context.opened(self.loader)

    def engines(self) -> dict[str, Any]:
        """For a receipt's `extra`: what computed each model here, by its URI; tokens that endpoints read and wrote
        since the last receipt."""
        used = {
            uri: f"{engine.name} {engine.precision}"
            for uri, engine in (self.loader.engines if self.loader else {}).items()
            if not isinstance(engine, Remembering) or engine.made
        }
        extra: dict[str, Any] = {"engines": used} if used else {}
        if self.shelves:
            extra["vectors"] = [
                sum(s.read for s in self.shelves.values()),
                sum(s.computed for s in self.shelves.values()),
            ]
        usage = self.loader.usage() if self.loader else {}
        if usage:
            before = {uri: self._told_usage.get(uri, [0, 0]) for uri in usage}
            extra["usage"] = {uri: [a - b for a, b in zip(usage[uri], before[uri], strict=True)] for uri in usage}
            self._told_usage = usage
        return extra

    @contextmanager
    def remembering(self, unit: SourceUnit) -> Iterator[None]:
        """While a unit is answered: vectors that are there are taken, new ones are kept for others."""
        for shelf in self.shelves.values():
            shelf.turn_to(unit)
        yield
        for shelf in self.shelves.values():
            shelf.keep()

    def _engine(self, uri: str, network: Network) -> Engine:
        import torch

        found = self.context.engines.get(uri)

        def made() -> Engine:
            choice, folder = (found.choice, found.folder()) if found else (None, None)
            return engine_of(choice, network, folder, torch.get_num_threads())

        if uri not in self.context.vectors:
            return made()
        self.shelves[uri] = Shelf(self.context.vectors[uri])
        return Remembering(made, self.shelves[uri], placement(None, None)[0] != "cpu")


class Writer:
    """Stages what a unit made, in files whose names no other attempt can have, and sums up its receipt."""

    def __init__(self, context: StepContext, stage: str, unit: str) -> None:
        self.context, self.stage, self.unit = context, stage, unit
        self.started = time.perf_counter()
        self.attempt = uuid.uuid4().hex[:8]
        self.rejects: list[pa.Table] = []
        self.rejected: dict[str, int] = {}

    @cached_property
    def produced_at(self) -> datetime:
        """When the unit's answers were made: one time for all, so that copies of one answer are equal."""
        return datetime.now(UTC)

    def file_name(self, suffix: str = ".parquet") -> str:
        """run, unit and attempt: never reused, since rewriting a published file changes the table unseen."""
        return f"{self.context.run_id}-{self.stage}-{self.unit}-{self.attempt}{suffix}"

    def reject(self, scope: str, keys: pa.Table, rejects: list[Reject], hashes: pa.Array | None = None) -> None:
        """Turn rejects of one batch into rows. keys: (batch,) any of the reject key columns; hashes: (batch,)."""
        if not rejects:
            return
        where = pa.array([r.subject for r in rejects], pa.int64())
        found = keys.take(where)
        n = len(rejects)
        context = self.context
        values: dict[str, Any] = {name: found[name] for name in found.column_names}
        values |= {
            "scope": pa.array([scope] * n),
            "code": pa.array([r.code for r in rejects]),
            "message": pa.array([r.message for r in rejects]),
            "unit": pa.array([self.unit] * n),
            "input_hash": hashes.take(where) if hashes is not None else pa.nulls(n, pa.string()),
            "run_date": pa.array([context.run_date] * n, pa.date32()),
            "run_id": pa.array([context.run_id] * n),
        }
        self.rejects.append(conform(values, context.reject_schema, n))
        for r in rejects:
            name = reject_key(scope, r.code, r.message)
            self.rejected[name] = self.rejected.get(name, 0) + 1

    def records(self, subjects: Subjects, outcome: Outcome) -> pa.Table:
        """The table's rows: keys, the task's columns, the contract columns."""
        n = len(outcome.subject)
        context = self.context
        where = pa.array(outcome.subject)
        keys = subjects.keys.take(where)
        values: dict[str, Any] = {
            "run_date": pa.array([context.run_date] * n, pa.date32()),
            "run_id": pa.array([context.run_id] * n),
            "model": pa.array([context.model] * n, pa.string()),
            "model_version": pa.array([context.model_version] * n, pa.string()),
            "input_hash": hashing.hex(subjects.hi[outcome.subject], subjects.lo[outcome.subject]),
            "produced_at": pa.array([self.produced_at] * n, pa.timestamp("us", "UTC")),
        }
        values |= {name: keys[name] for name in keys.column_names}
        # A copied answer brings contract columns of its own, such as when it was produced.
        values |= {name: outcome.columns[name] for name in outcome.columns.column_names}
        return conform(values, context.schema, n)

    def receipt(
        self,
        rows_in: int,
        outcome: Outcome | None = None,
        subjects: Subjects | None = None,
        copied: pa.Table | None = None,
        rows_reused: int = 0,
        **more: Any,
    ) -> Receipt:
        """Write the files of this unit, and say what they are. copied: rows of the table that answer `rows_reused` more
        subjects."""
        tables = [] if copied is None else [copied]
        if outcome is not None and subjects is not None and outcome.columns.num_columns:
            tables.append(self.records(subjects, outcome))
        table = pa.concat_tables(tables) if tables else self.context.schema.empty_table()
        files = stage(table, storage.join(self.context.data_url, self.file_name()))
        reject_files: list[StagedFile] = []
        if self.rejects:
            rejects = pa.concat_tables(self.rejects)
            reject_files += stage(rejects, storage.join(self.context.reject_url, self.file_name()))
        exhibit = None
        if self.context.shown and outcome is not None and outcome.exhibit is not None and outcome.exhibit.num_rows:
            exhibit = storage.join(self.context.state_url, "exhibits", self.file_name())
            write_parquet(outcome.exhibit, exhibit)
        return Receipt(
            self.stage,
            self.unit,
            self.context.run_id,
            rows_in=rows_in,
            rows_out=rows_reused + (0 if outcome is None else len(np.unique(outcome.subject))),
            rows_skipped=0 if outcome is None else len(outcome.skipped),
            rows_reused=rows_reused,
            records_out=table.num_rows,
            tokens=0 if outcome is None else outcome.tokens,
            seconds=round(time.perf_counter() - self.started, 3),
            files=tuple(files),
            reject_files=tuple(reject_files),
            rejected=self.rejected,
            exhibit=exhibit,
            **more,
        )


def conform(values: dict[str, Any], schema: pa.Schema, rows: int) -> pa.Table:
    """A table of exactly that schema; a column that is not given is null."""
    columns = []
    for f in schema:
        column = values.get(f.name)
        column = pa.nulls(rows, f.type) if column is None else column
        columns.append(column if column.type == f.type else dropped.narrowed(column, f.type))
    return pa.table(columns, schema=schema)


def stage(table: pa.Table, url: str) -> list[StagedFile]:
    """Write one file that may be published, and describe it; no rows, no file."""
    return stage_all([table], table.schema, url) if table.num_rows else []


def stage_all(tables: Iterable[pa.Table], schema: pa.Schema, url: str) -> list[StagedFile]:
    """Write one file of all the tables, as `stage` does; at least one has rows."""
    metadata, size = _write(((table, ROW_GROUP_ROWS) for table in tables), schema, url)
    return [describe(url, metadata, size)]


def write_parquet(
    table: pa.Table, url: str, row_groups: Sequence[tuple[int, int]] | None = None
) -> tuple[pq.FileMetaData, int]:
    """Write one file, as the given slices (start, length), a row group each; its footer and size in bytes."""
    if row_groups is None:
        return _write([(table, ROW_GROUP_ROWS)], table.schema, url)
    return _write(((table.slice(start, length), length) for start, length in row_groups), table.schema, url)


def _write(parts: Iterable[tuple[pa.Table, int]], schema: pa.Schema, url: str) -> tuple[pq.FileMetaData, int]:
    """parts: rows, and how many of them a row group may have."""
    collected: list[pq.FileMetaData] = []
    with storage.explained(url, "write"), storage.open_output(url) as sink:
        with pq.ParquetWriter(sink, schema, compression="zstd", metadata_collector=collected) as writer:
            for rows, most in parts:
                writer.write_table(rows, row_group_size=most)
        size: int = sink.tell()
    return collected[0], size
