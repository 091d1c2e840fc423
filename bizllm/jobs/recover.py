"""`bizllm recover`: a catalog that was lost, restored or replaced learns the tables from the files that are there."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from bizllm import logs
from bizllm.errors import Fault, RunError, UserError
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.lock import RunLock
from bizllm.tables import storage
from bizllm.tables.lost import State, adopt, metadata_files, newest_state
from bizllm.tables.upkeep import same_file
from bizllm.tables.warehouse import Warehouse

_log = logs.get(__name__)

What = Literal["registered", "moved", "current", "left"]


@dataclass(frozen=True)
class Recovered:
    """One table. what: the catalog did not know it; had an older state; has the newest; or why it was left alone.

    state: the newest whole one in the folder; None where there is none.
    """

    table: str
    what: What
    state: State | None
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        state = self.state
        newest = state.table.current_snapshot() if state else None
        return {
            "table": self.table,
            "what": self.what,
            "why": self.why,
            "metadata": state.location if state else None,
            "snapshot_id": newest.snapshot_id if newest else None,
            "broken": state.broken if state else {},
            "aside": [{"run_date": day.isoformat(), "run_id": run} for day, run in state.aside] if state else [],
        }


def recover(loaded: LoadedJob, *, dry_run: bool = False) -> dict[str, Any]:
    """Register every table of the job that lies in the warehouse's folder; or tell what would be done.

    Raises UserError where nothing lies there, LockHeld where a run is under way, RunError.
    """
    job = loaded.job
    warehouse = Warehouse(job.warehouse)
    folder = storage.join(warehouse.path, job.name)
    files = [file.url for file in storage.list_files(folder)]
    present = {same_file(url) for url in files}
    by_table: dict[str, list[str]] = {}
    for url in metadata_files(files):
        step = url[len(same_file(folder)) :].strip("/").partition("/")[0]
        by_table.setdefault(step, []).append(url)
    if not by_table:
        expected = f"no table of the job {job.name} lies there"
        raise UserError(Fault(loaded.place("warehouse", "path"), job.warehouse.path, expected, "is it the right one?"))
    with ExitStack() as held:
        if not dry_run:
            for lock in _locks(warehouse, job.name):
                held.enter_context(lock)
        tables = [_table(warehouse, job.name, step, urls, present, dry_run) for step, urls in sorted(by_table.items())]
    for one in tables:
        _log.info("recovered", table=one.table, what=one.what, dry_run=dry_run)
    return {"dry_run": dry_run, "warehouse": warehouse.path, "tables": [one.to_dict() for one in tables]}


def _table(
    warehouse: Warehouse, job: str, step: str, metadata: list[str], present: set[str], dry_run: bool
) -> Recovered:
    name = f"{job}.{step}"
    state = newest_state(warehouse, metadata, present)
    if state is None:
        return Recovered(name, "left", None, "no state of it is whole: files are gone; restore the folder first")
    known, dangling = None, False
    try:
        known = warehouse.load(job, step)
    except RunError as fault:
        if not isinstance(fault.__cause__, FileNotFoundError):
            raise
        dangling = True  # the catalog names a metadata file that is no more
    if known is not None:
        if same_file(known.metadata_location) == same_file(state.location):
            return Recovered(name, "current", state)
        if not state.follows(known):
            why = f"the catalog has gone on elsewhere: {known.metadata_location}"
            return Recovered(name, "left", state, why)
    if not dry_run:
        adopt(warehouse, job, step, state.location, replace=known is not None or dangling)
    return Recovered(name, "moved" if known is not None or dangling else "registered", state)


def _locks(warehouse: Warehouse, job: str) -> list[RunLock]:
    """Of dates whose run may be under way: whoever holds one is told, and waited for where it may be dead."""
    folder = storage.join(warehouse.path, "_bizllm", job, "locks")
    urls = {file.url.rpartition("/")[0] for file in storage.list_files(folder)}
    locks = [RunLock(url, holder="recover") for url in sorted(urls)]
    return [lock for lock in locks if lock.is_open()]
