"""What was sent to a cluster, and how it ended."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from bizllm.jobs import ray_jobs

# As functions of the Python API; `catch_up` is `bizllm run --catch-up`.
Verb = Literal["run", "catch_up", "finetune", "compress"]
State = Literal["submitted", "done", "failed", "cancelled"]

FAILED, WRONG_INPUT, LOCKED, INTERRUPTED = 1, 2, 3, 130
MEANING = {FAILED: "failed", WRONG_INPUT: "the input was wrong", LOCKED: "another run holds the lock"}
SUBJECT: dict[Verb, str] = {
    "run": "{job} for {date}",
    "catch_up": "{job}'s missing nights",
    "finetune": "training {job}",
    "compress": "smaller {job}",
}
# What becomes of one that was stopped or lost.
GOES_ON: dict[Verb, str] = {
    "run": "the next run of this date goes on from what was finished",
    "catch_up": "the next catch-up goes on from what was finished",
    "finetune": "`bizllm submit TRAIN.yaml --resume RUN` goes on from its last checkpoint",
    "compress": "students that were finished are registered, and the next compression makes all anew",
}


@dataclass(frozen=True)
class Submission:
    """A night, a catch-up, a training or a compression as a cluster has it.

    job: the name of the job or the model; None where a submission says nothing of it. date: a night's run date.
    exit_status: bizllm's own, None before the end. code: the bizllm that sent it (`0.1.0/1a2b3c4d5e6f`). code_from:
    whose bizllm runs: the cluster's, or one that was sent. warnings: what may go wrong on other machines.
    """

    submission_id: str
    address: str
    job: str | None
    date: date | None
    verb: Verb | None = "run"
    state: State = "submitted"
    exit_status: int | None = None
    code: str | None = None
    code_from: str | None = None
    warnings: tuple[str, ...] = ()

    def command(self, verb: str) -> str:
        """`ray job VERB` for this job, to be typed: `logs --follow`, `status`."""
        return f"ray job {verb} --address {shlex.quote(self.address)} {self.submission_id}"

    def stop_command(self) -> str:
        """How to end it, to be typed."""
        return f"bizllm stop {self.submission_id} --address {shlex.quote(self.address)}"

    def meaning(self) -> str:
        """What the exit status says, in words."""
        return MEANING.get(self.exit_status or 0, self.state)

    def subject(self) -> str:
        """`shop for 2026-06-30`, `training ticket_intent`; empty where nothing is known of it."""
        if self.job is None or self.verb is None:
            return self.job or ""
        return SUBJECT[self.verb].format(job=self.job, date=self.date)

    def metadata(self) -> dict[str, str]:
        """What Ray keeps of it beside the job; `from_metadata` reads it."""
        told = {
            "bizllm_job": self.job,
            "bizllm_date": self.date and self.date.isoformat(),
            "bizllm_verb": self.verb,
            "bizllm_code": self.code,
            "bizllm_code_from": self.code_from,
        }
        return {name: value for name, value in told.items() if value}

    @classmethod
    def from_metadata(cls, submission_id: str, address: str, metadata: dict[str, str] | None) -> Submission:
        """A submission that the cluster knows, whoever sent it."""
        said = {name.removeprefix("bizllm_"): value for name, value in (metadata or {}).items()}
        verb = next((verb for verb in SUBJECT if verb == said.get("verb")), None)
        day = None
        with suppress(ValueError):
            day = date.fromisoformat(said.get("date", ""))
        return cls(submission_id, address, said.get("job"), day, verb, code=said.get("code"))

    def to_dict(self) -> dict[str, Any]:
        """What `submit --json` prints."""
        return {
            "submission_id": self.submission_id,
            "address": self.address,
            "verb": self.verb,
            "job": self.job,
            "date": self.date and self.date.isoformat(),
            "state": self.state,
            "exit_status": self.exit_status,
            "code": self.code,
            "code_from": self.code_from,
            "warnings": list(self.warnings),
        }


def status_of(found: Any) -> tuple[State, int | None, str]:
    """(state, bizllm's exit status, why there is none) of a job that Ray says has ended."""
    state, status = str(found.status.value), found.driver_exit_code
    if state == "SUCCEEDED":
        return "done", 0, ""
    if state == "STOPPED" or status == INTERRUPTED:
        return "cancelled", INTERRUPTED, ""
    if status in MEANING:
        return "failed", int(status), ""
    if status is None:
        return "failed", None, f"the cluster lost it: {ray_jobs.first_line(found.message or 'it gives no reason')}"
    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return "failed", None, f"the job's process ended with {how}"
