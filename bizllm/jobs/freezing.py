"""A step's input, decided once: its manifests, and what else must stay as it is until the step ends.

An unfinished run keeps them in its state folder, so that a killed run can be resumed by unit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bizllm.errors import Fault, RunError, UserError
from bizllm.infer.learn import MOST_ROWS, WholeTable
from bizllm.jobs.prepare import Night, PreparedStep
from bizllm.tables import storage
from bizllm.tables.manifest import Dates, Manifest, freeze
from bizllm.tables.settings import SourceSettings
from bizllm.tables.source import Source

BUCKET_BYTES = 32 << 20  # of input that one bucket of a group task should hold
LEAST_BUCKETS = 4  # so that a small input still spreads over workers
MOST_BUCKETS = 4096


@dataclass(frozen=True)
class Frozen:
    """source, manifest: what the step answers. tables: what it reads whole, by setting.

    buckets: of group tasks. earlier: the snapshot whose answers are copied.
    """

    source: Source
    manifest: Manifest
    buckets: int
    earlier: int | None
    tables: Mapping[str, WholeTable] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Of all manifests."""
        if not self.tables:
            return self.manifest.hash
        said = [self.manifest.hash, {setting: table.manifest.hash for setting, table in self.tables.items()}]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class Freezer:
    """Freezes one step's input, or takes up what an unfinished run kept in `state_url`.

    fresh: drop that. earlier: asked for the snapshot whose answers are copied.
    """

    def __init__(
        self, night: Night, step: PreparedStep, state_url: str, *, fresh: bool, earlier: Callable[[], int | None]
    ) -> None:
        self.night, self.step, self.state_url = night, step, state_url
        self.fresh, self.earlier = fresh, earlier
        self._frozen: Frozen | None = None

    def freeze(self) -> Frozen:
        """What an unfinished run kept, else what is there now. Raises UserError."""
        if self._frozen is None:
            kept = self._kept()
            if kept is None or self.step.awaits:  # what other steps publish may be another since
                now = self._now()
                kept = kept if kept is not None and kept.hash == now.hash else now
            self._frozen = kept
        return self._frozen

    def keep(self, frozen: Frozen) -> bool:
        """Make it durable before the work; whether it was kept already."""
        state = self._state()
        if state is not None and state["manifest"] == frozen.hash:
            return True
        storage.delete_tree(self.state_url)
        for name, manifest in {
            "manifest": frozen.manifest,
            **{f"manifest-{setting}": table.manifest for setting, table in frozen.tables.items()},
        }.items():
            storage.write_bytes(storage.join(self.state_url, f"{name}.json"), manifest.to_json().encode())
        state = {
            "fingerprint": self.step.fingerprint,
            "manifest": frozen.hash,
            "buckets": frozen.buckets,
            "earlier": frozen.earlier,
        }
        storage.write_bytes(storage.join(self.state_url, "state.json"), json.dumps(state).encode())
        return False

    def _now(self) -> Frozen:
        step, runtime = self.step, self.night.job.runtime
        source = step.source or published(self.night, step.settings.input, step.task.source.key)
        columns = [*source.key, *step.task.reads()]
        manifest = freeze(
            source, self.night.run_date, step.dates, columns, runtime.unit_rows, int(runtime.unit_mb * 1e6)
        )
        tables = {setting: self._whole(setting) for setting in step.tables}
        least = max(LEAST_BUCKETS, min(MOST_BUCKETS, -(-manifest.bytes // BUCKET_BYTES)))
        return Frozen(source, manifest, runtime.buckets or least, self.earlier(), tables)

    def _whole(self, setting: str) -> WholeTable:
        table = self.step.tables[setting]
        source = table.source or published(self.night, table.name, table.key)
        dates: Dates = table.dates if table.source else "day"
        manifest = freeze(source, self.night.run_date, dates, table.columns)
        if manifest.rows > MOST_ROWS:
            place = self.night.loaded.place("steps", self.step.name, setting, "input")
            many = f"has {manifest.rows:,} rows; a table that is read whole may have {MOST_ROWS:,}"
            raise UserError(Fault(place, table.name, many, "keep fewer of them with a `filter` on the source"))
        return WholeTable(source, manifest, table.columns)

    def _kept(self) -> Frozen | None:
        """What an unfinished run of the same fingerprint froze; None where that run published before it died."""
        state = self._state()
        if state is None:
            return None
        newest = self.night.warehouse.newest(self.night.job.name, self.step.name, self.night.run_date)
        if newest is not None and newest.properties.get("manifest") == state["manifest"]:
            storage.delete_tree(self.state_url)
            return None
        step = self.step
        source = step.source or published(self.night, step.settings.input, step.task.source.key)
        tables = {
            setting: WholeTable(
                table.source or published(self.night, table.name, table.key),
                self._manifest(f"manifest-{setting}"),
                table.columns,
            )
            for setting, table in step.tables.items()
        }
        return Frozen(source, self._manifest("manifest"), state["buckets"], state.get("earlier"), tables)

    def _manifest(self, name: str) -> Manifest:
        return Manifest.from_json(storage.read_bytes(storage.join(self.state_url, f"{name}.json")))

    def _state(self) -> dict[str, Any] | None:
        url = storage.join(self.state_url, "state.json")
        if self.fresh or not storage.exists(url):
            return None
        state: dict[str, Any] = json.loads(storage.read_bytes(url))
        return state if state["fingerprint"] == self.step.fingerprint else None


def published(night: Night, step: str, key: Sequence[str]) -> Source:
    """What an earlier step published for the run date. Raises RunError where it published nothing."""
    if night.warehouse.newest(night.job.name, step, night.run_date) is None:
        raise RunError(f"{night.job.name}.{step} has nothing published for {night.run_date}")
    return slice_source(night, step, key)


def slice_source(night: Night, step: str, key: Sequence[str]) -> Source:
    """A step's published table as a source, partitioned by run date."""
    settings = SourceSettings(table=f"{night.job.name}.{step}", partition="run_date", key=list(key))
    return Source(step, settings, night.loaded.place, night.warehouse)
