"""The Iceberg tables of a job: what is published, and publishing one night in one snapshot.

A table's snapshots carry what was published in their summary, under `bizllm.`; no other state says what is there.
PyIceberg takes 2 s to import, so it is imported where it is needed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.errors import Fault, RunError, StorageUnavailable, UserError, nearest
from bizllm.tables import storage
from bizllm.tables.catalog import asking, open_catalog, passing, reason, sqlite_file
from bizllm.tables.evolution import arrow_schema, clash, grows, nullable
from bizllm.tables.history import Published, published, summary, with_token
from bizllm.tables.iceberg_source import DataFile, Dates, IcebergScan, expression, freeze, read_scan_files
from bizllm.tables.overwrite import replacing
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.statistics import StagedFile, data_file, describe

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.update.snapshot import _SnapshotProducer

__all__ = ["DataFile", "IcebergScan", "Published", "Slice", "StagedFile", "Warehouse", "describe", "read_scan_files"]

_ATTEMPTS = 12
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 5.0
_TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    # `expire_snapshots` of other engines goes by these; a snapshot's summary is the record of its night.
    "history.expire.max-snapshot-age-ms": str(400 * 24 * 3600 * 1000),
    "history.expire.min-snapshots-to-keep": "100",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """The files of one night, and the table's schema then.

    plain: whether DuckDB's `read_parquet(urls, union_by_name=true)` gives the right rows: no other engine has put
    delete files beside them.
    """

    schema: pa.Schema
    files: list[DataFile]
    snapshot_id: int | None
    plain: bool


class Warehouse:
    """The tables of the catalog that a job names, each in `{path}/{job}/{step}` whatever the catalog."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self.settings = settings
        self.path = storage.filesystem(settings.path)[1] if storage.is_local(settings.path) else settings.path

    def __reduce__(self) -> tuple[type[Warehouse], tuple[WarehouseSettings]]:
        return Warehouse, (self.settings,)  # connections stay where they are

    @cached_property
    def catalog(self) -> Catalog:
        """The PyIceberg catalog. Raises UserError where it can't be opened."""
        return open_catalog(self.settings)

    def table_location(self, job: str, step: str) -> str:
        """Where the table's files are: data in `data/run_date=D/`."""
        return storage.join(self.path, job, step)

    def check_writable(self) -> None:
        """Write and remove a small file in the warehouse, which a second one must not replace. Raises UserError."""
        url = storage.join(self.path, "_bizllm", f"writable-{uuid4().hex}")
        try:
            storage.check_encryption(self.path, "warehouse.path")
            one, other = (storage.create_exclusive(url, part) for part in (b"1", b"2"))
            storage.delete(url)
        except StorageUnavailable:
            raise
        except (RunError, OSError) as fault:
            raise UserError(
                Fault("warehouse.path", self.settings.path, f"can't write there ({reason(fault)})", "check its rights")
            ) from fault
        if not one or other:
            what = "this store ignores `If-None-Match: *`: two runs could both hold the lock of a night"
            raise UserError(Fault("warehouse.path", self.settings.path, what, "see docs/storage.md"))
        _ = self.catalog

    # -- what is there --------------------------------------------------------------------------------------------

    def tables(self, job: str) -> list[str]:
        """Names of the job's tables, sorted."""
        from pyiceberg.exceptions import NoSuchNamespaceError

        if self._untouched():
            return []
        with asking(self.settings, f"list the tables of {job}"):
            try:
                return sorted(name for *_, name in self.catalog.list_tables(job))
            except NoSuchNamespaceError:
                return []

    def history(self, job: str, step: str, until: int | None = None) -> list[Published]:
        """Every night that was published (up to the snapshot `until`), newest commit first. A date that was rerun is
        there more than once."""
        table = self.load(job, step)
        return [] if table is None else list(published(table, until))

    def newest(self, job: str, step: str, run_date: date) -> Published | None:
        """The newest snapshot that published the date."""
        return next((night for night in self._nights(job, step) if night.run_date == run_date), None)

    def newest_before(self, job: str, step: str, run_date: date) -> Published | None:
        """The newest earlier date that has rows, as it was last published."""
        latest: dict[date, Published] = {}
        for night in self._nights(job, step):
            if night.run_date < run_date:
                latest.setdefault(night.run_date, night)
        return max((night for night in latest.values() if night.rows), key=lambda night: night.run_date, default=None)

    def clash(self, job: str, step: str, schema: pa.Schema) -> tuple[str, str] | None:
        """The first column for which `publish` would refuse that schema, and why."""
        table = self.load(job, step)
        return None if table is None else clash(arrow_schema(table.schema()), nullable(schema))

    def files(self, job: str, step: str, run_date: date | None, snapshot_id: int | None = None) -> Slice:
        """The files of a slice (of all, for None), now or as of a snapshot. Raises RunError where no such table is."""
        table = self._existing(job, step)
        with asking(self.settings, f"list the files of {job}.{step}"):
            where: list[Any] = [] if run_date is None else [("==", "run_date", run_date)]
            scan = table.scan(expression(where), snapshot_id=snapshot_id)
            tasks = list(scan.plan_files())
            schema = arrow_schema(scan.projection())
        files = [DataFile(task.file.file_path, task.file.record_count, task.file.file_size_in_bytes) for task in tasks]
        used = scan.snapshot()
        return Slice(
            schema,
            sorted(files, key=lambda file: file.url),
            used.snapshot_id if used else None,
            plain=not any(task.delete_files for task in tasks),
        )

    def read(
        self,
        job: str,
        step: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        snapshot_id: int | None = None,
    ) -> pa.Table | None:
        """Rows of a small table, all of them in memory; None where there is no such table.

        where: values that columns must equal.
        """
        table = self.load(job, step)
        if table is None:
            return None
        wanted = expression(("==", column, value) for column, value in (where or {}).items())
        with asking(self.settings, f"read {job}.{step}"):
            scan = table.scan(wanted, tuple(columns) if columns is not None else ("*",), snapshot_id=snapshot_id)
            rows = scan.to_arrow() if storage.is_local(self.path) else storage.again(self.path, "read", scan.to_arrow)
        schema = arrow_schema(scan.projection())
        rows = rows.select(schema.names).cast(schema)
        return rows.select(list(columns)) if columns is not None else rows

    def freeze_scan(
        self, identifier: str, run_date: date, partition_column: str | None, mode: Dates, place: str = "table"
    ) -> IcebergScan:
        """Pin the newest snapshot of any table of the catalog as a source, with its files for the run date.

        identifier: `namespace.name`. partition_column: a date, timestamp (UTC) or ISO-date text column, which bounds
        the rows by mode; None for all rows. place: of the setting, for UserError.
        """
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        namespace, _, name = identifier.rpartition(".")
        with asking(self.settings, f"load {identifier}"):
            try:
                table = self.catalog.load_table((*namespace.split("."), name))
            except (NoSuchTableError, NoSuchNamespaceError) as fault:
                hint = nearest(identifier, (f"{namespace}.{known}" for known in self.tables(namespace)))
                raise UserError(Fault(place, identifier, "no such table in the warehouse's catalog", hint)) from fault
            return freeze(table, run_date, partition_column, mode, place)

    # -- changing it ----------------------------------------------------------------------------------------------

    def publish(
        self,
        job: str,
        step: str,
        schema: pa.Schema,
        run_date: date,
        files: Sequence[StagedFile],
        properties: Mapping[str, str],
        check: Callable[[], None],
    ) -> int:
        """Replace the slice `run_date` by the staged files, in one snapshot; no files make it empty. Its id.

        A new table, new columns and wider types are part of the same commit. A column of the table that `schema` lacks
        stays, and is null. properties go into the snapshot's summary and must hold `run_id`. check runs after the table
        is loaded and before each commit. Raises RunError where another run published the same date meanwhile, where a
        column would change its type, or where the catalog refuses.
        """
        assert "run_id" in properties, "a published night names its run"
        rows = sum(file.rows for file in files)
        told = {**properties, "run_date": run_date.isoformat(), "rows": str(rows)}
        slice_filter = expression([("==", "run_date", run_date)])
        seen: list[tuple[int | None, frozenset[str]]] = []

        def guard(table: Table | None) -> None:
            night = next((n for n in published(table) if n.run_date == run_date), None) if table else None
            live = frozenset(t.file.file_path for t in table.scan(slice_filter).plan_files()) if table else frozenset()
            seen.append((night.snapshot_id if night else None, live))
            if seen[-1] != seen[0]:
                raise RunError(f"{job}.{step}: {run_date} was published by another run meanwhile; run it again")
            check()

        def fill(tx: Transaction, table: Table | None) -> _SnapshotProducer[Any]:
            change = replacing(tx, table, slice_filter, told)
            for file in files:
                if file.rows:
                    change.append_data_file(data_file(file, tx.table_metadata, run_date))
            return change

        return self.commit(job, step, schema, guard, fill)

    def append(self, job: str, step: str, rows: pa.Table, run_date: date, token: str) -> None:
        """Add rows of one date to a table, once: nothing happens where a snapshot with that token is there.

        The table is made when it is new. `rows` must hold the column run_date.
        """
        table = self.load(job, step)
        if not rows.num_rows or (table and with_token(table, token) is not None):
            return
        url = storage.join(self.table_location(job, step), "data", f"run_date={run_date}", f"{uuid4().hex}.parquet")

        def write() -> StagedFile:
            collected: list[pq.FileMetaData] = []
            with storage.open_output(url) as stream:
                pq.write_table(rows, stream, compression="zstd", metadata_collector=collected)
                size = stream.tell()
            return describe(url, collected[0], size)

        staged = storage.again(url, "write", write)

        class Appended(Exception):
            pass

        def guard(table: Table | None) -> None:
            if table and with_token(table, token) is not None:
                raise Appended

        def fill(tx: Transaction, table: Table | None) -> _SnapshotProducer[Any]:
            change = tx.update_snapshot(summary({"token": token})).fast_append()
            return change.append_data_file(data_file(staged, tx.table_metadata, run_date))

        try:
            self.commit(job, step, rows.schema, guard, fill)
        except Appended:
            storage.delete(url)

    # -- inside ---------------------------------------------------------------------------------------------------

    def commit(
        self,
        job: str,
        step: str,
        schema: pa.Schema,
        guard: Callable[[Table | None], None],
        fill: Callable[[Transaction, Table | None], _SnapshotProducer[Any]],
    ) -> int:
        """Commit one snapshot, again from the newest table whenever another commit came first."""
        conflicts = passing()
        tried: list[int] = []
        for attempt in range(_ATTEMPTS):
            if attempt:
                longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (attempt - 1))
                time.sleep(random.uniform(longest / 2, longest))  # else two losers meet again
            try:
                table = self.load(job, step)
            except RunError as fault:
                # A database that is restarted; a SQLite file was waited for by its own client.
                away = isinstance(fault.__cause__, conflicts) and self.settings.catalog != "sqlite"
                if away and attempt + 1 < _ATTEMPTS:
                    continue
                raise
            # A commit whose answer was lost may have landed all the same, and the catalog may have been away until now.
            if landed := [i for i in tried if table is not None and table.snapshot_by_id(i)]:
                return landed[0]
            with asking(self.settings, f"commit to {job}.{step}"):
                guard(table)
                try:
                    tx = self._begin(job, step, schema, table)
                    change = fill(tx, table)
                    change.commit()  # into the transaction
                    tried.append(change.snapshot_id)
                    tx.commit_transaction()
                    return change.snapshot_id
                except Exception as fault:
                    if (night := self._landed(job, step, tried)) is not None:
                        return night
                    if not isinstance(fault, conflicts):
                        raise
                    if attempt + 1 == _ATTEMPTS:
                        raise RunError(
                            f"warehouse {self.settings.path}: {job}.{step}: no commit in {_ATTEMPTS} attempts "
                            f"({reason(fault)}); other jobs write to this table, or the catalog is down"
                        ) from fault
        raise AssertionError("unreachable")

    def _landed(self, job: str, step: str, tried: Sequence[int]) -> int | None:
        """Which of these snapshots the table has, as far as the catalog can be asked."""
        with suppress(RunError):
            table = self.load(job, step)
            return next((i for i in tried if table is not None and table.snapshot_by_id(i)), None)
        return None

    def _begin(self, job: str, step: str, schema: pa.Schema, table: Table | None) -> Transaction:
        """A transaction in which the table has (at least) the columns of `schema`."""
        from pyiceberg.partitioning import PartitionField, PartitionSpec
        from pyiceberg.transforms import IdentityTransform

        declared = nullable(schema)
        if table is None:
            from pyiceberg.catalog import Catalog
            from pyiceberg.schema import assign_fresh_schema_ids

            fresh = assign_fresh_schema_ids(Catalog._convert_schema_if_needed(declared, 2))
            source_id = fresh.find_field("run_date").field_id
            self.catalog.create_namespace_if_not_exists(job)
            tx: Transaction = self.catalog.create_table_transaction(
                (job, step),
                fresh,
                location=self.table_location(job, step),
                partition_spec=PartitionSpec(PartitionField(source_id, 1000, IdentityTransform(), "run_date")),
                properties=_TABLE_PROPERTIES,
            )
        else:
            # PyIceberg would retry by itself, without the caller's guard.
            once = {**table.metadata.properties, "commit.retry.num-retries": "0"}
            table.metadata = table.metadata.model_copy(update={"properties": once})
            tx = table.transaction()
            if grows(f"{job}.{step}", arrow_schema(table.schema()), declared):
                with tx.update_schema() as update:
                    update.union_by_name(declared)
        # Staged files have no field ids: their columns are found by name.
        mapping = tx.table_metadata.schema().name_mapping.model_dump_json()
        if tx.table_metadata.properties.get("schema.name-mapping.default") != mapping:
            tx.set_properties({"schema.name-mapping.default": mapping})
        return tx

    def _nights(self, job: str, step: str) -> Iterator[Published]:
        table = self.load(job, step)
        return iter(()) if table is None else published(table)

    def load(self, job: str, step: str) -> Table | None:
        """PyIceberg's table; None where there is none of that name."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        if self._untouched():
            return None
        with asking(self.settings, f"load {job}.{step}"):
            try:
                return self.catalog.load_table((job, step))
            except (NoSuchTableError, NoSuchNamespaceError):
                return None

    def _existing(self, job: str, step: str) -> Table:
        table = self.load(job, step)
        if table is None:
            raise RunError(f"warehouse {self.settings.path}: there is no table {job}.{step}")
        return table

    def _untouched(self) -> bool:
        """Whether looking would create the SQLite catalog: `plan` must leave nothing behind."""
        return (
            self.settings.catalog == "sqlite"
            and "catalog" not in self.__dict__
            and not storage.exists(sqlite_file(self.settings))
        )
