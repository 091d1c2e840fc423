"""Earlier states of a table: an earlier night restored, old snapshots expired, and which files any snapshot needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bizllm.errors import RunError
from bizllm.tables import storage
from bizllm.tables.catalog import asking
from bizllm.tables.history import Published, snapshots
from bizllm.tables.iceberg_source import expression
from bizllm.tables.overwrite import replacing
from bizllm.tables.urls import local_path
from bizllm.tables.warehouse import Warehouse

if TYPE_CHECKING:
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.snapshots import Snapshot
    from pyiceberg.table.update.snapshot import _SnapshotProducer

KEPT_BESIDE = ("fit", "learned")  # properties of a snapshot that are URLs of files beside the table

_ATTEMPTS = 5
_MOST_AGE_MS, _LEAST_KEPT = 5 * 24 * 3600 * 1000, 1  # what Iceberg's specification gives tables that say nothing


def restore(warehouse: Warehouse, job: str, step: str, night: Published, check: Callable[[], None]) -> int:
    """Make an earlier night's slice the current one of its date again, in one snapshot; its id.

    The new snapshot's properties are the night's own, and `restored_from`. check: as in `Warehouse.publish`. Raises
    RunError where files of that night are gone.
    """
    where = expression([("==", "run_date", night.run_date)])
    table = warehouse.load(job, step)
    assert table is not None, "a night of a table"
    with asking(warehouse.settings, f"list the files of {job}.{step}"):
        files = [task.file for task in table.scan(where, snapshot_id=night.snapshot_id).plan_files()]
    if gone := [file.file_path for file in files if not storage.exists(file.file_path)]:
        raise RunError(f"{job}.{step}: {len(gone)} files of run {night.run_id} are gone, such as {gone[0]}")

    def fill(tx: Transaction, table: Table | None) -> _SnapshotProducer[Any]:
        assert table is not None
        told = {**night.properties, "restored_from": str(night.snapshot_id)}
        change = replacing(tx, table, where, told)
        for file in files:
            change.append_data_file(file)
        return change

    return warehouse.commit(job, step, night.schema, lambda _: check(), fill)


# -- what is needed -----------------------------------------------------------------------------------------------


def expirable(table: Table, now: datetime) -> list[int]:
    """The snapshots that the table's own policy lets go: older than `history.expire.max-snapshot-age-ms`, and not among
    the newest `history.expire.min-snapshots-to-keep`. What a branch or tag names stays."""
    said = table.metadata.properties
    age = int(said.get("history.expire.max-snapshot-age-ms", _MOST_AGE_MS))
    keep = int(said.get("history.expire.min-snapshots-to-keep", _LEAST_KEPT))
    before = now.timestamp() * 1000 - age
    named = {ref.snapshot_id for ref in table.metadata.refs.values()}
    newest_first = [snapshot for snapshot, _ in snapshots(table)]
    kept = {snapshot.snapshot_id for snapshot in newest_first[:keep]} | named
    return [s.snapshot_id for s in table.metadata.snapshots if s.timestamp_ms < before and s.snapshot_id not in kept]


def expire(warehouse: Warehouse, job: str, step: str, now: datetime) -> list[int]:
    """Forget the snapshots that the policy lets go; no file is deleted. Their ids."""
    from pyiceberg.exceptions import CommitFailedException

    for attempt in range(_ATTEMPTS):
        table = warehouse.load(job, step)
        gone = expirable(table, now) if table else []
        if table is None or not gone:
            return []
        with asking(warehouse.settings, f"expire snapshots of {job}.{step}"):
            try:
                table.maintenance.expire_snapshots().by_ids(gone).commit()
                return gone
            except CommitFailedException:  # a night was published meanwhile: look again
                if attempt + 1 == _ATTEMPTS:
                    raise
    raise AssertionError("unreachable")


def needed_files(table: Table, without: Collection[int] = ()) -> Iterator[str]:
    """Every file that the table's snapshots need, but for those of the snapshots `without`: data, deletes, manifests,
    metadata, statistics, and what snapshots name beside them (`KEPT_BESIDE`). Some come more than once."""
    metadata = table.metadata
    yield table.metadata_location
    yield from (entry.metadata_file for entry in metadata.metadata_log)
    yield from (file.statistics_path for file in metadata.statistics if file.snapshot_id not in without)
    yield from (file.statistics_path for file in metadata.partition_statistics if file.snapshot_id not in without)
    yield from (
        said[kept]
        for snapshot, said in snapshots(table)
        for kept in KEPT_BESIDE
        if kept in said and snapshot.snapshot_id not in without
    )
    read: set[str] = set()
    for snapshot in metadata.snapshots:
        if snapshot.snapshot_id not in without:
            yield snapshot.manifest_list
            yield from _of_manifests(table, snapshot, read)


def snapshot_files(table: Table, snapshot: Snapshot) -> Iterator[str]:
    """The manifests of one snapshot, and the data and delete files that it shows."""
    return _of_manifests(table, snapshot, set())


def same_file(url: str) -> str:
    """One form of a file's URL, however it was written."""
    return local_path(url) if storage.is_local(url) else url.replace("s3a://", "s3://", 1)


def _of_manifests(table: Table, snapshot: Snapshot, read: set[str]) -> Iterator[str]:
    for manifest in snapshot.manifests(table.io):
        if manifest.manifest_path not in read:
            read.add(manifest.manifest_path)
            yield manifest.manifest_path
            yield from (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io, True))
