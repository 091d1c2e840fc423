"""Tables whose files are there and whose catalog is not, or is older than they are: the catalog is told again.

A catalog holds one line a table: which metadata file is the newest. All else lies in the table's folder, so a catalog
that was lost, restored from a backup, or changed for one of another kind can be filled from there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING

from bizllm.errors import RunError, StorageUnavailable
from bizllm.tables import storage
from bizllm.tables.catalog import asking, io_properties
from bizllm.tables.history import published
from bizllm.tables.upkeep import same_file, snapshot_files
from bizllm.tables.warehouse import Warehouse

if TYPE_CHECKING:
    from pyiceberg.table import Table

_METADATA = re.compile(r"/metadata/(?P<version>\d+)-[^/]+\.metadata\.json$")


@dataclass(frozen=True)
class State:
    """The newest state of a table that is whole: all files of its current snapshot are there.

    broken: newer states that lack files, with one of those. aside: (date, run) of nights that only other states hold:
    a commit that lost a race or never ended, or what was published before an older catalog went on.
    """

    table: Table
    broken: dict[str, str] = field(default_factory=dict)
    aside: list[tuple[date, str]] = field(default_factory=list)

    @property
    def location(self) -> str:
        """Its metadata file."""
        return self.table.metadata_location

    def follows(self, known: Table) -> bool:
        """Whether it is what became of the state that a catalog knows."""
        if known.metadata.table_uuid != self.table.metadata.table_uuid:
            return False
        snapshot = known.metadata.current_snapshot_id
        return snapshot is None or self.table.snapshot_by_id(snapshot) is not None


def metadata_files(urls: Iterable[str]) -> list[str]:
    """Those that are a table's metadata."""
    return [url for url in urls if _METADATA.search(url)]


def begun(warehouse: Warehouse, job: str, step: str) -> bool:
    """Whether the table's folder is one that was committed to: where the catalog does not know it, to begin anew would
    hide its nights. The first metadata file alone proves nothing: it may be of a first night that died."""
    files = storage.list_files(storage.join(warehouse.table_location(job, step), "metadata"))
    return any(int(found["version"]) > 0 for file in files if (found := _METADATA.search(file.url)))


def newest_state(warehouse: Warehouse, metadata: Iterable[str], present: Collection[str]) -> State | None:
    """The newest whole state among these metadata files of one table; None where there is none.

    present: files that are known to be there, as `same_file` writes them; others are asked for.
    """
    from pyiceberg.table import StaticTable

    states: list[Table] = []
    broken: dict[str, str] = {}
    for url in metadata:
        try:
            with asking(warehouse.settings, f"read {url}"):
                states.append(StaticTable.from_metadata(url, io_properties(warehouse.settings.properties)))
        except StorageUnavailable:
            raise
        except RunError:
            broken[url] = "it can't be read"  # cut off: whoever wrote it died
    # Not by the number in the name: a catalog that was restored counts on from an older one.
    states.sort(key=lambda one: (one.metadata.last_updated_ms, one.metadata_location), reverse=True)
    for state in states:
        wrong = _wrong(warehouse, state, present)
        if not wrong:
            return State(state, broken, _aside(state, (one for one in states if one.metadata_location not in broken)))
        broken[state.metadata_location] = wrong
    return None


def adopt(warehouse: Warehouse, job: str, step: str, location: str, replace: bool) -> None:
    """Tell the catalog that the table is what this metadata file says; replace: it has another state of it now."""
    with asking(warehouse.settings, f"register {job}.{step}"):
        warehouse.catalog.create_namespace_if_not_exists(job)
        if replace:
            warehouse.catalog.drop_table((job, step))  # the entry; files stay
        warehouse.catalog.register_table((job, step), location)


def _wrong(warehouse: Warehouse, state: Table, present: Collection[str]) -> str:
    """Why the state is not whole; empty where it is."""
    snapshot = state.current_snapshot()
    if snapshot is None:
        return ""
    try:
        with asking(warehouse.settings, f"read the manifests of {state.metadata_location}"):
            # Each is looked for before it is read: the list, then each manifest, then what that names.
            for url in chain([snapshot.manifest_list], snapshot_files(state, snapshot)):
                if same_file(url) not in present and not storage.exists(url):
                    return f"{url} is gone"
    except StorageUnavailable:
        raise
    except RunError as fault:
        return str(fault)
    return ""


def _aside(state: Table, others: Iterable[Table]) -> list[tuple[date, str]]:
    earlier = {entry.metadata_file for entry in state.metadata.metadata_log}
    held = {snapshot.snapshot_id for snapshot in state.metadata.snapshots}
    nights = {
        (night.run_date, night.run_id)
        for other in others
        if other.metadata_location not in earlier
        for night in published(other)
        if night.snapshot_id not in held
    }
    # Where the date was published again under the same run, nothing is lost.
    return sorted(nights - {(night.run_date, night.run_id) for night in published(state)})
