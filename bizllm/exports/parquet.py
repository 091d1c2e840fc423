"""A folder of Parquet files, local or on an object store: one file a night, put in place whole."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm import logs
from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName
from bizllm.tables import storage

EXPECTS = "a folder, local or s3://, gs://, abfs://; files are put below it as SCHEMA/TABLE/run_date=D/night.parquet"
EXTRA = ""
LEFT_AFTER_S = 24 * 3600.0  # an export that began before is dead
_ASIDE = re.compile(r"/_[0-9a-f]{32}\.tmp$")
_log = logs.get(__name__)


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[Parquet]:
    """The folder need not be there."""
    if storage.is_local(target) and os.path.isfile(target):
        raise UserError(Fault(PLACE, target, f"expected {EXPECTS}"))
    folder = storage.join(target, table.schema, table.name)
    _sweep(folder)
    yield Parquet(folder)


class Parquet:
    """One table's folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """Readers of the folder see the old file or the new one."""
        final = storage.join(self._folder, f"run_date={night}", "night.parquet")
        aside = storage.join(self._folder, f"_{uuid4().hex}.tmp")  # which no reader takes for a part of the table
        count = 0
        try:
            with (
                storage.replacing(final, aside) as stream,
                pq.ParquetWriter(stream, rows.schema, compression="zstd") as out,
            ):
                for batch in rows:
                    out.write_batch(batch)
                    count += batch.num_rows
        except OSError as fault:
            raise RunError(f"parquet {self._folder}, night {night}: {type(fault).__name__}") from None
        return count


def _sweep(folder: str) -> None:
    """Delete what exports that were killed have left. Nobody reads it, so nothing fails over it."""
    before = time.time() - LEFT_AFTER_S
    try:
        for file in storage.list_files(folder, recursive=False):
            if _ASIDE.search(file.url) and file.modified < before:
                storage.delete(file.url)
        for upload in storage.unfinished_uploads(folder):
            if upload.modified < before:
                storage.abort_upload(upload)
    except RunError as fault:
        _log.info("export_leftovers_kept", error=str(fault))
