"""How far a night is: bars on a terminal, plain lines in logs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, TextIO

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from bizllm.console.terminal import count, duration, new_console, say
from bizllm.jobs.observe import Observer

LINE_EVERY_S = 5.0


class Lines(Observer):
    """Progress as plain lines, for logs of cron and clusters: at most one line a step every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._last: dict[str, float] = {}

    def _say(self, line: str) -> None:
        say(line, self.stream)

    def run_started(self, job: str, run_id: str, run_date: date, steps: Sequence[str]) -> None:
        self._say(f"run {run_id} of {job} for {run_date}: {', '.join(steps)}")

    def step_started(self, step: str, task: str, units: int) -> None:
        self._last[step] = time.monotonic()
        self._say(f"{step}: {task}" + (f", {units:,} unit{'s' * (units > 1)}" if units else ""))

    def unit_done(self, step: str, done: int, total: int, rows: int, rejected: int) -> None:
        now = time.monotonic()
        if now - self._last.get(step, -math.inf) >= LINE_EVERY_S:
            self._last[step] = now
            self._say(f"{step}: {done:,} of {total:,} units, {rows:,} rows, {rejected:,} rejected")

    def step_finished(self, result: dict[str, Any]) -> None:
        counts = f"{count(result['rows_out'])} of {count(result['rows_in'])} out, "
        counts += f"{count(result['rows_rejected'])} rejected, {duration(result['seconds'])}"
        self._say(f"{result['step']}: {result['state']}, {counts}")


class _Rate(ProgressColumn):
    """Rows a second since the step began, and the rejected ones so far."""

    def render(self, task: Task) -> Text:
        rows, rejected = task.fields.get("rows", 0), task.fields.get("rejected", 0)
        rate = f"{rows / task.elapsed:,.0f} rows/s" if rows and task.elapsed else ""
        return Text(f"{rate}{f'  {rejected:,} rejected' if rejected else ''}")


class Bars(Observer):
    """Progress as one bar a step, on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        name, units = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[units]}", markup=False)
        self.progress = Progress(name, BarColumn(), units, _Rate(), console=new_console(stream))
        self._tasks: dict[str, TaskID] = {}

    def run_started(self, job: str, run_id: str, run_date: date, steps: Sequence[str]) -> None:
        for task in self._tasks.values():  # of the night before, in a backfill
            self.progress.remove_task(task)
        self._tasks = {step: self.progress.add_task(step, start=False, total=None, units="") for step in steps}

    def step_started(self, step: str, task: str, units: int) -> None:
        self.progress.start_task(self._tasks[step])
        self.progress.update(self._tasks[step], total=units or None, units=f"0/{units}" if units else "")

    def unit_done(self, step: str, done: int, total: int, rows: int, rejected: int) -> None:
        units = f"{done:,}/{total:,}"
        self.progress.update(self._tasks[step], completed=done, total=total, units=units, rows=rows, rejected=rejected)

    def step_finished(self, result: dict[str, Any]) -> None:
        task = self._tasks[result["step"]]
        if result["state"] in ("done", "unchanged"):
            self.progress.update(task, completed=1, total=1)
        self.progress.update(task, units=result["state"], rows=0)
        self.progress.stop_task(task)


@contextmanager
def progress(as_json: bool) -> Iterator[Observer]:
    """Bars where stderr is a terminal, else lines; with JSON asked for and no terminal, nothing."""
    if sys.stderr.isatty():
        bars = Bars(sys.stderr)
        with bars.progress:
            yield bars
    else:
        yield Observer() if as_json else Lines(sys.stderr)
