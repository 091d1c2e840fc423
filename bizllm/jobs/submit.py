"""A job through Ray's Jobs API: checked here, sent with its folder, followed to its end.

What runs on the cluster is `python -m bizllm.cli run`, so its exit status is bizllm's own.
"""

from __future__ import annotations

import os
import queue
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bizllm.errors import Cancelled, Fault, RunError, UserError, nearest
from bizllm.jobs import ray_jobs
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.yaml_places import dotted
from bizllm.tables.urls import is_local

LOST_AFTER_S = 60.0  # without an answer, while a job is waited for
POLL_S = 1.0
LAST_LINES_S = 10.0  # for the rest of the log of a job that ended

# Besides what the folder's .gitignore and .rayignore name.
EXCLUDED = [".git/", ".venv/", "/out/", "__pycache__/", ".mypy_cache/", ".ruff_cache/", ".pytest_cache/"]

_FAILED, _WRONG_INPUT, _LOCKED, _INTERRUPTED = 1, 2, 3, 130
_MEANING = {_FAILED: "failed", _WRONG_INPUT: "the input was wrong", _LOCKED: "another run holds the lock"}


@dataclass(frozen=True)
class Submission:
    """A job as a cluster has it.

    state: submitted, done, failed or cancelled. exit_status: bizllm's own, None before the job's end. warnings: what
    may go wrong on other machines.
    """

    submission_id: str
    address: str
    job: str
    date: date
    state: str = "submitted"
    exit_status: int | None = None
    warnings: tuple[str, ...] = ()

    def command(self, verb: str) -> str:
        """`ray job VERB` for this job, to be typed: `logs --follow`, `status`, `stop`."""
        return f"ray job {verb} --address {shlex.quote(self.address)} {self.submission_id}"

    def meaning(self) -> str:
        """What the exit status says, in words."""
        return _MEANING.get(self.exit_status or 0, self.state)

    def to_dict(self) -> dict[str, Any]:
        """What `submit --json` prints."""
        return {
            "submission_id": self.submission_id,
            "address": self.address,
            "job": self.job,
            "date": self.date.isoformat(),
            "state": self.state,
            "exit_status": self.exit_status,
            "warnings": list(self.warnings),
        }


def submit_job(
    loaded: LoadedJob,
    run_date: date,
    address: str | None,
    *,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    working_dir: str | None = None,
) -> tuple[Submission, Any]:
    """Send the job and the folder that it lies in. Returns it with the client that `follow` takes.

    address: http://HEAD:8265, else RAY_API_SERVER_ADDRESS. working_dir: the folder to send; the job file's by default.
    Raises UserError before anything is sent where the job can't work elsewhere, nobody answers or the token is wrong.
    """
    folder = Path(working_dir).resolve() if working_dir else loaded.folder.resolve()
    _check(loaded, folder, only, working_dir)
    url = ray_jobs.checked_address(address)
    client = ray_jobs.connect(url)
    script = (loaded.folder.resolve() / Path(loaded.path).name).relative_to(folder)
    asked = ["python", "-m", "bizllm.cli", "run", str(script), "--date", run_date.isoformat()]
    asked += [word for name in only for word in ("--only", name)] + [word for text in sets for word in ("--set", text)]
    name = f"{loaded.job.name}-{run_date}-{secrets.token_hex(3)}"
    with ray_jobs.refusals(url, f"send {loaded.job.name}"), ray_jobs.quiet():
        client.submit_job(
            entrypoint=shlex.join(asked),
            submission_id=name,
            runtime_env={"working_dir": str(folder), "excludes": EXCLUDED},
            metadata={"bizllm_job": loaded.job.name, "bizllm_date": run_date.isoformat()},
        )
    return Submission(name, url, loaded.job.name, run_date, warnings=tuple(_warnings(loaded))), client


# -- what can't work elsewhere ------------------------------------------------------------------------------------


def _check(loaded: LoadedJob, folder: Path, only: Sequence[str], given: str | None) -> None:
    steps = loaded.job.steps
    faults = [
        Fault("--only", name, f"no such step: the job has {', '.join(steps)}", nearest(name, steps))
        for name in only
        if name not in steps
    ]
    if not folder.is_dir():
        faults.append(Fault("--working-dir", given, "no such folder"))
    elif not loaded.folder.resolve().is_relative_to(folder):
        faults.append(Fault("--working-dir", given, f"does not hold {loaded.path}"))
    for keys in sorted(loaded.document.relative, key=str):
        text = str(loaded.document.at(*keys)).removeprefix("path:").removeprefix("sqlite:///")
        shown = loaded.document.shown(keys)
        if keys[0] in ("warehouse", "registry"):
            expected = "is a local path without a root: it would lie in the copy of the folder that Ray deletes"
            hint = "use a URL such as s3://bucket/warehouse, or an absolute path that every node sees"
            faults.append(Fault(loaded.place(*keys), shown, expected, hint))
        elif loaded.document.folder_of(*keys) != loaded.folder and Path.cwd().resolve() != folder:
            expected = f"is relative to {Path.cwd()}, which is not the folder that is sent"
            faults.append(Fault(loaded.place(*keys), shown, expected, "give a URL, or --working-dir ."))
        elif not Path(text).resolve().is_relative_to(folder):
            expected = f"lies outside the folder that is sent, {folder}"
            faults.append(Fault(loaded.place(*keys), shown, expected, "give a URL, or --working-dir DIR that holds it"))
        elif not os.path.exists(text):
            faults.append(Fault(loaded.place(*keys), shown, "no such file or folder in the folder that is sent"))
    if faults:
        raise UserError(*faults)


