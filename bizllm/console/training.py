"""What a person sees of a training: its plan, its progress, and at the very end whether the model was promoted."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from bizllm.console.nights import WAYS, cluster_lines
from bizllm.console.progress import LINE_EVERY_S
from bizllm.console.terminal import count, duration, money, new_console, new_table, program, say
from bizllm.plain_text import plain
from bizllm.train.progress import TrainingObserver

CLASSES_MOST, SLICES_MOST = 10, 20

_STEP_VALUES = ("loss", "lr", "tokens_per_s")
Metrics = Mapping[str, float | None]


def figure(value: object) -> str:
    """A metric with four digits that count; empty where there is none."""
    if not isinstance(value, int | float):
        return ""
    if not math.isfinite(value):
        return plain(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}" if 0.001 <= abs(value) < 1 else f"{value:.4g}"


def print_finetune(result: Mapping[str, Any]) -> None:
    """The scores beside those of the control and the champion, where the model is, and the verdict as the last line."""
    console = new_console()
    control, champion = result.get("control") or {}, result.get("champion") or {}
    validation, test = (result["metrics"].get(split) or {} for split in ("validation", "test"))
    _print_metrics(
        console,
        {"validation": validation, "test": test, "control": control.get("test"), "champion": champion.get("test")},
        (result.get("intervals") or {}).get("test") or {},
    )
    speed = f", {result['tokens_per_s']:,.0f} tokens/s" if result.get("tokens_per_s") else ""
    lines = [
        ("model", result["model"]),
        ("run", f"{result['run_id']}: {count(result['steps'])} steps in {duration(result['seconds'])}{speed}"),
        ("path", result["path"]),
        ("report", result.get("report")),
    ]
    if champion:
        gain, low, high = (f"{champion[name]:+.4f}" for name in ("gain", "low", "high"))
        lines.append(("gain", f"{gain} over version {champion['version']}, between {low} and {high}"))
    if not result["promoted"]:
        lines.append(("promote", f"{program()} models promote {result['name']} {result['version']}"))
    _print_lines(console, lines)
    if control.get("wins"):
        console.print(Text("the control wins: a simple linear model scores as well on test", "yellow"), soft_wrap=True)
    verdict = ("promoted", "bold green") if result["promoted"] else ("not promoted", "bold yellow")
    console.print(Text.assemble(verdict, f" {plain(result['model'])}: {plain(result['reason'])}"), soft_wrap=True)


def print_compression(made: Mapping[str, Any]) -> None:
    """The pupils beside their teacher, and the smallest that may take its place."""
    console = new_console()
    metric, teacher = made["metric"], made["teacher"]
    numbers = ["layers", "MB", metric, "loss", "95 % interval"]
    scores = new_table(["model", *numbers], numbers)
    numbers = ["agrees", "tokens/s", "times", "int8, tokens/s"]
    speed = new_table(["model", *numbers], numbers)
    for model in (teacher, *made["students"]):
        name, loss, int8 = plain(model["model"]).removeprefix("registry:"), model.get("loss"), model.get("int8")
        interval = "" if loss is None else f"{model['low']:+.4f} to {model['high']:+.4f}"
        told = "" if loss is None else f"{loss:+.4f}"
        size = [count(model["layers"]), figure(model["size_mb"])]
        scores.add_row(name, *size, figure(model.get("score")), told, interval)
        rate = count(round(model["tokens_per_s"]))
        if model is teacher:
            speed.add_row(name, "", rate, "", "")
            continue
        low = count(round(int8["tokens_per_s"])) if int8 else "does not agree"
        speed.add_row(name, f"{model['agreement']:.1%}", rate, f"{model['times']:.2f}×", low)
    for table in (scores, speed):
        console.print(table)
        console.print()
    smallest = made["smallest"]
    if smallest:
        version = smallest.rpartition("@")[2]
        _print_lines(console, [("promote", f"{program()} models promote {made['name']} {version}")])
        said = f" {plain(smallest)} loses at most {made['max_loss']:g} of {metric}"
        console.print(Text.assemble(("smallest", "bold green"), said), soft_wrap=True)
    elif made["rows"]["test"]:
        said = f" loses at most {made['max_loss']:g} of {metric}: keep more layers, or name more rows to learn from"
        console.print(Text.assemble(("none", "bold yellow"), said), soft_wrap=True)
    else:
        console.print(Text("without `data.test` no score says which may take the teacher's place", "yellow"))


def print_training_plan(plan: Mapping[str, Any]) -> None:
    """What a training would do; the memory of every ZeRO stage, with the one that is taken."""
    console = new_console()
    if plan["memory"]:
        table = new_table(["ZeRO stage", "offload", "MB a worker", ""], ["MB a worker"])
        for row in plan["memory"]:
            mb = f"{row['mb']:,.0f}" if row["mb"] is not None else ""
            table.add_row(plain(row["stage"]), plain(row["offload"]), mb, "chosen" if row["chosen"] else "")
        console.print(table)
        console.print()
    batch, parameters, trainable = plan["batch"], plan["parameters"], plan["trainable"]
    share = f" ({100 * trainable / parameters:.3g} %)" if parameters else ""
    workers = f"{batch['workers']} worker{'s' * (batch['workers'] != 1)}"
    work = f"{batch['micro']} at once × {batch['accumulation']} accumulated × {workers}"
    hours = plan["hours"]
    lines = [
        ("plan", f"{plan['name']}: {plan['objective']} from {plan['base']}, {plan['method']}"),
        ("trains", f"{count(trainable)} of {count(parameters)} parameters{share}"),
        ("rows", ", ".join(f"{split} {count(rows)}" for split, rows in plan["rows"].items() if rows is not None)),
        ("batch", f"{batch['global']} rows: {work}"),
        ("work", f"{count(plan['steps'])} steps, {count(plan['tokens'])} tokens"),
        ("time", f"about {duration(3600.0 * hours)}" if hours is not None else None),
    ]
    if "cluster" in plan:
        lines += _on_cluster(plan)
    _print_lines(console, lines)
    for warning in plan["warnings"]:
        console.print(Text.assemble(("warning: ", "yellow"), plain(warning)), soft_wrap=True)


def _on_cluster(plan: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """What a training asks of a cluster, what that has, what it costs."""
    asks, hourly, costs = plan["asks"], plan["costs_per_hour"], plan["costs"]
    least, most = asks["workers"]
    number = f"{least}" if least == most else f"{least} to {most}"
    kind = f"a GPU{' of kind ' + asks['accelerator'] if asks['accelerator'] else ''}" if asks["gpus"] else "CPUs"
    lines: list[tuple[str, str | None]] = [*cluster_lines(plan["cluster"])]
    lines.append(("asks", f"{number} workers with {kind} each: {asks['fits']} fit, {asks['fits_now']} now"))
    for way, words in WAYS.items():
        if hourly[way] is not None:
            whole = f", about {money(costs[way])} in all" if costs[way] is not None else ""
            lines.append(("cost", f"{words} {money(hourly[way])} an hour{whole}"))
    return lines


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """A model's scores on a labelled table, its worst classes, and its scores on parts of the rows."""
    console = new_console()
    _print_metrics(console, {"score": evaluation["metrics"]}, evaluation.get("intervals") or {})
    classes = sorted(evaluation.get("per_class") or [], key=lambda row: row["f1"])
    if classes:
        numbers = ["precision", "recall", "f1", "rows"]
        table = new_table(["class, worst first", *numbers], numbers)
        for row in classes[:CLASSES_MOST]:
            table.add_row(plain(row["label"], 48), *(figure(row[n]) for n in numbers[:3]), count(row["support"]))
        console.print(table)
        if len(classes) > CLASSES_MOST:
            console.print(Text(f"and {len(classes) - CLASSES_MOST:,} better classes", "dim"))
        console.print()
    slices = evaluation.get("slices") or []
    if slices:
        numbers = ["rows", "score", "95 % interval"]
        table = new_table(["slice", "value", *numbers], numbers)
        for row in slices[:SLICES_MOST]:
            named = [plain(row["slice"], 32), plain(row["value"], 48)]
            table.add_row(*named, count(row["rows"]), figure(row["score"]), _interval(row.get("interval")))
        console.print(table)
        console.print()
    lines = [("model", f"{evaluation['model']} on {count(evaluation['rows'])} rows"), ("report", evaluation["report"])]
    _print_lines(console, lines)


