"""How a job's nights went, read from where that is kept: the ledger, the tables' snapshots, the locks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from bizllm.jobs import ledger, lock
from bizllm.jobs.job import Job
from bizllm.tables import storage
from bizllm.tables.warehouse import Published, Warehouse

USUAL_OF = 14  # nights that a step's usual time is the median of
USUAL_LEAST = 3
LOCKS_OF_S = 7 * 24 * 3600  # a lock that nobody has touched for longer is of no run that anybody waits for
WORKED = ("done", "failed")  # states of rows whose seconds and tokens are those of work

Row = dict[str, Any]


@dataclass(frozen=True)
class StepNight:
    """A step in the newest night.

    state: of its newest run. rows, records, tokens, seconds: of the run that made what stands, else of the newest.
    cost: of all runs of the date; None without prices. usual_s: the median of the nights before. published: the
    night's snapshot.
    """

    state: str
    rows: dict[str, int]
    records: int
    tokens: int
    seconds: float
    cost: float | None
    usual_s: float | None
    published: Published | None
    error: str | None


@dataclass(frozen=True)
class OpenLock:
    """A run that has not ended, or died. taken, renewed: seconds since 1970, by the holder's and the store's clock."""

    run_date: date
    taken: float
    renewed: float


@dataclass(frozen=True)
class Nights:
    """The nights of a job.

    newest, state, steps: of the newest run date that the ledger knows; None and empty where no night has run.
    last_good: the newest date whose every step is published, and when the last of them was. missed: dates after it
    that were due.
    """

    job: str
    newest: date | None
    state: str | None
    steps: dict[str, StepNight]
    last_good: date | None
    last_good_at: datetime | None
    missed: int
    locks: tuple[OpenLock, ...]


class Reader:
    """Reads a job's nights again and again; the ledger only when it has changed."""

    def __init__(self, job: Job) -> None:
        self.job, self.warehouse = job, Warehouse(job.warehouse)
        self._ledger: tuple[int | None, list[Row]] = (None, [])

    def read(self, now: datetime) -> Nights:
        """The nights as of now. Raises RunError where the warehouse can't be read."""
        rows = self._rows()
        history = {step: self.warehouse.history(self.job.name, step) for step in self.job.steps}
        good = _good(self.job.steps, rows, history)
        last_good = max(good, default=None)
        newest = max((row["run_date"] for row in rows), default=None)
        first = min((row["run_date"] for row in rows), default=None)
        steps = {} if newest is None else _steps(self.job.steps, newest, rows, history)
        return Nights(
            self.job.name,
            newest,
            _state(step.state for step in steps.values()),
            steps,
            last_good,
            good.get(last_good) if last_good else None,
            missed(last_good, first, last_due(self.job, now)),
            self._locks(now),
        )

    def _rows(self) -> list[Row]:
        table = self.warehouse.load(self.job.name, ledger.TABLE)
        at = table.metadata.current_snapshot_id if table else None
        if at != self._ledger[0]:
            rows = ledger.read(self.warehouse, self.job.name)
            self._ledger = (at, [row for row in rows if row["step"] in self.job.steps])
        return self._ledger[1]

    def _locks(self, now: datetime) -> tuple[OpenLock, ...]:
        oldest = now.timestamp() - LOCKS_OF_S
        folder = lock.lock_url(self.warehouse.path, self.job.name, date.min).rpartition("/")[0]
        recent = [file for file in storage.list_files(folder) if file.modified >= oldest]
        named = [(file.url.rsplit("/", 2)[-2], file) for file in recent]  # sorted: the newest epoch last
        dates = {date.fromisoformat(name): file for name, file in named if name[:1].isdigit()}  # not of a catch-up
        leases = {
            day: (lock.newest(lock.lock_url(self.warehouse.path, self.job.name, day)), file)
            for day, file in dates.items()
        }
        return tuple(
            OpenLock(day, lease.acquired_at, file.modified)
            for day, (lease, file) in sorted(leases.items())
            if lease is not None and not lease.released
        )


def last_due(job: Job, now: datetime) -> date:
    """The newest run date whose tables should be there: that of last night from `due` on. Without `due` a night has
    the whole day."""
    local = now.astimezone(ZoneInfo(job.timezone))
    is_due = job.due is not None and local.time() >= time.fromisoformat(job.due)
    return local.date() - timedelta(days=1 if is_due else 2)


def missed(last_good: date | None, first: date | None, due: date) -> int:
    """How many dates that were due have no tables. first: the first that a run was for; none are missed before."""
    if last_good is None and first is None:
        return 0
    begin = last_good + timedelta(days=1) if last_good is not None else first
    assert begin is not None
    return max(0, (due - begin).days + 1)


def published_on(warehouse: Warehouse, job: Job, day: date) -> bool:
    """Whether every step's table has its night."""
    return all(warehouse.newest(job.name, step, day) is not None for step in job.steps)


def _good(steps: Iterable[str], rows: Sequence[Row], history: dict[str, list[Published]]) -> dict[date, datetime]:
    """The dates whose every step is published, with the last commit. A step counts from its first date on: one that
    the job got last week makes no older night bad."""
    commits: dict[str, dict[date, datetime]] = {}
    for step in steps:
        for night in history[step]:  # newest commit first
            commits.setdefault(step, {}).setdefault(night.run_date, night.committed_at)
    born = {
        step: min([row["run_date"] for row in rows if row["step"] == step] + list(commits.get(step, {})), default=None)
        for step in steps
    }
    good = {}
    for day in {day for of in commits.values() for day in of}:
        alive = [step for step, first in born.items() if first is not None and first <= day]
        times = [commits.get(step, {}).get(day) for step in alive]
        known = [at for at in times if at is not None]
        if known and len(known) == len(alive):
            good[day] = max(known)
    return good


def _steps(
    names: Iterable[str], night: date, rows: Sequence[Row], history: dict[str, list[Published]]
) -> dict[str, StepNight]:
    return {
        name: step
        for name in names
        if (step := _step([row for row in rows if row["step"] == name], night, history[name])) is not None
    }


def _step(rows: list[Row], night: date, history: list[Published]) -> StepNight | None:
    """rows: of the step, newest first."""
    tonight = [row for row in rows if row["run_date"] == night]
    if not tonight:
        return None
    newest = tonight[0]
    made = (
        next((row for row in tonight if row["state"] in WORKED), newest) if newest["state"] == "unchanged" else newest
    )
    costs = [row["cost"] for row in tonight if row["cost"] is not None]
    earlier = [row["seconds"] for row in rows if row["state"] == "done" and row["run_date"] < night][:USUAL_OF]
    return StepNight(
        newest["state"],
        {kind: made[f"rows_{kind}"] or 0 for kind in ("in", "out", "rejected", "reused")},
        made["records_out"] or 0,
        made["tokens"] or 0,
        made["seconds"] or 0.0,
        sum(costs) if costs else None,
        statistics.median(earlier) if len(earlier) >= USUAL_LEAST else None,
        next((one for one in history if one.run_date == night), None),
        newest["error"],
    )


def _state(states: Iterable[str]) -> str | None:
    """Of a night whose steps ended so: the worst."""
    there = set(states)
    return next((state for state in ("failed", "cancelled", "skipped", "done", "unchanged") if state in there), None)
