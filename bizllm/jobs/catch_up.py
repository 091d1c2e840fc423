"""Nights that nobody ran: which dates lack one, and running them, the oldest first, each as a night of its own.

One catch-up of a job at a time, by a lock of its own around the lock of each night: two of them never share the dates
out between them, which would mix their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bizllm.errors import Fault, LockHeld, UserError
from bizllm.jobs import ledger
from bizllm.jobs.days import days
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.ledger import State
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.jobs.prepare import Night, PreparedStep, prepare
from bizllm.jobs.run import RunResult, cluster
from bizllm.jobs.submitted import in_ray_job, new_run_id, refuse_copies

MOST = 14  # nights of one catch-up: two weeks of holidays, and no year by mistake

# no_input: an older date has no partition. late_input: last night has none. wrong_input: the night refused it.
# locked: another run has the night. order: an earlier night must come first. bound: --most.
Reason = Literal["no_input", "late_input", "wrong_input", "locked", "order", "bound"]


@dataclass(frozen=True)
class NotRun:
    """A date that has no night after the catch-up either, and why."""

    job: str
    date: date
    reason: Reason
    error: str

    @property
    def state(self) -> State:
        """As of a run."""
        return "failed" if self.reason in ("late_input", "wrong_input") else "skipped"

    def to_dict(self) -> dict[str, Any]:
        """What `run --catch-up --json` prints, beside the runs."""
        known = {"job": self.job, "date": self.date.isoformat(), "state": self.state, "reason": self.reason}
        return {"run_id": None, **known, "steps": [], "error": self.error}


# Runs the night of a date, or raises what keeps it from running.
RunNight = Callable[[date, UserError | None], RunResult]


def catch_up(
    loaded: LoadedJob,
    last: date,
    run: RunNight,
    *,
    since: date | None = None,
    most: int = MOST,
    address: str | None = None,
) -> list[RunResult | NotRun]:
    """Run the nights up to `last` that are missing, at most so many: an entry for each missing date, in order.

    run: of the newest date also where its input is not there, so that whoever is told of failed nights hears of it.
    A failed night is told, and the next one runs all the same, unless a step that failed looks at its own earlier
    nights. Raises UserError where the job itself is wrong, LockHeld where another catch-up of the job is under way.
    """
    refuse_copies(loaded.document)
    try:
        night = prepare(loaded, last)
        night.warehouse.check_writable()
    except UserError as fault:
        run(last, fault)
        raise
    lock = lock_url(night.warehouse.path, night.job.name, "catch-up")
    holder = new_run_id() if in_ray_job() else ""  # by which `bizllm stop` finds the job of the cluster
    with RunLock(lock, holder, night.job.runtime.lock_lease_s, "catch-up of this job") as held:
        return _CatchUp(night, held, run, address).execute(missing(night, since), most)


def missing(night: Night, since: date | None) -> list[date]:
    """The dates up to the night's for which some step has nothing published, in order.

    A step's dates begin with the first that it published or was tried for, or else with the night's; all begin with
    `since` where it is given.
    """
    last, zone = night.run_date, ZoneInfo(night.job.timezone)
    told = ledger.read(night.warehouse, night.job.name)
    found: set[date] = set()
    for name in night.steps:
        published = {slice_.run_date for slice_ in night.warehouse.history(night.job.name, name)}
        tried = [row for row in told if row["step"] == name]
        first = since or min({*published, *(row["run_date"] for row in tried), last})
        if published:  # snapshots expire; their rows stay
            published |= {row["run_date"] for row in tried if row["state"] in ("done", "unchanged")}
        found |= {day for day in days(zone, first, last) if day not in published}
    return sorted(found)


def looks_back(step: PreparedStep) -> bool:
    """Whether the step's answers depend on what it published for the night before."""
    return bool(step.task.prior_columns) or step.task.shape == "table"


class _CatchUp:
    """One catch-up, under its lock. night: the newest one, whose sources are asked for dates."""

    def __init__(self, night: Night, lock: RunLock, run: RunNight, address: str | None) -> None:
        self.night, self.lock, self.run, self.address = night, lock, run, address

    def execute(self, dates: Sequence[date], most: int) -> list[RunResult | NotRun]:
        """An entry for each date."""
        lacking = {day: fault for day in dates if (fault := self._lacking(day)) is not None}
        wanted = [day for day in dates if day not in lacking][:most]
        entries: list[RunResult | NotRun] = []
        with cluster(self.night.job.runtime, self.address) if wanted else nullcontext():
            blocked = ""
            for day in dates:
                if day in lacking and day == self.night.run_date:
                    entries.append(self._one(day, UserError(lacking[day])))
                elif day in lacking:
                    entries.append(self._not_run(day, "no_input", str(lacking[day])))
                elif blocked:
                    entries.append(self._not_run(day, "order", blocked))
                elif day not in wanted:
                    entries.append(self._not_run(day, "bound", f"{most} nights were run; the next catch-up goes on"))
                else:
                    entries.append(entry := self._one(day))
                    blocked = self._blocks(entry)
                    if entry.state == "cancelled":
                        break
        return entries

    def _lacking(self, day: date) -> Fault | None:
        """The first source that a night of that date would miss."""
        for step in self.night.steps.values():
            read = [(step.source, step.dates), *((table.source, table.dates) for table in step.tables.values())]
            for source, dates in read:
                if source is not None and (fault := source.lacking(day, dates)) is not None:
                    return fault
        return None

    def _one(self, day: date, lacking: UserError | None = None) -> RunResult | NotRun:
        self.lock.check()
        try:
            return self.run(day, lacking)
        except LockHeld as held:
            return self._not_run(day, "locked", str(held))
        except UserError as fault:
            return self._not_run(day, "late_input" if lacking else "wrong_input", str(fault))

    def _blocks(self, entry: RunResult | NotRun) -> str:
        """Why the nights after this one must wait; empty where they need not."""
        undone = set(self.night.steps)
        if isinstance(entry, RunResult):
            undone = {step.step for step in entry.steps if step.state not in ("done", "unchanged")}
        waits = [name for name in self.night.steps if name in undone and looks_back(self.night.steps[name])]
        if not waits:
            return ""
        return f"step '{waits[0]}' looks at its own night before, and that of {entry.date} is missing"

    def _not_run(self, day: date, reason: Reason, error: str) -> NotRun:
        return NotRun(self.night.job.name, day, reason, error)
