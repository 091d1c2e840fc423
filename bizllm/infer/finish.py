"""The stages that end a step: few large files instead of many small ones, then the audit of what will be published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.errors import RunError
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import ROW_GROUP_ROWS, PlainStage, Writer, stage_all
from bizllm.tables import dropped, storage
from bizllm.tables.audit import AuditResult, audit
from bizllm.tables.warehouse import StagedFile

TARGET_BYTES = 256 << 20  # of a published file, compressed; readers like 128 to 512 MB
GROUP_BYTES = 64 << 20  # of a row group while it is made, in memory


@dataclass(frozen=True)
class Pile:
    """Staged files that become one."""

    id: str
    files: tuple[StagedFile, ...]
    rejects: bool


@dataclass
class Compact(PlainStage):
    """Piles of small files, or of files that an unfinished run left, → one file each, with this run's id."""

    name: str = "compact"

    def read(self, unit: Pile) -> list[pa.Table]:
        """Nothing ahead: a pile is more than a worker should hold."""
        return []

    def work(self, unit: Pile, tables: list[pa.Table]) -> Receipt:
        """Write them as one file, holding the rows of one of them at a time."""
        context = self.context
        writer = Writer(context, self.name, unit.id)
        schema = context.reject_schema if unit.rejects else context.schema
        folder = context.reject_url if unit.rejects else context.data_url
        own = (_owned(_read(file.url), schema, context.run_id) for file in unit.files)
        files = tuple(stage_all(_grouped(own), schema, storage.join(folder, writer.file_name())))
        receipt = Receipt(self.name, unit.id, context.run_id, rows_in=sum(file.rows for file in files))
        return replace(receipt, reject_files=files) if unit.rejects else replace(receipt, files=files)


def _owned(table: pa.Table, schema: pa.Schema, run_id: str) -> pa.Table:
    """Its rows as this run's."""
    own = pa.repeat(pa.scalar(run_id), table.num_rows)
    return table.set_column(table.column_names.index("run_id"), schema.field("run_id"), own).cast(schema)


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Small tables together, as many as a row group holds."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if held and (rows + table.num_rows > ROW_GROUP_ROWS or size + table.nbytes > GROUP_BYTES):
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
        held.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
    if held:
        yield pa.concat_tables(held)


def piled(
    receipts: Sequence[Receipt], pick: Callable[[Receipt], Sequence[StagedFile]], run_id: str, *, rejects: bool
) -> tuple[list[StagedFile], list[Pile]]:
    """(files that may be published as they are, piles that must be made into one file first)."""
    keep: list[StagedFile] = []
    piles: list[list[tuple[StagedFile, bool]]] = []
    room = 0
    for receipt in receipts:
        for file in pick(receipt):
            if not piles or file.bytes > room:
                piles.append([])
                room = TARGET_BYTES
            piles[-1].append((file, receipt.run_id == run_id))
            room -= file.bytes
    made: list[Pile] = []
    for pile in piles:
        if len(pile) == 1 and pile[0][1]:
            keep.append(pile[0][0])
        else:
            made.append(Pile(f"{'r' if rejects else 'p'}{len(made):05d}", tuple(f for f, _ in pile), rejects))
    return keep, made


def replaced(receipts: Sequence[Receipt], published: Sequence[StagedFile]) -> list[str]:
    """Files that compaction wrote anew: once the step is published and its receipts are gone, nothing names them."""
    stay = {file.url for file in published}
    staged = (file.url for receipt in receipts for file in (*receipt.files, *receipt.reject_files))
    return [url for url in staged if url not in stay]


@dataclass(frozen=True)
class Slice:
    """The staged files of one night of one step."""

    urls: tuple[str, ...]
    counts: dict[str, int]
    id: str = "all"


@dataclass
class Audit(PlainStage):
    """One unit: the whole staged slice → how many rows broke each rule."""

    name: str = "audit"

    def read(self, unit: Slice) -> list[pa.Table]:
        """DuckDB reads the files itself."""
        return []

    def work(self, unit: Slice, tables: list[pa.Table]) -> Receipt:
        """Check schema, keys, rules and row accounting."""
        task = self.context.task
        rules = dropped.rules_of(task.rules(), task.settings.drop)
        results = audit(list(unit.urls), task.keys(), rules, unit.counts, self.context.schema)
        return Receipt(self.name, unit.id, self.context.run_id, extra={"audits": [asdict(r) for r in results]})


def audits_of(receipt: Receipt) -> list[AuditResult]:
    """What the audit stage found."""
    return [AuditResult(**raw) for raw in receipt.extra["audits"]]


def _read(url: str) -> pa.Table:
    def read() -> pa.Table:
        with storage.open_input(url) as source:
            return pq.read_table(source)

    try:
        return storage.again(url, "read", read)
    except FileNotFoundError:
        raise RunError(f"{url}: a receipt names this file, and it is gone") from None


def merged_exhibit(receipts: Sequence[Receipt], most: int = 64) -> pa.Table | None:
    """Exhibits of at most `most` units, one table: some rows for the report, whatever the step's size."""
    urls = [r.exhibit for r in receipts if r.exhibit]
    step = max(1, len(urls) // most)
    tables: list[Any] = [_read(url) for url in urls[::step][:most]]
    return pa.concat_tables(tables) if tables else None
