"""A folder of Parquet files, or one file: its schema, what is wrong with it, and its row groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from bizllm.errors import Fault, NoInput, RunError, StorageUnavailable, UserError, nearest
from bizllm.tables import storage
from bizllm.tables.bounds import days_of, may_hold
from bizllm.tables.manifest import Dates, FileSlices, FrozenFile, Part, Unit
from bizllm.tables.storage import FileInfo
from bizllm.tables.types import first_difference, normal_schema, unify

_FOOTER_THREADS = 32  # on an object store a footer is two round trips and no work
_FOOTERS_AT_ONCE = 512  # footers that wait to be taken: bounds the memory of a listing of 10^5 files
_LOOKED_AT = 256  # files whose footers `faults` reads; freezing looks at every file that it freezes
_NO_DATE = "__HIVE_DEFAULT_PARTITION__"  # where Hive and Spark put rows without a date
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class _Footer:
    """What is kept of a footer. row_groups: (rows, bytes, first day, last day) of each; days None where not known."""

    file: FileInfo
    schema: pa.Schema
    row_groups: tuple[tuple[int, int, date | None, date | None], ...]


class ParquetFiles:
    """The raw rows of a source under `path`, before columns, rename, filter and select.

    partition: a folder level `partition=YYYY-MM-DD` (then also a date32 column), or a date or timestamp column.
    columns: the raw columns that files must agree on; None for all.
    """

    def __init__(self, path: str, partition: str | None, columns: Sequence[str] | None, place: Callable[..., str]):
        self.path = path
        self.partition = partition
        self.columns = columns
        self._place: Callable[..., str] | None = place
        self._files: list[FileInfo] | None = None
        self._schema: pa.Schema | None = None
        self._names: list[str] = []
        self.mixed: dict[str, str] = {}  # columns that some files lack, or have in another type, and what differs

    def __getstate__(self) -> dict[str, Any]:
        # Workers get the schema, not the listing; a place in the YAML is nothing to them.
        return {**self.__dict__, "_files": None, "_place": None}

    # -- what is there --------------------------------------------------------------------------------------------

    def schema(self) -> pa.Schema:
        """The columns that all files have (of those that were looked at), in normal types. Raises UserError with every
        fault. A column of some files only, such as one that was added last week, is not among them: see `mixed`."""
        if self._schema is None and (faults := self.faults()):
            raise UserError(*faults)
        assert self._schema is not None
        return self._schema

    def names(self) -> list[str]:
        """Every column of the files, whether read or not; only after `faults`, for messages."""
        return [*self._names, *([self.partition] if self.partition and self.by_folder else [])]

    def faults(self) -> list[Fault]:
        """Everything wrong with the folder, its files and the partition."""
        try:
            files = self._listed()
        except FileNotFoundError:
            files = []
        except StorageUnavailable:
            raise  # no fault of what the user wrote
        except RunError as fault:
            return [Fault(self._at("path"), self.path, str(fault))]
        if not files:
            there = storage.exists(self.path)
            what = "the folder has no Parquet file" if there else "no such file or folder"
            return [Fault(self._at("path"), self.path, what)]
        footers, faults = self._footers(_sample(files, _LOOKED_AT), ())
        self._names = footers[0].schema.names if footers else []
        schema = self._agreed(footers)
        if not faults and schema is not None:
            faults += self._partition_faults(schema, files)
        if not faults:
            self._schema = schema
        return faults

    @property
    def by_folder(self) -> bool:
        """Whether the partition is a level of folders."""
        return self.partition is not None and any(self._level(file.url) is not None for file in self._listed()[:1])

    def file_name(self, url: str) -> str:
        """The file's name for people and for `key: auto`: its path below the source's own."""
        root = self._root()
        return url[len(root) :].lstrip("/") if url.startswith(root) and url != root else url.rsplit("/", 1)[-1]

    def snapshot(self, run_date: date, dates: Dates) -> None:
        """Files have none: each is frozen by its etag."""

    # -- freezing -------------------------------------------------------------------------------------------------

    def slices(self, run_date: date, dates: Dates, columns: Sequence[str]) -> Iterator[FileSlices]:
        """Files and their row groups that may hold rows of the wanted dates, in the order of their URLs.

        columns: raw columns that are read: their bytes count, and files must agree on them alone. Raises UserError for
        a date that is not there, for a file that is no Parquet, and for two files that differ.
        """
        schema = self.schema()
        files = self._of_dates(run_date, dates)
        found = dated = 0
        first = last = None
        used = set(columns) | ({self.partition} if self.partition else set())
        for footer in self._read_footers(files, used):
            if isinstance(footer, Fault):
                raise UserError(footer)
            wanted, shape = (pa.schema([f for f in self._own(s) if f.name in used]) for s in (schema, footer.schema))
            if difference := first_difference(wanted, shape):
                raise UserError(self._differ(self._listed()[0], footer.file, difference))
            if unify(wanted, shape) != wanted:
                what = "expected no wider types than in the files that were sampled, or one schema for all files"
                raise UserError(Fault(self._at("path"), self.file_name(footer.file.url), what))
            groups, at = [], 0
            for index, (rows, size, low, high) in enumerate(footer.row_groups):
                first = min(filter(None, (first, low)), default=None)
                last = max(filter(None, (last, high)), default=None)
                if rows and may_hold(low, high, run_date, dates):
                    groups.append((index, at, rows, size))
                    dated += 1
                at += rows
            found += 1
            file = footer.file
            yield FileSlices(FrozenFile(file.url, file.size, file.etag, at), self._level(file.url), groups)
        if found and not dated and first is not None and last is not None:
            what = f"expected a day that '{self.partition}' holds: from {first} to {last}"
            raise NoInput(Fault(self._at("partition"), run_date.isoformat(), what))

    def lacking(self, run_date: date, dates: Dates) -> Fault | None:
        """Why `slices` would find nothing of the date; the listing tells it, or else footers."""
        try:
            if self.by_folder:
                self._of_dates(run_date, dates)
            elif self.partition is not None and dates != "all":
                any(file.row_groups for file in self.slices(run_date, dates, ()))
        except NoInput as missing:
            return missing.faults[0]
        return None

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, unit: Unit, part: Part, columns: Sequence[str]) -> pa.Table:
        """A part's rows with these raw columns, in the file's order.

        Rows outside the unit's dates are still there, so that positions can be counted: `bounds.date_mask` names them.
        """
        schema = self.schema()
        from_file = [name for name in columns if not self._is_level(part, name)]
        with storage.explained(part.url, "read"):
            try:
                with storage.open_input(part.url) as stream, pq.ParquetFile(stream, pre_buffer=True) as file:
                    groups = list(range(*part.row_groups))
                    rows = file.read_row_groups(groups, columns=from_file, use_threads=False)
            except pa.ArrowInvalid as fault:
                raise RunError(f"{part.url}: can't read row groups {part.row_groups}: no valid Parquet") from fault
        rows = rows.slice(part.skip, part.rows)
        assert rows.num_rows == part.rows, "a footer counts what the file holds"
        arrays = []
        for name in columns:
            kind = schema.field(name).type
            if self._is_level(part, name):
                day = pa.scalar(date.fromisoformat(part.partition or ""), pa.date32())
                arrays.append(pa.chunked_array([pa.repeat(day, part.rows)]))
            else:
                arrays.append(_cast(rows.column(name), kind, part.url, name))
        if not columns:
            return rows
        return pa.table(arrays, schema=pa.schema([schema.field(name) for name in columns]))

    def date_column(self, part: Part) -> str | None:
        """The column that decides a row's date, where no folder level does."""
        return self.partition if part.partition is None else None

    # -- inside ---------------------------------------------------------------------------------------------------

    def _at(self, key: str) -> str:
        assert self._place is not None, "faults are found on the driver"
        return self._place(key)

    def _root(self) -> str:
        if storage.is_local(self.path):
            return storage.filesystem(self.path)[1]
        return self.path.rstrip("/")

    def _listed(self) -> list[FileInfo]:
        if self._files is None:
            root = self._root()
            found = storage.list_files(self.path)
            self._files = [file for file in found if not _hidden(file.url[len(root) :])]
        return self._files

    def _level(self, url: str) -> str | None:
        if self.partition is None:
            return None
        for step in url[len(self._root()) :].split("/")[:-1]:
            name, sep, value = step.partition("=")
            if sep and name == self.partition:
                return value
        return None

    def _is_level(self, part: Part, name: str) -> bool:
        return part.partition is not None and name == self.partition

    def _of_dates(self, run_date: date, dates: Dates) -> list[FileInfo]:
        files = self._listed()
        if not self.by_folder:
            return files
        day = run_date.isoformat()
        levels = [(file, self._level(file.url) or "") for file in files]
        levels = [(file, level) for file, level in levels if level != _NO_DATE]
        wanted = [
            file for file, level in levels if dates == "all" or level == day or (dates == "to_date" and level < day)
        ]
        if not wanted:
            there = sorted({level for _, level in levels}, reverse=True)
            shown = ", ".join(there[:5]) + (f", … ({len(there)} in all)" if len(there) > 5 else "")
            what = f"expected a partition '{self.partition}' that is there; the newest: {shown}"
            raise NoInput(Fault(self._at("partition"), day, what))
        return wanted

    def _footers(self, files: Sequence[FileInfo], used: Sequence[str]) -> tuple[list[_Footer], list[Fault]]:
        read = list(self._read_footers(files, set(used)))
        return [f for f in read if isinstance(f, _Footer)], [f for f in read if isinstance(f, Fault)]

    def _read_footers(self, files: Sequence[FileInfo], used: set[str]) -> Iterator[_Footer | Fault]:
        """In the order of `files`, several at once, a bounded number ahead."""
        waiting = iter(files)
        with ThreadPoolExecutor(min(_FOOTER_THREADS, max(1, len(files)))) as pool:
            while batch := list(islice(waiting, _FOOTERS_AT_ONCE)):
                yield from pool.map(lambda file: self._footer(file, used), batch)

    def _footer(self, file: FileInfo, used: set[str]) -> _Footer | Fault:
        name = self.file_name(file.url)

        def read() -> _Footer | Fault:
            with storage.open_input(file.url) as stream:
                try:
                    with pq.ParquetFile(stream) as opened:
                        by_column = None if self.partition is None or self._level(file.url) else self.partition
                        schema = opened.schema_arrow.remove_metadata()
                        return _Footer(file, schema, _row_groups(opened, used, by_column))
                except (pa.ArrowException, OSError) as fault:
                    if storage.named(fault):  # the store's fault, not the file's
                        raise
                    return Fault(self._at("path"), name, "expected a Parquet file")

        try:
            return storage.again(file.url, "read", read)
        except FileNotFoundError:
            return Fault(self._at("path"), name, "the file is gone since it was listed")

    def _own(self, schema: pa.Schema) -> pa.Schema:
        """The part of a file's schema that matters, in normal types, without a column that a folder level gives."""
        level = self.partition if self.by_folder else None
        normal = normal_schema(schema)
        if self.columns is not None:
            wanted = {*self.columns, *([self.partition] if self.partition else [])}
            normal = pa.schema([field for field in normal if field.name in wanted])
        return pa.schema([field for field in normal if field.name != level])

    def _agreed(self, footers: Sequence[_Footer]) -> pa.Schema | None:
        """The columns that all of them have in types that go together; the others are noted in `mixed`."""
        if not footers:
            return None
        first = footers[0]
        agreed = {field.name: field.type for field in self._own(first.schema)}
        self.mixed = {}
        for footer in footers[1:]:
            own = {field.name: field.type for field in self._own(footer.schema)}
            for name in [*agreed, *(name for name in own if name not in agreed and name not in self.mixed)]:
                if name in agreed and agreed[name] == own.get(name):
                    continue
                one = pa.schema([(name, agreed[name])] if name in agreed else [])
                other = pa.schema([(name, own[name])] if name in own else [])
                if difference := first_difference(one, other):
                    self.mixed[name] = self._said(first.file, footer.file, difference)
                    agreed.pop(name, None)
                else:
                    agreed[name] = unify(one, other).field(0).type
        return pa.schema([*agreed.items(), *([(self.partition, pa.date32())] if self.by_folder else [])])

    def _said(self, one: FileInfo, other: FileInfo, difference: str) -> str:
        names = f"{self.file_name(one.url)} and {self.file_name(other.url)}"
        return f"expected files of one schema, but in {names} {difference}"

    def _differ(self, one: FileInfo, other: FileInfo, difference: str) -> Fault:
        what = self._said(one, other, difference)
        return Fault(self._at("path"), None, what, "it is read, so all files must have it")

    def _partition_faults(self, schema: pa.Schema, files: Sequence[FileInfo]) -> list[Fault]:
        if self.partition is None:
            return []
        place = self._at("partition")
        if self.by_folder:
            for file in files:
                level = self._level(file.url)
                if level is None:
                    what = f"expected every file below a folder {self.partition}=YYYY-MM-DD"
                    return [Fault(place, self.file_name(file.url), what)]
                if level != _NO_DATE and not _is_day(level):
                    what = "expected folders with dates as YYYY-MM-DD"
                    return [Fault(place, f"{self.partition}={level}", what)]
            return []
        at = schema.get_field_index(self.partition)
        if at < 0:
            what = f"expected a folder level {self.partition}=YYYY-MM-DD, or a column of the files"
            return [Fault(place, self.partition, what, nearest(self.partition, schema.names))]
        kind = schema.field(at).type
        if not (types.is_date(kind) or types.is_timestamp(kind)):
            what = f"expected a date or timestamp column; it is {kind}"
            return [Fault(place, self.partition, what)]
        return []


