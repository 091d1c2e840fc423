"""Whether last night's tables are there when they should be: what no run can tell that never began."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bizllm.jobs.job import LoadedJob
from bizllm.jobs.notices import addresses
from bizllm.watch.messages import Message
from bizllm.watch.nights import Nights, Reader, last_due
from bizllm.watch.notify import Told, tell, told_url


@dataclass(frozen=True)
class Checked:
    """state: done; waiting: not there, and not due yet; late. said: why, in words. due: None where nothing is said.

    told: receivers of the message, by their place in `notify`.
    """

    job: str
    run_date: date
    state: Literal["done", "waiting", "late"]
    said: str
    due: str | None
    last_good: date | None
    missed: int
    told: Told

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        last_good = self.last_good.isoformat() if self.last_good else None
        return {
            "job": self.job,
            "date": self.run_date.isoformat(),
            "state": self.state,
            "said": self.said,
            "due": self.due,
            "last_good": last_good,
            "missed": self.missed,
            "sent": list(self.told.sent),
            "unsent": list(self.told.unsent),
        }


def check(loaded: LoadedJob, now: datetime) -> Checked:
    """Look whether the night of yesterday is there, and tell the receivers where it is late, or there after all.

    Without `due` it should be there by now. Raises UserError where a receiver's variable is not set.
    """
    job = loaded.job
    receivers = addresses(job.notify, loaded.document)
    night = now.astimezone(ZoneInfo(job.timezone)).date() - timedelta(days=1)
    nights = Reader(job).read(now)
    there = nights.last_good is not None and nights.last_good >= night
    due = job.due is None or last_due(job, now) >= night
    state: Literal["done", "waiting", "late"] = "done" if there else "late" if due else "waiting"
    said = _said(nights, night, state, job.due)
    told = Told()
    if state != "waiting":
        message = _message(loaded, nights, night, state, said)
        told = tell(receivers, message, told_url(job.warehouse.path, job.name, night))
    missed = nights.missed if job.due else max(nights.missed, int(state == "late"))
    return Checked(job.name, night, state, said, job.due, nights.last_good, missed, told)


def _said(nights: Nights, night: date, state: str, due: str | None) -> str:
    if state == "done":
        assert nights.last_good_at is not None
        return f"there since {nights.last_good_at:%Y-%m-%d %H:%M} UTC"
    when = f"due at {due}" if due else "due by now"
    held = next((lock for lock in nights.locks if lock.run_date == night), None)
    ran = nights.newest == night and nights.state is not None
    if held is not None:
        why = f"a run has been at it since {datetime.fromtimestamp(held.taken, UTC):%Y-%m-%d %H:%M} UTC, or died"
    elif ran:
        bad = [f"{name} {step.state}" for name, step in nights.steps.items() if step.published is None]
        why = f"its last run ended so: {', '.join(bad)}" if bad else "not all of its steps have run"
    else:
        why = "no run of it has ended"
    last = f"the last good night is {nights.last_good}" if nights.last_good else "there is no good night yet"
    return f"not there, {when}; {why}; {last}"


def _message(loaded: LoadedJob, nights: Nights, night: date, state: str, said: str) -> Message:
    name = loaded.job.name
    return Message(
        "done" if state == "done" else "late",
        name,
        f"{name} for {night}",
        said,
        f"bizllm runs {loaded.path}",
        date=night.isoformat(),
        state="unchanged" if state == "done" else state,  # a check makes no night: nobody hears `done` of one
    )
