"""BigQuery: a night is one load job that truncates one partition of a table partitioned by run_date."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from bizllm.errors import Fault, RunError, UserError
from bizllm.exports.base import PLACE, TableName, check_count, client_of, parts, shown
from bizllm.exports.types import Counted, converted

EXPECTS = "bigquery://PROJECT, with ?location=EU where data sets are made; Google's default credentials let it in"
EXTRA = "bigquery"


@contextmanager
def connect(target: str, table: TableName, keys: list[str]) -> Iterator[BigQuery]:
    """A client of one project. BIGQUERY_EMULATOR_HOST, which the client honours, stands for a service without login."""
    _, project, _, path, options = parts(target, "bigquery", EXPECTS)
    if path or set(options) - {"location"}:
        raise UserError(Fault(PLACE, shown(target), f"expected {EXPECTS}"))
    with client_of("bigquery", EXTRA):
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import bigquery
    anonymous = AnonymousCredentials() if os.environ.get("BIGQUERY_EMULATOR_HOST") else None  # type: ignore[no-untyped-call]
    try:
        client = bigquery.Client(project, credentials=anonymous, location=options.get("location"))
    except (GoogleAuthError, GoogleAPIError) as fault:
        raise UserError(Fault(PLACE, shown(target), f"no credentials ({type(fault).__name__})")) from None
    try:
        yield BigQuery(client, table, (GoogleAPIError, GoogleAuthError))
    finally:
        client.close()


class BigQuery:
    """One table in one project."""

    def __init__(self, client: Any, table: TableName, errors: tuple[type[Exception], ...]) -> None:
        self._client, self._table, self._errors = client, table, errors

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """A load job is atomic and takes one file, so the night is written to a local one first."""
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        sent = Counted(converted(rows, _is_json))
        with tempfile.TemporaryFile() as file:
            with pq.ParquetWriter(file, sent.reader.schema, compression="snappy") as out:
                for batch in sent.reader:
                    out.write_batch(batch)
            file.seek(0)
            parquet = bigquery.ParquetOptions()
            parquet.enable_list_inference = True  # else a list is a record of records
            config = bigquery.LoadJobConfig(
                source_format="PARQUET",
                parquet_options=parquet,
                schema=[_field(field) for field in sent.reader.schema],
                time_partitioning=bigquery.TimePartitioning("DAY", "run_date"),
                write_disposition="WRITE_TRUNCATE",
                create_disposition="CREATE_IF_NEEDED",
                schema_update_options=["ALLOW_FIELD_ADDITION"],
            )
            try:
                project = self._client.project
                try:
                    self._client.get_dataset(f"{project}.{self._table.schema}")
                except NotFound:  # making one wants a right of its own
                    self._client.create_dataset(f"{project}.{self._table.schema}", exists_ok=True)
                place = f"{project}.{self._table.schema}.{self._table.name}${night:%Y%m%d}"
                job = self._client.load_table_from_file(file, place, job_config=config)
                job.result()
            except self._errors as fault:
                told = f"{type(fault).__name__} {getattr(fault, 'code', '')}".strip()
                raise RunError(f"bigquery {self._table}, night {night}: {told}") from None
        return check_count(self._table, night, job.output_rows, sent.rows)


def _field(field: pa.Field) -> Any:
    """The column as BigQuery declares it; said, since a column of an empty file has nothing to infer from."""
    from google.cloud import bigquery

    kind, mode = field.type, "NULLABLE"
    if types.is_list(kind):
        kind, mode = kind.value_type, "REPEATED"
    inner = [_field(one) for one in kind] if types.is_struct(kind) else ()
    return bigquery.SchemaField(field.name, _type(kind), mode=mode, fields=inner)


def _type(kind: pa.DataType) -> str:
    if types.is_struct(kind):
        return "RECORD"
    if types.is_decimal(kind):
        return "NUMERIC" if kind.scale <= 9 and kind.precision <= 38 else "BIGNUMERIC"
    if types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    names = {
        pa.bool_(): "BOOLEAN",
        pa.int64(): "INTEGER",
        pa.float64(): "FLOAT",
        pa.string(): "STRING",
        pa.binary(): "BYTES",
        pa.date32(): "DATE",
        pa.time64("us"): "TIME",
    }
    return names[kind]


def _is_json(kind: pa.DataType) -> bool:
    """Maps, and lists of lists: BigQuery has neither."""
    if types.is_map(kind):
        return True
    if types.is_list(kind):
        return bool(types.is_list(kind.value_type)) or _is_json(kind.value_type)
    return bool(types.is_struct(kind)) and any(_is_json(field.type) for field in kind)