def _warnings(loaded: LoadedJob) -> Iterator[str]:
    """What the nodes have to have of their own."""
    document = loaded.document
    warehouse, sources = loaded.job.warehouse, loaded.job.sources
    rooted: list[tuple[tuple[str, ...], str]] = [
        (("sources", name, "path"), source.path)
        for name, source in sources.items()
        if source.path and is_local(source.path) and ("sources", name, "path") not in document.relative
    ]
    if is_local(warehouse.path):
        rooted.append((("warehouse", "path"), warehouse.path))
    for keys, path in rooted:
        yield f"{loaded.place(*keys)}: {path} is a local path; every node must see the same files there"
    for place in document.from_environment():
        sent = "" if place[0] == "notify" else f"; `--set {dotted(place)}=…` sends one"
        yield (
            f"{loaded.place(*place)}: {document.shown(place)} takes its value from the environment of the cluster, not"
            f" of this machine{sent}"
        )


# -- following ----------------------------------------------------------------------------------------------------


def follow(sent: Submission, client: Any, line: Callable[[str], None]) -> Submission:
    """Wait for the job's end; every line that it prints goes to `line`.

    Returns it with its end. Raises RunError where the cluster lost the job or answers no more, Cancelled on Ctrl-C; the
    job goes on then.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(client, sent.submission_id, lines.put), daemon=True)
    reader.start()
    try:
        ended = _until_ended(sent, client, lambda: _drain(lines, line, POLL_S))
        deadline = time.monotonic() + LAST_LINES_S
        while reader.is_alive() and time.monotonic() < deadline:
            _drain(lines, line, 0.1)
        _drain(lines, line, 0.0)
    except KeyboardInterrupt:
        said = f"no longer waiting: {sent.submission_id} goes on"
        ways = f"follow it with `{sent.command('logs --follow')}`, stop it with `{sent.command('stop')}`"
        raise Cancelled(f"{said}; {ways}") from None
    return _with_end(sent, ended)


def _until_ended(sent: Submission, client: Any, pause: Callable[[], None]) -> Any:
    from ray.exceptions import AuthenticationError
    from requests import RequestException

    answered = time.monotonic()
    while True:
        pause()
        try:
            found = client.get_job_info(sent.submission_id)
        except AuthenticationError:
            raise RunError(f"{sent.address} no longer takes the token; {sent.submission_id} may go on") from None
        except (ConnectionError, RequestException) as fault:
            if time.monotonic() - answered > LOST_AFTER_S:
                raise RunError(
                    f"{sent.address} has not answered for {LOST_AFTER_S:.0f} s ({ray_jobs.cause(fault)}):"
                    f" {sent.submission_id} is lost, or goes on unseen: see `{sent.command('status')}` once it is back"
                ) from None
            continue
        except RuntimeError as fault:
            if "404" in str(fault):
                raise RunError(
                    f"{sent.address} knows no {sent.submission_id} any more: the cluster lost it, as a head that starts"
                    " anew does; the next run of this date goes on from what was finished"
                ) from None
            raise RunError(f"{sent.submission_id}: {ray_jobs.first_line(fault)}") from fault
        answered = time.monotonic()
        if found.status.is_terminal():
            return found


def _with_end(sent: Submission, ended: Any) -> Submission:
    state, status = str(ended.status.value), ended.driver_exit_code
    if state == "SUCCEEDED":
        return _ended(sent, "done", 0)
    if state == "STOPPED" or status == _INTERRUPTED:
        return _ended(sent, "cancelled", _INTERRUPTED)
    if status in _MEANING:
        return _ended(sent, "failed", int(status))
    if status is None:
        raise RunError(
            f"the cluster lost {sent.submission_id}: {ray_jobs.first_line(ended.message or 'it gives no reason')}"
        )
    why = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    raise RunError(f"{sent.submission_id}: the job's process ended with {why}; `{sent.command('logs')}` may tell more")


def _ended(sent: Submission, state: str, status: int) -> Submission:
    return Submission(sent.submission_id, sent.address, sent.job, sent.date, state, status, sent.warnings)


def _drain(lines: queue.SimpleQueue[str], line: Callable[[str], None], wait_s: float) -> None:
    """Hand on what is there, for `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            line(lines.get(timeout=max(0.0, deadline - time.monotonic())) if wait_s else lines.get_nowait())
        except queue.Empty:
            return


def _read(client: Any, name: str, put: Callable[[str], None]) -> None:
    """The job's log by lines, from its start to its end. A connection that breaks is made anew."""
    import asyncio

    async def read() -> None:
        taken, rest = 0, ""
        while True:
            offset = 0
            with suppress(Exception):  # whether the job lives is the other thread's question
                async for text in client.tail_job_logs(name):
                    new = text[max(0, taken - offset) :]
                    offset += len(text)
                    taken = max(taken, offset)
                    *whole, rest = (rest + new).split("\n")
                    for each in whole:
                        put(each)
                break
            await asyncio.sleep(POLL_S)
        if rest:
            put(rest)

    asyncio.run(read())
