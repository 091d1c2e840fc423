"""A source of a job: raw rows, and what its settings make of them before a task sees any.

Two kinds of raw rows with one interface (`RawRows`): Parquet files, and an Iceberg table's frozen scan. An earlier
step's slice is an Iceberg source too: its table, partitioned by run_date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import types

from bizllm.errors import Fault, UserError, nearest
from bizllm.tables import storage
from bizllm.tables.bounds import date_mask
from bizllm.tables.iceberg_rows import IcebergRows, Tables
from bizllm.tables.manifest import Dates, FileSlices, Part, Snapshot, Unit
from bizllm.tables.parquet import ParquetFiles
from bizllm.tables.select import RowSql
from bizllm.tables.settings import SourceSettings
from bizllm.tables.types import text_or_null

AUTO_KEY = pa.schema([("file", pa.string()), ("row", pa.int64())])  # what `key: auto` adds

_PART_THREADS = 8  # small files on an object store: their round trips overlap


class RawRows(Protocol):
    """Where rows come from. Pickles without its listing; only `schema`, `read` and the like work in a worker."""

    mixed: dict[str, str]

    def schema(self) -> pa.Schema: ...

    def names(self) -> list[str]: ...

    def faults(self) -> list[Fault]: ...

    def snapshot(self, run_date: date, dates: Dates) -> Snapshot | None: ...

    def slices(self, run_date: date, dates: Dates, columns: Sequence[str]) -> Iterator[FileSlices]: ...

    def lacking(self, run_date: date, dates: Dates) -> Fault | None: ...

    def read(self, unit: Unit, part: Part, columns: Sequence[str]) -> pa.Table: ...

    def date_column(self, part: Part) -> str | None: ...

    def file_name(self, url: str) -> str: ...


class Masking(Protocol):
    """Takes personal data out of texts; `bizllm.methods.pii.masker` is one. Pickles."""

    def column(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """A string column, masked; as long, and of the same type."""


class Source:
    """A named input of a job. Pickles for workers, which call `read` alone.

    place: `place("sources", name, "path")` says for people where a setting stands in the job file.
    warehouse: where the tables of `settings.table` are; not needed for a path.
    masking: what `settings.mask` asks for, where it asks.
    """

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        place: Callable[..., str],
        warehouse: Tables | None = None,
        masking: Masking | None = None,
    ) -> None:
        assert (settings.mask is None) == (masking is None), "texts that are to be masked never get by"
        self._masking = masking
        self.name = name
        self.settings = settings
        self._place: Callable[..., str] | None = place
        if settings.table is not None:
            assert warehouse is not None, "a table is read through its warehouse"
            self._raw: RawRows = IcebergRows(settings.table, settings.partition, warehouse, self._at("table"))
        else:
            assert settings.path is not None
            self._raw = ParquetFiles(settings.path, settings.partition, settings.columns, self._at)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_place": None}

    # -- what it gives --------------------------------------------------------------------------------------------

    def schema(self) -> pa.Schema:
        """The columns a task sees: after columns, rename, filter, select, with `file` and `row` for `key: auto`.

        Raises UserError with every fault of the source.
        """
        if faults := self.faults():
            raise UserError(*faults)
        return self._schema

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row."""
        return tuple(AUTO_KEY.names) if self.settings.key == "auto" else tuple(self.settings.key)

    def faults(self) -> list[Fault]:
        """Everything wrong with the source, as far as can be seen without reading rows. Found once."""
        return self._faults

    @cached_property
    def _faults(self) -> list[Fault]:
        # In the order in which the settings apply; what builds on a faulty step can't be judged.
        for check in (self._raw.faults, self._column_faults, self._sql_faults, self._mask_faults, self._key_faults):
            if faults := check():
                return faults
        return []

    @cached_property
    def _schema(self) -> pa.Schema:
        made = list(self._sql.schema)
        return pa.schema([*made, *(AUTO_KEY if self.settings.key == "auto" else [])])

    # -- freezing and reading -------------------------------------------------------------------------------------

    def snapshot(self, run_date: date, dates: Dates) -> Snapshot | None:
        """The table's state that `slices` lists; None for files."""
        return self._raw.snapshot(run_date, dates)

    def slices(self, run_date: date, dates: Dates, columns: Sequence[str]) -> Iterator[FileSlices]:
        """The files and row groups that a step with these columns reads, in order. Raises UserError."""
        self.schema()
        return self._raw.slices(run_date, dates, self._raw_columns(columns))

    def lacking(self, run_date: date, dates: Dates) -> Fault | None:
        """Why a night of the date would be refused: the source is partitioned and holds nothing of it."""
        self.schema()
        return self._raw.lacking(run_date, dates)

    def read(self, unit: Unit, columns: Sequence[str]) -> pa.Table:
        """The unit's rows with these columns, in the order of its parts. Raises RunError.

        `file` and `row` of `key: auto` are columns like others: the file's path below the source's, and the row's
        position in the file, whatever was filtered.
        """
        raw_columns = self._raw_columns(columns)
        remote = len(unit.parts) > 1 and not storage.is_local(unit.parts[0].url)
        if remote:
            with ThreadPoolExecutor(_PART_THREADS) as pool:
                parts = list(pool.map(lambda part: self._part(unit, part, raw_columns), unit.parts))
        else:
            parts = [self._part(unit, part, raw_columns) for part in unit.parts]
        raw = pa.concat_tables([rows for rows, _ in parts])
        origin = pa.concat_tables([where for _, where in parts])
        names = self._raw_names()
        raw = raw.rename_columns([names.get(name, name) for name in raw.column_names])
        if (mask := self._sql.mask(raw)) is not None:
            raw, origin = raw.filter(mask), origin.filter(mask)
        raw = self._masked(raw)
        auto = set(AUTO_KEY.names) if self.settings.key == "auto" else set()
        made = self._sql.project(raw, [name for name in columns if name not in auto])
        arrays = [origin.column(name) if name in auto else made.column(name) for name in columns]
        # A key that is no text counts as none: its row is rejected, and takes no other with it.
        arrays = [text_or_null(a) if name in self.key else a for name, a in zip(columns, arrays, strict=True)]
        return pa.table(arrays, schema=pa.schema([self._schema.field(name) for name in columns]))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _at(self, *keys: str) -> str:
        assert self._place is not None, "faults are found on the driver"
        return self._place("sources", self.name, *keys)

    def _raw_names(self) -> dict[str, str]:
        """Raw name: the name after `rename`."""
        return dict(self.settings.rename)

    @cached_property
    def _sql(self) -> RowSql:
        raw = self._raw.schema()
        kept = self.settings.columns if self.settings.columns is not None else raw.names
        names = self._raw_names()
        given = pa.schema([raw.field(name).with_name(names.get(name, name)) for name in kept])
        return RowSql(given, self.settings.select, self.settings.filter)

    def _masked(self, rows: pa.Table) -> pa.Table:
        """The rows as all that follows sees them: `select` too, so that what it derives holds no raw text."""
        for name in self.settings.mask.columns if self.settings.mask else ():
            if name in rows.column_names:
                assert self._masking is not None
                at = rows.column_names.index(name)
                rows = rows.set_column(at, rows.schema.field(at), self._masking.column(rows.column(at)))
        return rows

    def _raw_columns(self, columns: Sequence[str]) -> list[str]:
        auto = set(AUTO_KEY.names) if self.settings.key == "auto" else set()
        reads = self._sql.reads([name for name in columns if name not in auto])
        back = {new: old for old, new in self._raw_names().items()}
        return [back.get(name, name) for name in reads]

    def _part(self, unit: Unit, part: Part, columns: Sequence[str]) -> tuple[pa.Table, pa.Table]:
        """A part's raw rows of the unit's dates, and where each came from."""
        dated = self._raw.date_column(part) if unit.dates != "all" else None
        extra = [dated] if dated is not None and dated not in columns else []
        rows = self._raw.read(unit, part, [*columns, *extra])
        count = rows.num_rows
        file = pa.repeat(pa.scalar(self._raw.file_name(part.url), pa.string()), count)
        row = pa.array(np.arange(part.first_row, part.first_row + count, dtype=np.int64))
        origin = pa.table([file, row], schema=AUTO_KEY)
        if dated is not None and (mask := date_mask(rows.column(dated), unit)) is not None:
            rows, origin = rows.filter(mask), origin.filter(mask)
        return rows.select(list(columns)), origin

    def _column_faults(self) -> list[Fault]:
        names = self._raw.names()
        faults = []
        for position, name in enumerate(self.settings.columns or ()):
            if name not in names or name in self._raw.mixed:
                faults.append(self._missing(name, names, "columns", str(position)))
        kept = self.settings.columns if self.settings.columns is not None else self._raw.schema().names
        for old in self.settings.rename:
            if old not in kept:
                faults.append(self._missing(old, kept, "rename", old))
        after = [self.settings.rename.get(name, name) for name in kept]
        for name in sorted({name for name in after if after.count(name) > 1}):
            faults.append(Fault(self._at("rename"), name, "expected one column of that name"))
        return faults

    def _sql_faults(self) -> list[Fault]:
        return [Fault(self._at(f.key), f.value, f.expected, f.suggestion) for f in self._sql.faults()]

    def _mask_faults(self) -> list[Fault]:
        mask, given = self.settings.mask, self._sql.given
        if mask is None:
            return []
        faults = []
        for position, name in enumerate(mask.columns):
            place = ("mask", "columns", str(position))
            if name not in given.names:
                faults.append(self._missing(name, given.names, *place))
            elif not types.is_string(kind := given.field(name).type):
                faults.append(Fault(self._at(*place), name, f"expected a string column; it is {kind}"))
            elif mask.mode == "mask" and name in self.settings.key:
                what = "is a key column, which `mode: mask` would make the same for many rows"
                faults.append(Fault(self._at(*place), name, what, "use `mode: pseudonym`, or another key"))
        if mask.entities is not None and "ORGANIZATION" in mask.entities:
            what = "no rule finds these; they need the `model` of a `task: mask` step"
            faults.append(Fault(self._at("mask", "entities"), "ORGANIZATION", what))
        return faults

    def _key_faults(self) -> list[Fault]:
        given = self._sql.schema
        if self.settings.key == "auto":
            taken = [name for name in given.names if name.lower() in AUTO_KEY.names]
            what = "`key: auto` adds the columns file and row, and the source has one of that name"
            return [Fault(self._at("key"), name, what, "use `rename`") for name in taken]
        faults = []
        for position, name in enumerate(self.settings.key):
            place = ("key", str(position))
            if name not in given.names:
                faults.append(self._missing(name, given.names, *place))
            elif types.is_nested(kind := given.field(name).type) or types.is_floating(kind) or types.is_null(kind):
                faults.append(
                    Fault(self._at(*place), name, f"expected a text, number, date or time column; it is {kind}")
                )
        if len(set(self.settings.key)) < len(self.settings.key) or not self.settings.key:
            faults.append(Fault(self._at("key"), list(self.settings.key), "expected one or more different columns"))
        return faults

    def mixed(self, name: str) -> str:
        """Why a column, by the name that tasks know, can't be read although some files have it; else empty."""
        back = {new: old for old, new in self.settings.rename.items()}
        return self._raw.mixed.get(back.get(name, name), "")

    def _missing(self, name: str, known: Sequence[str], *place: str) -> Fault:
        if why := self.mixed(name):
            return Fault(self._at(*place), name, why, "it is read, so all files must have it")
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        what = f"no such column in source '{self.name}'; it has {shown}"
        return Fault(self._at(*place), name, what, nearest(name, known))
