"""`bizllm rollback`: an earlier run's night of a step becomes the published one of its date again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.tables.upkeep import restore
from bizllm.tables.warehouse import Published, Warehouse


@dataclass(frozen=True)
class Restored:
    """replaced: the run whose night was published until now. rows: of the restored night."""

    table: str
    run_date: date
    run_id: str
    replaced: str
    rows: int
    snapshot_id: int

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "run_date": self.run_date.isoformat()}


def rollback(loaded: LoadedJob, step: str, to: str) -> Restored:
    """Restore what run `to` published of a step: the rejects first, then the table, one snapshot each.

    Raises UserError where there is no such night, LockHeld where a run of the date is under way.
    """
    job = loaded.job
    if step not in job.steps:
        known = f"no such step; the job has {', '.join(job.steps)}"
        raise UserError(Fault("STEP", step, known, nearest(step, job.steps)))
    warehouse = Warehouse(job.warehouse)
    night = _night_of(warehouse.history(job.name, step), to, f"{job.name}.{step}")
    with RunLock(lock_url(warehouse.path, job.name, night.run_date), holder=f"rollback to {to}") as lock:
        now = warehouse.newest(job.name, step, night.run_date)
        assert now is not None, "the night's date was published"
        if now.run_id == to:
            raise UserError(Fault("--to", to, f"is what {job.name}.{step} holds for {night.run_date} already"))
        rejects = f"{step}__rejects"
        rejected = next((n for n in warehouse.history(job.name, rejects) if n.run_id == to), None)
        if rejected is not None:
            restore(warehouse, job.name, rejects, rejected, lock.check)
        snapshot = restore(warehouse, job.name, step, night, lock.check)
    return Restored(f"{job.name}.{step}", night.run_date, to, now.run_id, night.rows, snapshot)


def _night_of(history: list[Published], run: str, table: str) -> Published:
    found = next((night for night in history if night.run_id == run), None)
    if found is None:
        known = list(dict.fromkeys(night.run_id for night in history))
        shown = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
        expected = f"no snapshot of {table} is of that run; there are {shown}" if known else f"{table} has no snapshots"
        raise UserError(Fault("--to", run, expected, nearest(run, known)))
    return found
