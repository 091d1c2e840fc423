"""What a table's snapshots say of its nights, in their summaries; no other state does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from bizllm.tables.evolution import arrow_schema

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

_PREFIX = "bizllm."
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Published:
    """One night of a table. properties: what `publish` was given, without the prefix."""

    snapshot_id: int
    run_id: str
    run_date: date
    committed_at: datetime
    rows: int
    properties: dict[str, str]
    metadata_location: str
    schema: pa.Schema


def summary(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties as a snapshot's summary takes them."""
    return {_PREFIX + key: value for key, value in properties.items()}


def snapshots(table: Table, until: int | None = None) -> Iterator[tuple[Snapshot, dict[str, str]]]:
    """The snapshots that led to the current one (or to `until`), newest first, with our own properties."""
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    snapshot = table.current_snapshot() if until is None else by_id.get(until)
    while snapshot is not None:
        said = snapshot.summary.additional_properties if snapshot.summary else {}
        yield snapshot, {k.removeprefix(_PREFIX): v for k, v in said.items() if k.startswith(_PREFIX)}
        snapshot = by_id.get(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None


def published(table: Table, until: int | None = None) -> Iterator[Published]:
    """The nights of the table (as of the snapshot `until`), newest commit first."""
    schemas: dict[int, pa.Schema] = {}
    for snapshot, said in snapshots(table, until):
        if "run_date" not in said:
            continue  # another engine's maintenance, or the ledger
        at = snapshot.schema_id if snapshot.schema_id is not None else table.metadata.current_schema_id
        if at not in schemas:
            schemas[at] = arrow_schema(table.schemas()[at])
        yield Published(
            snapshot.snapshot_id,
            said["run_id"],
            date.fromisoformat(said["run_date"]),
            datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
            int(said["rows"]),
            said,
            table.metadata_location,
            schemas[at],
        )


def with_token(table: Table, token: str) -> int | None:
    """The snapshot that was appended under that token."""
    return next((snapshot.snapshot_id for snapshot, said in snapshots(table) if said.get("token") == token), None)


def nights(table: Table) -> list[date]:
    """The dates that have rows now, or were published and are empty; oldest first."""
    found = {night.run_date for night in published(table)}
    for task in table.scan().plan_files():
        day = task.file.partition[0]
        if day is not None:
            found.add(day if isinstance(day, date) else _EPOCH + timedelta(days=int(day)))
    return sorted(found)