def _row_groups(
    file: pq.ParquetFile, used: set[str], dated: str | None
) -> tuple[tuple[int, int, date | None, date | None], ...]:
    footer = file.metadata
    paths = [file.schema.column(i).path.split(".", 1)[0] for i in range(footer.num_columns)]
    counted = [i for i, name in enumerate(paths) if name in used]
    at = paths.index(dated) if dated in paths else None
    found = []
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        size = sum(group.column(i).total_uncompressed_size for i in counted)
        low, high = days_of(group.column(at)) if at is not None else (None, None)
        found.append((group.num_rows, size, low, high))
    return tuple(found)


def _cast(column: pa.ChunkedArray, kind: pa.DataType, url: str, name: str) -> pa.ChunkedArray:
    try:
        if isinstance(column.type, pa.BaseExtensionType):
            column = pc.cast(column, column.type.storage_type)
        return column if column.type == kind else column.cast(kind)
    except pa.ArrowInvalid as fault:  # Arrow's own message quotes the value
        reason = f"its {column.type} holds values that {kind} can't hold"
        raise RunError(f"{url}: column '{name}': {reason}; leave it out with `columns` or write it coarser") from fault


def _hidden(path: str) -> bool:
    return any(step.startswith(("_", ".")) and "=" not in step for step in path.split("/"))


def _is_day(text: str) -> bool:
    try:
        return bool(_DAY.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _sample(files: Sequence[FileInfo], count: int) -> list[FileInfo]:
    """Evenly spread, the first and the last among them."""
    if len(files) <= count:
        return list(files)
    return [files[round(i * (len(files) - 1) / (count - 1))] for i in range(count)]
