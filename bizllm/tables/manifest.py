"""The frozen input of a step: which files, which row groups, cut into units of work.

A manifest is made once, before any work, and is kept by an unfinished run: the units are the grain of resume, so they
never move while the manifest lives. Freezing reads file footers, never rows.
"""

from __future__ import annotations

import base64
import builtins
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from bizllm.errors import RunError
from bizllm.tables import storage

if TYPE_CHECKING:
    from bizllm.tables.source import Source

Dates = Literal["day", "to_date", "all"]

_FORMAT = 1
_VERIFY_THREADS = 16


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring row groups of one file. For an Iceberg scan: one whole data file.

    row_groups: (start, stop); (0, 0) means the whole file.
    first_row: position in the file of the part's first row. rows: as the footer counts them, before any filter.
    partition: the ISO date of the folder level, where the source is partitioned by one.
    skip: rows of the first row group that come before the part's, where a row group is larger than a unit.
    """

    url: str
    size: int
    etag: str
    row_groups: tuple[int, int]
    first_row: int
    rows: int
    partition: str | None = None
    skip: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an Iceberg table that was frozen, and which of its rows: (operator, column, ISO value) that hold.

    snapshot_id: None for a table that has no snapshot, and so no files.
    """

    metadata_location: str
    snapshot_id: int | None
    where: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """A slice of the input that is read, answered and written as one. run_date bounds what of it may be read."""

    id: str
    parts: tuple[Part, ...]
    dates: Dates = "all"
    run_date: str = ""
    snapshot: Snapshot | None = None

    @property
    def rows(self) -> int:
        """Rows before any filter."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class FrozenFile:
    """A file of the input and how many rows its footer counts."""

    url: str
    size: int
    etag: str
    rows: int


LEAST_ROWS, MOST_ROWS = 4_000, 50_000  # of a unit whose size nobody chose


@dataclass(frozen=True, slots=True)
class FileSlices:
    """A file with the row groups of it that take part: (row groups,) of (index, first_row, rows, bytes).

    The index is -1 for a whole file whose row groups nobody looked at.
    """

    file: FrozenFile
    partition: str | None
    row_groups: Sequence[tuple[int, int, int, int]]


@dataclass(frozen=True)
class Manifest:
    """Everything a step reads, decided once. rows and bytes are sums over the units, before any filter.

    hash: over files, sizes, etags, row counts, the table's snapshot and the source's settings. Not over the units.
    """

    source: str
    dates: Dates
    run_date: str
    files: tuple[FrozenFile, ...]
    units: tuple[Unit, ...]
    rows: int
    bytes: int
    schema: pa.Schema
    hash: str
    snapshot: Snapshot | None = field(default=None)

    def to_json(self) -> str:
        """Compact JSON: parts name their file by its position in `files`."""
        at = {file.url: position for position, file in enumerate(self.files)}
        return json.dumps(
            {
                "format": _FORMAT,
                "source": self.source,
                "dates": self.dates,
                "run_date": self.run_date,
                "rows": self.rows,
                "bytes": self.bytes,
                "hash": self.hash,
                "schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
                "snapshot": asdict(self.snapshot) if self.snapshot else None,
                "files": [[file.url, file.size, file.etag, file.rows] for file in self.files],
                "units": [
                    [
                        unit.id,
                        [[at[p.url], *p.row_groups, p.first_row, p.rows, p.partition, p.skip] for p in unit.parts],
                    ]
                    for unit in self.units
                ],
            },
            separators=(",", ":"),
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str | builtins.bytes) -> Manifest:
        """The manifest that `to_json` wrote. Raises RunError where a newer version of bizllm wrote it."""
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise RunError(f"the kept manifest has format {said['format']}, this version reads {_FORMAT}; use --fresh")
        files = tuple(FrozenFile(*file) for file in said["files"])
        at = said["snapshot"]
        where = tuple((op, column, value) for op, column, value in at["where"]) if at else ()
        snapshot = Snapshot(at["metadata_location"], at["snapshot_id"], where) if at else None

        def part(at: int, start: int, stop: int, first_row: int, rows: int, partition: str | None, skip: int) -> Part:
            file = files[at]
            return Part(file.url, file.size, file.etag, (start, stop), first_row, rows, partition, skip)

        units = tuple(
            Unit(name, tuple(part(*given) for given in parts), said["dates"], said["run_date"], snapshot)
            for name, parts in said["units"]
        )
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said["schema"])))
        return cls(
            source=said["source"],
            dates=said["dates"],
            run_date=said["run_date"],
            files=files,
            units=units,
            rows=said["rows"],
            bytes=said["bytes"],
            schema=schema,
            hash=said["hash"],
            snapshot=snapshot,
        )


def freeze(
    source: Source,
    run_date: date,
    dates: Dates,
    columns: Sequence[str],
    unit_rows: int | None = 100_000,
    unit_bytes: int = 256 * 2**20,
) -> Manifest:
    """Fix what a step reads on `run_date` and cut it into units.

    columns: what the step will read of the source (after rename and select): bytes are counted over these alone.
    unit_rows, unit_bytes: upper bounds of a unit (uncompressed bytes); a larger row group is cut by rows. Without
        unit_rows, as `spread_rows` has it.
    Raises UserError where the source is faulty or has no partition for the date.
    """
    snapshot = source.snapshot(run_date, dates)
    files: list[FrozenFile] = []

    def noted() -> Iterator[FileSlices]:
        for slices in source.slices(run_date, dates, columns):
            files.append(slices.file)
            yield slices

    noted_files = list(noted())
    if unit_rows is None:
        unit_rows = spread_rows(sum(rows for slices in noted_files for _, _, rows, _ in slices.row_groups))
    packed = list(pack(noted_files, unit_rows, unit_bytes))
    units = tuple(
        Unit(f"u{position:05d}", parts, dates, run_date.isoformat(), snapshot)
        for position, (parts, _) in enumerate(packed)
    )
    return Manifest(
        source=source.name,
        dates=dates,
        run_date=run_date.isoformat(),
        files=tuple(files),
        units=units,
        rows=sum(unit.rows for unit in units),
        bytes=sum(size for _, size in packed),
        schema=source.schema(),
        hash=_hash(source, files, snapshot),
        snapshot=snapshot,
    )


def spread_rows(rows: int) -> int:
    """Rows of a unit, so that workers end at about the same time: some 16 units, a multiple of 4, none far below
    LEAST_ROWS or above MOST_ROWS. Not a matter of the machine, so that a plan tells what a cluster will do."""
    if rows <= LEAST_ROWS:
        return LEAST_ROWS
    units = -(-rows // min(MOST_ROWS, max(LEAST_ROWS, rows // 16)))
    return -(-rows // (-(-units // 4) * 4))


def pack(files: Iterable[FileSlices], unit_rows: int, unit_bytes: int) -> Iterator[tuple[tuple[Part, ...], int]]:
    """Fill units in order, each with as many row groups as its bounds allow: (parts, bytes) for each.

    Order is kept, so neighbours stay together: small files share a unit, a large file takes several.
    """
    assert unit_rows > 0 and unit_bytes > 0
    parts: list[Part] = []
    rows = size = 0
    for slices in files:
        for index, first_row, count, weight in slices.row_groups:
            pieces = min(count, max(-(-count // unit_rows), -(-weight // unit_bytes))) if index >= 0 else 1
            if pieces > 1:
                if parts:
                    yield tuple(parts), size
                    parts, rows, size = [], 0, 0
                yield from _cut(slices, index, first_row, count, weight, pieces)
                continue
            if parts and (rows + count > unit_rows or size + weight > unit_bytes):
                yield tuple(parts), size
                parts, rows, size = [], 0, 0
            _append(parts, slices, index, first_row, count)
            rows, size = rows + count, size + weight
    if parts:
        yield tuple(parts), size


def _cut(
    slices: FileSlices, index: int, first_row: int, count: int, weight: int, pieces: int
) -> Iterator[tuple[tuple[Part, ...], int]]:
    """A row group that is larger than a unit, in equal pieces. Each piece reads the row group and keeps its rows: cheap
    beside a model, and the grain of resume stays small."""
    file = slices.file
    for piece in range(pieces):
        start, stop = count * piece // pieces, count * (piece + 1) // pieces
        at = (index, index + 1)
        part = Part(file.url, file.size, file.etag, at, first_row + start, stop - start, slices.partition, start)
        yield (part,), weight * stop // count - weight * start // count


@contextmanager
def checked(unit: Unit) -> Iterator[None]:
    """The block reads the unit's files. Whatever came of it, they are then held against what was frozen, so that a
    change before the reading or in its midst is told by the file's name. Raises as `verify` does."""
    try:
        yield
    finally:
        verify(unit)


