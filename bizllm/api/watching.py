"""What tells how nights went: checks, metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING

from bizllm.api.opened import loaded_job
from bizllm.errors import Fault, UserError
from bizllm.jobs.job import DUE

if TYPE_CHECKING:
    from bizllm.watch.check import Checked
    from bizllm.watch.exporter import Exporter


def check(job_path: str, *, by: str | None = None, sets: Sequence[str] = ()) -> Checked:
    """Whether last night's tables are there; receivers of `notify` are told where they are late, once a night.

    by: HH:MM in the job's time zone, before the file's `due`; without both the tables should be there now.
    """
    if by is not None and not re.fullmatch(DUE, by, re.ASCII):
        raise UserError(Fault("--by", by, "expected a time HH:MM, such as 06:00"))
    loaded = loaded_job(job_path, [*sets, *([f"due={by}"] if by is not None else [])])
    from bizllm.watch.check import check as look

    return look(loaded, datetime.now(UTC))


def metrics(*job_paths: str, sets: Sequence[str] = ()) -> Exporter:
    """The metrics of these jobs' nights, as of now: `text()` is what Prometheus reads, `refresh()` reads anew."""
    exporter = _exporter(job_paths, sets)
    exporter.refresh()
    return exporter


def serve_metrics(
    *job_paths: str,
    host: str = "127.0.0.1",
    port: int = 9464,
    every_s: float = 60.0,
    sets: Sequence[str] = (),
    stop: Event | None = None,
    ready: Callable[[int], None] = lambda _: None,
) -> None:
    """Serve the metrics at `http://host:port/metrics` until `stop` is set; read anew every so many seconds.

    ready: called with the port once it listens.
    """
    from bizllm.watch.exporter import serve

    serve(_exporter(job_paths, sets), host, port, every_s, stop or Event(), ready)


def _exporter(job_paths: Sequence[str], sets: Sequence[str]) -> Exporter:
    jobs = {}
    for path in job_paths:
        job = loaded_job(path, sets).job
        if job.name in jobs:
            raise UserError(Fault("JOB", path, f"is a second job of the name {job.name}; expected names of their own"))
        jobs[job.name] = job
    from bizllm.watch.exporter import Exporter

    return Exporter(list(jobs.values()))
