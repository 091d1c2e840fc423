"""`bizllm stop RUN`: end what a cluster runs, and say what stands.

Ray sends SIGTERM, and SIGKILL where the driver still lives after its grace. On SIGTERM a driver ends as on Ctrl-C: it
leaves the tables as they were, frees the lock and writes that it was cancelled. A killed one leaves the tables too,
since a night becomes visible in one commit; its lock is free after the lease.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from bizllm.errors import Fault, RunError, UserError, nearest
from bizllm.jobs import ray_jobs
from bizllm.jobs.follow import until_ended
from bizllm.jobs.submission import Submission, status_of
from bizllm.jobs.submit import STOP_GRACE
from bizllm.jobs.submitted import mark_in, mark_of

RAYS_GRACE_S = 3  # where a job says nothing else: of `ray job submit`, of KubeRay
LATE_S = 60.0  # after its grace a job that still runs will not stop
POLL_S = 0.2
LAST_LINES = 15


@dataclass(frozen=True)
class Stopped:
    """How a stop went. stopped: whether it ended the job; else that had ended before, as `submission.state` says.
    killed: whether the driver may have had no time to end by itself. lines: the last that it printed."""

    submission: Submission
    stopped: bool
    killed: bool = False
    seconds: float = 0.0
    lines: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What `stop --json` prints."""
        sent = self.submission.to_dict()
        told = {key: sent[key] for key in ("submission_id", "address", "verb", "job", "date", "state", "exit_status")}
        return told | {
            "stopped": self.stopped,
            "killed": self.killed,
            "seconds": round(self.seconds, 1),
            "lines": list(self.lines),
        }


def stop(run: str, address: str | None) -> Stopped:
    """End a submission, or the one that a run belongs to, and wait until it has ended.

    Raises UserError where the cluster knows no such run or lets nobody in, RunError where the job does not end.
    """
    url = ray_jobs.checked_address(address)
    client = ray_jobs.connect(url)
    with ray_jobs.refusals(url, f"look for {run}"):
        found = _found(client, url, run)
    submission = Submission.from_metadata(found.submission_id, url, found.metadata)
    if found.status.is_terminal():
        return Stopped(_ended(submission, found), stopped=False)
    grace_s = _grace_s(found)
    asked = time.monotonic()
    with ray_jobs.refusals(url, f"stop {submission.submission_id}"):
        client.stop_job(submission.submission_id)

    def pause() -> None:
        time.sleep(POLL_S)
        if time.monotonic() - asked > grace_s + LATE_S:
            raise RunError(
                f"{submission.submission_id} has not ended {grace_s + LATE_S:.0f} s after it was told to:"
                f" `{submission.command('status')}` may tell why"
            )

    ended = until_ended(submission, client, pause)
    seconds = time.monotonic() - asked
    # Ray kills no sooner than that, and tells nobody that it did.
    killed = ended.status.value == "STOPPED" and seconds >= grace_s
    submission = _ended(submission, ended)
    return Stopped(submission, submission.state == "cancelled", killed, seconds, _last_lines(client, submission))


def _found(client: Any, url: str, run: str) -> Any:
    """What the cluster knows of the submission of that id, or of the one that the run belongs to."""
    try:
        found = ray_jobs.job_info(client, run)
    except ray_jobs.Unanswered as fault:
        raise RunError(f"{url}: can't look for {run}: {fault}") from None
    if found is not None and found.submission_id is not None:
        return found
    jobs = [job for job in client.list_jobs() if job.submission_id is not None]
    mark = mark_in(run)
    if mark == "":
        what = "was not run by a job of a cluster: its process ends on Ctrl-C or SIGTERM, where it runs"
        raise UserError(Fault("RUN", run, what))
    if mark is None:
        hint = nearest(run, [job.submission_id for job in jobs]) or f"`ray job list --address {url}` shows them"
        raise UserError(Fault("RUN", run, f"{url} knows no such submission or run", hint))
    matching = [job for job in jobs if mark_of(job.submission_id) == mark]
    if not matching:
        what = f"{url} knows no job that ran it: it ran elsewhere, or before the cluster's head last started"
        raise UserError(Fault("RUN", run, what, "`bizllm runs JOB.yaml RUN` tells how it ended"))
    if len(matching) > 1:
        names = ", ".join(job.submission_id for job in matching)
        raise UserError(Fault("RUN", run, f"may be of several submissions: {names}", "name one of them"))
    return matching[0]


def _grace_s(found: Any) -> float:
    """Seconds that the job's driver has after SIGTERM."""
    said = ((found.runtime_env or {}).get("env_vars") or {}).get(STOP_GRACE, "")
    return float(said) if said.isdecimal() else RAYS_GRACE_S


def _ended(submission: Submission, found: Any) -> Submission:
    state, status, _ = status_of(found)
    return replace(submission, state=state, exit_status=status)


def _last_lines(client: Any, submission: Submission) -> tuple[str, ...]:
    """What the job said last; empty where it can't be had."""
    try:
        log = str(client.get_job_logs(submission.submission_id))
    except (RuntimeError, ConnectionError, OSError):
        return ()
    return tuple(log.rstrip("\n").split("\n")[-LAST_LINES:])