def verify(unit: Unit) -> None:
    """Check that the unit's files are what was frozen. Raises RunError that names the first changed file.

    An Iceberg snapshot's files never change, so there is nothing to check of them.
    """
    if unit.snapshot is not None:
        return
    frozen = {part.url: part for part in unit.parts}

    def changed(part: Part) -> str | None:
        now = storage.stat(part.url)
        if now is None:
            return f"{part.url}: the file is gone since the input was frozen"
        if (now.size, now.etag) != (part.size, part.etag):
            return f"{part.url}: the file changed since the input was frozen"
        return None

    with ThreadPoolExecutor(min(_VERIFY_THREADS, len(frozen))) as pool:
        for fault in pool.map(changed, frozen.values()):
            if fault:
                raise RunError(f"{fault}; run again with --fresh to freeze it anew")


def _append(parts: list[Part], slices: FileSlices, index: int, first_row: int, rows: int) -> None:
    file, groups = slices.file, (index, index + 1) if index >= 0 else (0, 0)
    if parts and index > 0 and parts[-1].url == file.url and parts[-1].row_groups[1] == index:
        last = parts.pop()
        groups, first_row, rows = (last.row_groups[0], index + 1), last.first_row, last.rows + rows
    parts.append(Part(file.url, file.size, file.etag, groups, first_row, rows, slices.partition))


def _hash(source: Source, files: Sequence[FrozenFile], snapshot: Snapshot | None) -> str:
    # Not the snapshot's id: a commit of another date changes nothing of these files. Deletes are in their etags.
    said: list[Any] = [source.settings.model_dump(mode="json"), snapshot.where if snapshot else None]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for file in files:
        digest.update(json.dumps([file.url, file.size, file.etag, file.rows]).encode())
    return digest.hexdigest()
