"""A data file's Iceberg statistics, taken where the file is written, so that the publisher opens no footer."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from pyiceberg import manifest
    from pyiceberg.table.metadata import TableMetadata

_COUNTS = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts")
_BOUNDS = ("lower_bounds", "upper_bounds")
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A Parquet file that was written aside and belongs to no table yet. Every field goes through JSON unchanged.

    bytes: the file's size. statistics: by column *name*, since the writer knows no field ids: counts and sizes as
    integers, bounds in base64 of Iceberg's single-value serialization, and `split_offsets`.
    """

    url: str
    rows: int
    bytes: int
    statistics: dict[str, Any]


def describe(url: str, metadata: pq.FileMetaData, size: int) -> StagedFile:
    """What the publisher must know of a file, from the metadata that its `ParquetWriter` collected.

    size: bytes of the file. Bounds of text are cut to 16 characters, as Iceberg's default `truncate(16)` does.
    """
    from pyiceberg.io.pyarrow import (
        _pyarrow_to_schema_without_ids,
        compute_statistics_plan,
        data_file_statistics_from_parquet_metadata,
        parquet_path_to_id_mapping,
    )
    from pyiceberg.schema import assign_fresh_schema_ids

    schema = assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(metadata.schema.to_arrow_schema()))
    found = data_file_statistics_from_parquet_metadata(
        metadata, compute_statistics_plan(schema, {}), parquet_path_to_id_mapping(schema)
    ).to_serialized_dict()
    names = {field_id: schema.find_column_name(field_id) for field_id in schema.field_ids}
    statistics: dict[str, Any] = {"split_offsets": list(found["split_offsets"] or [])}
    for kind in _COUNTS:
        statistics[kind] = {names[i]: int(count) for i, count in (found[kind] or {}).items()}
    for kind in _BOUNDS:
        statistics[kind] = {
            names[i]: base64.b64encode(bound).decode()
            for i, bound in (found[kind] or {}).items()
            if bound is not None  # no bound where the longest text has no successor
        }
    return StagedFile(url, metadata.num_rows, size, statistics)


def data_file(staged: StagedFile, metadata: TableMetadata, run_date: date) -> manifest.DataFile:
    """The staged file as an entry of the table's slice `run_date`."""
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record

    schema = metadata.schema()
    ids = {schema.find_column_name(field_id): field_id for field_id in schema.field_ids}
    day = (run_date - _EPOCH).days
    by_name = staged.statistics
    bounds = {kind: {ids[name]: base64.b64decode(bound) for name, bound in by_name[kind].items()} for kind in _BOUNDS}
    written = {bound.get(ids["run_date"]) for bound in bounds.values()}
    assert written == {day.to_bytes(4, "little", signed=True)}, f"a file staged for {run_date} holds other dates"
    counts: dict[str, Any] = {kind: {ids[name]: count for name, count in by_name[kind].items()} for kind in _COUNTS}
    fields: dict[str, Any] = counts | bounds
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=staged.url,
        file_format=FileFormat.PARQUET,
        partition=Record(day),
        record_count=staged.rows,
        file_size_in_bytes=staged.bytes,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        split_offsets=by_name["split_offsets"],
        **fields,
    )
