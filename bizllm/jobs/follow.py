"""Waiting for a job on a cluster: its lines as they come, and how it ended, over connections that may break."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bizllm.errors import Cancelled, RunError
from bizllm.jobs import ray_jobs
from bizllm.jobs.submission import GOES_ON, Submission, status_of

LOST_AFTER_S = 60.0  # without an answer, while a job is waited for
POLL_S = 1.0
LAST_LINES_S = 10.0  # for the rest of the log of a job that ended


def follow(sent: Submission, client: Any, line: Callable[[str], None]) -> Submission:
    """Wait for the job's end; every line that it prints goes to `line`, once, however often connections break.

    Returns it with its end. Raises RunError where the cluster lost the job or answers no more.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    over = threading.Event()
    reader = threading.Thread(target=_read, args=(client, sent.submission_id, lines.put, over), daemon=True)
    reader.start()
    ended = until_ended(sent, client, lambda: _drain(lines, line, POLL_S))
    over.set()
    deadline = time.monotonic() + LAST_LINES_S
    while reader.is_alive() and time.monotonic() < deadline:
        _drain(lines, line, 0.1)
    _drain(lines, line, 0.0)
    state, status, why = status_of(ended)
    if status is None:
        raise RunError(f"{sent.submission_id}: {why}; `{sent.command('logs')}` may tell more")
    return replace(sent, state=state, exit_status=status)


def goes_on(sent: Submission) -> Cancelled:
    """What Ctrl-C means here: the job does not hear it."""
    ways = f"follow it with `{sent.command('logs --follow')}`, stop it with `{sent.stop_command()}`"
    return Cancelled(f"no longer waiting: {sent.submission_id} goes on; {ways}")


def until_ended(sent: Submission, client: Any, pause: Callable[[], None]) -> Any:
    """Ask until the job has ended, with a pause before each time. Returns what Ray knows of it. Raises RunError."""
    answered = time.monotonic()
    while True:
        pause()
        try:
            found = ray_jobs.job_info(client, sent.submission_id)
        except ray_jobs.Unanswered as fault:
            if time.monotonic() - answered > LOST_AFTER_S:
                raise RunError(
                    f"{sent.address} has not answered for {LOST_AFTER_S:.0f} s ({fault}):"
                    f" {sent.submission_id} is lost, or goes on unseen: see `{sent.command('status')}` once it is back"
                ) from None
            continue
        if found is None:
            raise RunError(
                f"{sent.address} knows no {sent.submission_id} any more: the cluster lost it, as a head that starts"
                f" anew does; {GOES_ON[sent.verb or 'run']}"
            )
        answered = time.monotonic()
        if found.status.is_terminal():
            return found


def _drain(lines: queue.SimpleQueue[str], line: Callable[[str], None], wait_s: float) -> None:
    """Hand on what is there, for `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            line(lines.get(timeout=max(0.0, deadline - time.monotonic())) if wait_s else lines.get_nowait())
        except queue.Empty:
            return


def _read(client: Any, name: str, put: Callable[[str], None], over: threading.Event) -> None:
    """The job's log by lines, from its start until the job is `over`. A connection that ends before is made anew."""
    import asyncio

    async def read() -> None:
        taken, rest = 0, ""
        while True:
            offset, whole = 0, False
            with suppress(Exception):  # whether the job lives is the other thread's question
                async for text in client.tail_job_logs(name):
                    new = text[max(0, taken - offset) :]
                    offset += len(text)
                    taken = max(taken, offset)
                    *ready, rest = (rest + new).split("\n")
                    for each in ready:
                        put(each)
                whole = True
            # A log that ended in good order is whole, unless something on the way closed it: the job would go on.
            if whole and await asyncio.to_thread(over.wait, 3 * POLL_S):
                break
            await asyncio.sleep(POLL_S)
        if rest:
            put(rest)

    asyncio.run(read())
