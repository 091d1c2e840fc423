"""The stages that end a step: few large files instead of many small ones, then the audit of what will be published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.infer.receipts import Receipt
from bizllm.infer.work import PlainStage, Writer, stage
from bizllm.tables import dropped, storage
from bizllm.tables.audit import AuditResult, audit
from bizllm.tables.warehouse import StagedFile

TARGET_BYTES = 256 << 20  # of a published file, compressed; readers like 128 to 512 MB


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
        """All rows of the pile."""
        return [pa.concat_tables([_read(file.url) for file in unit.files])]

    def work(self, unit: Pile, tables: list[pa.Table]) -> Receipt:
        """Write them as one file."""
        (table,) = tables
        context = self.context
        writer = Writer(context, self.name, unit.id)
        schema = context.reject_schema if unit.rejects else context.schema
        run_id = pa.array([context.run_id] * table.num_rows)
        table = table.set_column(table.column_names.index("run_id"), schema.field("run_id"), run_id).cast(schema)
        folder = context.reject_url if unit.rejects else context.data_url
        files = tuple(stage(table, storage.join(folder, writer.file_name())))
        receipt = Receipt(self.name, unit.id, context.run_id, rows_in=table.num_rows)
        return replace(receipt, reject_files=files) if unit.rejects else replace(receipt, files=files)


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

    return storage.again(url, "read", read)


def merged_exhibit(receipts: Sequence[Receipt], most: int = 64) -> pa.Table | None:
    """Exhibits of at most `most` units, one table: some rows for the report, whatever the step's size."""
    urls = [r.exhibit for r in receipts if r.exhibit]
    step = max(1, len(urls) // most)
    tables: list[Any] = [_read(url) for url in urls[::step][:most]]
    return pa.concat_tables(tables) if tables else None