def _print_metrics(console: Console, columns: Mapping[str, Metrics | None], intervals: Mapping[str, Any]) -> None:
    """A line for each metric that any column has; the intervals stand beside the test's or the only column."""
    known = {name: values for name, values in columns.items() if values}
    names = list(dict.fromkeys(name for values in known.values() for name in values))
    if not names:
        return
    beside = "test" if "test" in columns else next(iter(columns))
    titles: list[str] = []
    for name in known:
        titles += [name, "95 % interval"] if name == beside and intervals else [name]
    table = new_table(["metric", *titles], titles)
    for metric in names:
        cells = [
            _interval(intervals.get(metric)) if title == "95 % interval" else figure(known[title].get(metric))
            for title in titles
        ]
        table.add_row(plain(metric), *cells)
    console.print(table)
    console.print()


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{figure(bounds[0])} – {figure(bounds[1])}" if bounds else ""


def _print_lines(console: Console, lines: Sequence[tuple[str, object]]) -> None:
    for name, value in lines:
        if value:
            console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)


# -- progress -----------------------------------------------------------------------------------------------------


def _values(values: Mapping[str, float], names: Sequence[str]) -> str:
    shown = [f"{name} {figure(values[name])}" for name in names if name in values]
    return ", ".join(shown).replace("_per_s", "/s")


