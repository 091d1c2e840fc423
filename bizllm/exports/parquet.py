"""A folder of Parquet files, local or on an object store: one file a night, put in place whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName
from bizllm.tables import storage

EXPECTS = "a folder, local or s3://, gs://, abfs://; files are put below it as SCHEMA/TABLE/run_date=D/night.parquet"
EXTRA = ""


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[Parquet]:
    """The folder need not be there."""
    if storage.is_local(target) and os.path.isfile(target):
        raise UserError(Fault(PLACE, target, f"expected {EXPECTS}"))
    yield Parquet(storage.join(target, table.schema, table.name))


class Parquet:
    """One table's folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """Written beside under another name, then moved: readers of the folder see the old file or the new one."""
        final = storage.join(self._folder, f"run_date={night}", "night.parquet")
        aside = storage.join(self._folder, f"_{uuid4().hex}.tmp")  # which no reader takes for a part of the table
        count = 0
        try:
            with storage.open_output(aside) as stream, pq.ParquetWriter(stream, rows.schema, compression="zstd") as out:
                for batch in rows:
                    out.write_batch(batch)
                    count += batch.num_rows
            self._move(aside, final)
        except BaseException as fault:
            with suppress(OSError, RunError):
                storage.delete(aside)
            if isinstance(fault, OSError):
                raise RunError(f"parquet {self._folder}, night {night}: {type(fault).__name__}") from None
            raise
        return count

    def _move(self, aside: str, final: str) -> None:
        store, source = storage.filesystem(aside)
        place = storage.filesystem(final)[1]
        if storage.is_local(final):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.replace(source, place)
        else:
            storage.again(final, "write", lambda: store.copy_file(source, place))
            storage.delete(aside)
