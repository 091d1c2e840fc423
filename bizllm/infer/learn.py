"""The stage of a step that reads further tables whole: what the task learns of them, once, kept beside its table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bizllm.infer.learned import load, to_bytes
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import TaskStage, Writer
from bizllm.tables import hashing, storage
from bizllm.tables.manifest import Manifest, checked
from bizllm.tables.source import Source

MOST_ROWS = 2_000_000  # of a table that is read whole: one worker holds it


@dataclass(frozen=True)
class WholeTable:
    """A table that is read whole, frozen. columns: those that the task's settings name, each once."""

    source: Source
    manifest: Manifest
    columns: tuple[str, ...]


@dataclass(frozen=True)
class AllTables:
    """The one unit."""

    id: str = "all"


@dataclass
class Learn(TaskStage):
    """Whole tables → what the task learned of them. `extra`: `learned`, its URL; `learned_from`, a hash of the rows.

    tables: by setting. url: where it goes. previous: an earlier night's `extra`, of the same settings and models; what
    it learned stands, where it learned of the same rows.
    """

    tables: Mapping[str, WholeTable]
    url: str
    previous: Mapping[str, str]
    name: str = "learn"

    def read(self, unit: AllTables) -> list[pa.Table]:
        """Each table, in the order of the settings."""
        return [_whole(table) for table in self.tables.values()]

    def work(self, unit: AllTables, tables: list[pa.Table]) -> Receipt:
        """Learn, and keep it."""
        writer = Writer(self.context, self.name, unit.id)
        found, said = {}, hashlib.sha256()
        for setting, table in zip(self.tables, tables, strict=True):
            found[setting], words = _ordered(table)
            said.update(f"{setting}\0{table.num_rows}\0".encode() + words)
        learned_from, url = said.hexdigest(), self.previous.get("learned")
        kept = url is not None and storage.exists(url)
        if url is None or not kept or self.previous.get("learned_from") != learned_from:
            previous = load(url) if url is not None and kept else None
            url = self.url
            storage.write_bytes(url, to_bytes(self.context.task.learn(found, previous)))
        return writer.receipt(0, extra={"learned": url, "learned_from": learned_from})


def _whole(table: WholeTable) -> pa.Table:
    parts = []
    for unit in table.manifest.units:
        with checked(unit):
            parts.append(table.source.read(unit, list(table.columns)))
    schema = table.source.schema()
    return pa.concat_tables(parts) if parts else pa.schema([schema.field(c) for c in table.columns]).empty_table()


def _ordered(table: pa.Table) -> tuple[pa.Table, bytes]:
    """(the rows in the order of their hashes, whatever files they came in; those hashes)."""
    words = np.stack(hashing.row_hashes(table, table.column_names), axis=1)
    order = np.lexsort((words[:, 1], words[:, 0]))
    return table.take(pa.array(order)), words[order].tobytes()
