"""What a person sees: Rich tables on stdout, progress on stderr. Row text is hostile: all text goes through `plain`."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from bizllm.jobs.observe import Observer
from bizllm.plain_text import plain

if TYPE_CHECKING:
    import pyarrow as pa

    from bizllm.jobs.submit import Submission

CELL_WIDTH = 48  # of a table's row text, where the terminal is wide enough
PIPE_WIDTH = 240  # where there is no terminal to fit
GAP = 3  # cells between two columns
LINE_EVERY_S = 5.0

_CONTRACT = ("run_date", "run_id", "model", "model_version", "input_hash", "produced_at")
_COLORS = {"done": "green", "unchanged": "cyan", "failed": "bold red", "skipped": "yellow", "cancelled": "yellow"}


# -- tables -------------------------------------------------------------------------------------------------------


def count(number: object) -> str:
    """12,345"""
    return f"{number:,}" if isinstance(number, int) else plain(number)


def duration(seconds: object) -> str:
    """4.2 s, 3 min 05 s, 2 h 04 min; empty where it is not known."""
    if not isinstance(seconds, int | float):
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _money(cost: object) -> str:
    return f"{cost:,.2f}" if isinstance(cost, int | float) else ""


def new_console(stream: TextIO | None = None) -> Console:
    """Rich on stdout or `stream`, taking nothing for markup."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def new_table(names: Sequence[str], right: Iterable[str] = ()) -> Table:
    """An empty table with these columns; those named in `right` hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    numbers = set(right)
    for name in names:
        justify = "right" if name in numbers else "left"
        table.add_column(Text(plain(name)), justify=justify, no_wrap=name in numbers, overflow="fold")  # type: ignore[arg-type]
    return table


def program() -> str:
    """What to type for bizllm here: its name, or its place where the shell would not find it (after `make demo`)."""
    beside = Path(sys.executable).with_name("bizllm")
    if shutil.which("bizllm") or not beside.exists():
        return "bizllm"
    near = os.path.relpath(beside)
    return shlex.quote(str(beside) if near.startswith("..") else near)


def _state(state: object) -> Text:
    return Text(plain(state), style=_COLORS.get(str(state), ""))


def print_run(result: dict[str, Any], job_path: str, sets: Sequence[str] = ()) -> None:
    """What each step did, where the results are, and at the very end what failed and where to look."""
    console = new_console()
    numbers = ["in", "out", "rejected", "reused", "time"]
    table = new_table(["step", "task", "state", *numbers], numbers)
    for step in result["steps"]:
        counts = [count(step[name]) for name in ("rows_in", "rows_out", "rows_rejected", "rows_reused")]
        named = [plain(step["step"]), plain(step["task"])]
        table.add_row(*named, _state(step["state"]), *counts, duration(step["seconds"]))
    console.print(table)
    console.print()
    job, overrides = shlex.quote(job_path), "".join(f" --set {shlex.quote(text)}" for text in sets)
    lines = [("run", f"{result['run_id']} of {result['job']} for {result['date']}: {result['state']}")]
    lines += [(name, str(result[name])) for name in ("warehouse", "report") if result.get(name)]
    readable = [step["step"] for step in result["steps"] if step["state"] in ("done", "unchanged")]
    if readable:
        lines.append(("read", f"{program()} show {job} {readable[0]} --date {result['date']}{overrides}"))
    for name, value in lines:
        console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)
    troubled = [step for step in result["steps"] if step["state"] in ("failed", "skipped", "cancelled")]
    for step in troubled:
        why = plain(step.get("error")) or "no reason is known"
        console.print(Text.assemble(_state(step["state"]), f" {plain(step['step'])}: {why}"), soft_wrap=True)
    if troubled:
        console.print(plain(f"look at: {program()} runs {job} {result['run_id']}{overrides}"), soft_wrap=True)


def print_plan(plan: dict[str, Any]) -> None:
    """What a run would do. An empty cell is known only when an earlier step has run."""
    console = new_console()
    priced = [] if plan["cost"] is None else ["cost"]
    numbers = ["rows", "units", "tokens", "time", *priced]
    table = new_table(["step", "task", "input", "dates", *numbers[:2], "model", "engine", *numbers[2:]], numbers)
    for step in plan["steps"]:
        table.add_row(
            *(plain(step[name]) for name in ("step", "task")),
            plain(", ".join([step["input"], *step["tables"].values()])),
            plain(step["dates"]),
            *(count(step[name]) for name in ("rows", "units")),
            plain(step["model"]),
            plain(step["engine"]),
            count(step["tokens"]),
            duration(step["seconds"]),
            *(_money(step[name]) for name in priced),
        )
    console.print(table)
    console.print()
    cost = f", cost about {_money(plan['cost'])}" if plan["cost"] is not None else ""
    lines = [
        ("plan", f"{plan['job']} for {plan['date']}: about {duration(plan['seconds'])} on {plan['cpus']} CPUs{cost}"),
        ("warehouse", plan["warehouse"]),
    ]
    for name, value in lines:
        console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)
    for step in plan["steps"]:
        for offer in step["smaller"]:
            sizes = (
                f"{offer['size_mb']:.3g} MB instead of {offer['teacher_size_mb']:.3g}, {offer['times']:.2g}× as fast"
            )
            scores = f"{offer['metric']} {offer['score']:.4f} instead of {offer['teacher_score']:.4f}"
            said = f"{step['step']} could use {offer['model']}: {sizes}, {scores}"
            console.print(Text.assemble((f"{'smaller':<10}", "dim"), plain(said)), soft_wrap=True)
    for warning in plan["warnings"]:
        console.print(Text.assemble(("warning: ", "yellow"), plain(warning)), soft_wrap=True)


def print_submission(sent: Submission) -> None:
    """Which job a cluster has now, and how to follow and to stop it; on stderr, since the job's lines go there too."""
    console = new_console(sys.stderr)
    for warning in sent.warnings:
        console.print(Text.assemble(("warning ", "yellow"), plain(warning)), soft_wrap=True)
    lines = [("submitted", f"{sent.submission_id} to {sent.address}"), ("follow", sent.command("logs --follow"))]
    for name, value in [*lines, ("state", sent.command("status")), ("stop", sent.command("stop"))]:
        console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)