def _facts(facts: Mapping[str, Any]) -> str:
    said = f"{facts['name']} from {facts['base']}: {facts['objective']}, {facts['method']}"
    for name in ("workers", "rows", "steps"):
        if isinstance(facts.get(name), int):
            said += f", {facts[name]:,} {name if facts[name] != 1 else name[:-1]}"
    return f"{said}; run {facts['run_id']}" if facts.get("run_id") else said


def _ending(result: Mapping[str, Any]) -> str:
    return f"{result['model']}: {'promoted' if result['promoted'] else 'not promoted'}, {duration(result['seconds'])}"


def _workers(count: int, step: int) -> str:
    many = "1 worker" if count == 1 else f"{count} workers"
    return f"on from step {step:,} with {many}" if step else f"begins with {many}"


def _lost(reason: str) -> str:
    return f"workers lost: {reason}; waiting for room to go on"


def _made_up(step: int, seconds: float) -> str:
    return f"step {step:,} after {duration(seconds)} without a new one"


class TrainingLines(TrainingObserver):
    """Plain lines for logs of cron and clusters: of the steps at most one every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._step = 0
        self._last = -math.inf
        self._asked = 0

    def training_started(self, facts: Mapping[str, Any]) -> None:
        self._asked = facts["workers"]
        say(_facts(facts), self.stream)

    def stage(self, name: str) -> None:
        self._last = -math.inf
        say(f"stage {name}", self.stream)

    def workers(self, count: int, step: int) -> None:
        if step or count != self._asked:
            say(_workers(count, step), self.stream)

    def lost(self, reason: str) -> None:
        say(_lost(reason), self.stream)

    def made_up(self, step: int, seconds: float) -> None:
        say(_made_up(step, seconds), self.stream)

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self._step = step
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S or step == total:
            self._last = now
            say(f"step {step:,} of {total:,}: {_values(values, _STEP_VALUES)}", self.stream)

    def validated(self, values: Mapping[str, float]) -> None:
        say(f"validation after step {self._step:,}: {_values(values, list(values))}", self.stream)

    def finished(self, result: Mapping[str, Any]) -> None:
        say(_ending(result), self.stream)


class TrainingBars(TrainingObserver):
    """One bar on a terminal: the stage, and in training the steps; a line above it for each validation."""

    def __init__(self, stream: TextIO) -> None:
        text = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[said]}", markup=False))
        self.progress = Progress(
            text[0], BarColumn(), text[1], TimeRemainingColumn(elapsed_when_finished=True), console=new_console(stream)
        )
        self._task: TaskID | None = None
        self._step = 0
        self._asked = 0

    def training_started(self, facts: Mapping[str, Any]) -> None:
        self._asked = facts["workers"]
        self.progress.console.print(plain(_facts(facts)))

    def stage(self, name: str) -> None:
        self._close()
        self._task = self.progress.add_task(plain(name), total=None, said="")

    def workers(self, count: int, step: int) -> None:
        if step or count != self._asked:
            self.progress.console.print(plain(_workers(count, step)))

    def lost(self, reason: str) -> None:
        self.progress.console.print(plain(_lost(reason)))

    def made_up(self, step: int, seconds: float) -> None:
        self.progress.console.print(plain(_made_up(step, seconds)))

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self._step = step
        if self._task is None:
            self.stage("train")
        assert self._task is not None, "a stage has a bar"
        said = f"{step:,}/{total:,}  {_values(values, _STEP_VALUES)}"
        self.progress.update(self._task, completed=step, total=total, said=said)

    def validated(self, values: Mapping[str, float]) -> None:
        said = f"validation after step {self._step:,}: {_values(values, list(values))}"
        self.progress.console.print(plain(said))

    def finished(self, result: Mapping[str, Any]) -> None:
        self._close()

    def _close(self) -> None:
        if self._task is not None:
            done = self.progress.tasks[-1]
            self.progress.update(self._task, completed=done.total or 1, total=done.total or 1)
            self.progress.stop_task(self._task)


@contextmanager
def training_progress(as_json: bool) -> Iterator[TrainingObserver]:
    """A bar where stderr is a terminal, else lines; with JSON asked for and no terminal, nothing."""
    if sys.stderr.isatty():
        bars = TrainingBars(sys.stderr)
        with bars.progress:
            yield bars
    else:
        yield TrainingObserver() if as_json else TrainingLines(sys.stderr)
