"""The raw rows of an Iceberg table's snapshot: whole data files, read through the warehouse's catalog client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.tables.manifest import Dates, FileSlices, FrozenFile, Part, Snapshot, Unit
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.types import normal_schema

if TYPE_CHECKING:
    from bizllm.tables.iceberg_source import IcebergScan


class Tables(Protocol):
    """What is needed of a warehouse."""

    @property
    def settings(self) -> WarehouseSettings: ...

    def freeze_scan(
        self, identifier: str, run_date: date, partition_column: str | None, mode: Dates, place: str = ...
    ) -> IcebergScan: ...


class IcebergRows:
    """Rows of `table`, bounded by its date column `partition`; the scan applies deletes and the dates' condition.

    place: of the setting, for faults.
    """

    def __init__(self, table: str, partition: str | None, warehouse: Tables, place: str) -> None:
        self.table, self.partition, self._place = table, partition, place
        self._warehouse: Tables | None = warehouse
        self._properties = dict(warehouse.settings.properties)
        self._schema: pa.Schema | None = None
        self.mixed: dict[str, str] = {}  # a table has one schema
        self._frozen: dict[tuple[date, Dates], IcebergScan] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_warehouse": None, "_frozen": {}}

    def schema(self) -> pa.Schema:
        """Of the newest snapshot when it was first asked for."""
        if self._schema is None:
            self._schema = normal_schema(self._looked_at().schema)
        return self._schema

    def names(self) -> list[str]:
        """Every column."""
        return list(self.schema().names)

    def faults(self) -> list[Fault]:
        """A missing table, or a partition column that is none."""
        try:
            self._looked_at()
        except UserError as fault:
            return list(fault.faults)
        return []

    def snapshot(self, run_date: date, dates: Dates) -> Snapshot | None:
        """What `slices` lists the files of."""
        scan = self._scan(run_date, dates)
        return Snapshot(scan.metadata_location, scan.snapshot_id, scan.where)

    def slices(self, run_date: date, dates: Dates, columns: Sequence[str]) -> Iterator[FileSlices]:
        """Whole data files. Their bytes are of all columns, as the table's metadata tells them."""
        for file in self._scan(run_date, dates).files:
            yield FileSlices(
                FrozenFile(file.url, file.bytes, file.deletes, file.rows), None, [(-1, 0, file.rows, file.bytes)]
            )

    def lacking(self, run_date: date, dates: Dates) -> Fault | None:
        """Never: a table without rows of the date makes an empty night."""
        return None

    def read(self, unit: Unit, part: Part, columns: Sequence[str]) -> pa.Table:
        """A data file's live rows of the unit's dates."""
        from bizllm.tables.iceberg_source import read_scan_files

        at, schema = unit.snapshot, self.schema()
        assert at is not None and at.snapshot_id is not None, "a unit of a table knows its snapshot"
        read = list(columns) or schema.names[:1]  # a table of no columns would lose the number of its rows
        where: Any = at.where
        rows = read_scan_files(at.metadata_location, at.snapshot_id, [part.url], read, self._properties, where)
        return rows.cast(pa.schema([schema.field(name) for name in read]))

    def date_column(self, part: Part) -> str | None:
        """None: the scan's own condition bounds the dates."""
        return None

    def file_name(self, url: str) -> str:
        """Data files have unique names, wherever the warehouse is."""
        return url.rsplit("/", 1)[-1]

    def _looked_at(self) -> IcebergScan:
        """A scan for the schema's sake: of a day that hardly any table has, so that few files are listed."""
        return self._scan(date(1970, 1, 1), "day" if self.partition else "all")

    def _scan(self, run_date: date, dates: Dates) -> IcebergScan:
        if (run_date, dates) not in self._frozen:
            assert self._warehouse is not None, "tables are listed on the driver"
            self._frozen[run_date, dates] = self._warehouse.freeze_scan(
                self.table, run_date, self.partition, dates, self._place
            )
        return self._frozen[run_date, dates]