def print_submission_end(sent: Submission) -> None:
    """Its id alone before the end, so that a script can take it; at the end how it went."""
    if sent.exit_status is None:
        print(plain(sent.submission_id))
        return
    why = f" ({sent.meaning()})" if sent.state == "failed" else ""
    state = Text.assemble(plain(f"{sent.submission_id} of {sent.job} for {sent.date}: "), _state(sent.state), why)
    new_console().print(state, soft_wrap=True)


def print_log_line(line: str) -> None:
    """A line that a job printed elsewhere."""
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()


def print_runs(runs: Sequence[dict[str, Any]]) -> None:
    """The ledger: a line for each step of each run."""
    console = new_console()
    if not runs:
        console.print("no runs yet")
        return
    priced = ["cost"] if any(row["cost"] is not None for row in runs) else []
    numbers = ["in", "out", "rejected", "reused", "tokens", "time", *priced]
    table = new_table(["run", "date", "step", "state", *numbers], numbers)
    last = None
    for row in runs:
        first = row["run_id"] != last
        last = row["run_id"]
        table.add_row(
            *(plain(row[name]) if first else "" for name in ("run_id", "run_date")),
            plain(row["step"]),
            _state(row["state"]),
            *(count(row[name]) for name in ("rows_in", "rows_out", "rows_rejected", "rows_reused", "tokens")),
            duration(row["seconds"]),
            *(_money(row[name]) for name in priced),
        )
    console.print(table)
    for row in runs:
        if row["error"]:
            where = f"{plain(row.get('run_id'))} {plain(row.get('step'))}: "
            console.print(Text.assemble(where, plain(row["error"])), soft_wrap=True)


def print_rows(rows: pa.Table) -> None:
    """Rows of a published table. On a narrow terminal the contract columns make way first."""
    console = new_console()
    if rows.num_columns == 0:
        console.print("no columns")
        return
    numeric = {field.name for field in rows.schema if _is_number(field)}
    columns = [(name, [plain(value, CELL_WIDTH) for value in rows.column(i).to_pylist()])
               for i, name in enumerate(rows.column_names)]  # fmt: skip
    widths = [max(cell_len(text) for text in [plain(name), *cells]) + GAP for name, cells in columns]
    if not console.is_terminal:
        console.width = sum(widths)
    shown = _fitting(rows.column_names, widths, console.width + GAP)
    table = new_table([columns[i][0] for i in shown], numeric)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for row in zip(*(columns[i][1] for i in shown), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    hidden = [plain(name) for i, name in enumerate(rows.column_names) if i not in shown]
    tail = f"; not shown: {', '.join(hidden)}" if hidden else ""
    noun = "row" if rows.num_rows == 1 else "rows"
    console.print(Text(f"{rows.num_rows:,} {noun}{tail}", style="dim"), soft_wrap=True)


def _fitting(names: Sequence[str], widths: Sequence[int], room: int) -> list[int]:
    """Positions of the columns that fit, in their order: the first always, the contract's only where room is left."""
    by_worth = sorted(range(len(names)), key=lambda i: (names[i] in _CONTRACT, i))
    shown = by_worth[:1]
    room -= widths[by_worth[0]]
    for i in by_worth[1:]:
        if widths[i] > room:
            break
        shown.append(i)
        room -= widths[i]
    return sorted(shown)


def _is_number(field: pa.Field) -> bool:
    return str(field.type).startswith(("int", "uint", "float", "double", "halffloat", "decimal"))


# -- progress -----------------------------------------------------------------------------------------------------


def say(line: str, stream: TextIO) -> None:
    """One plain line, at once."""
    with suppress(OSError, ValueError):  # a reader that went away is no reason to end the run
        print(plain(line), file=stream, flush=True)


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
