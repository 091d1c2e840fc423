"""What a person sees of a night: its plan, how it ended, the ledger."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from bizllm.console.terminal import count, duration, money, new_console, new_table, program, state_text
from bizllm.plain_text import plain

WAYS = {"on_demand": "on demand", "spot": "spot"}


def print_run(result: dict[str, Any], job_path: str, sets: Sequence[str] = ()) -> None:
    """What each step did, where the results are, and at the very end what failed and where to look."""
    console = new_console()
    numbers = ["in", "out", "rejected", "reused", "time"]
    table = new_table(["step", "task", "state", *numbers], numbers)
    for step in result["steps"]:
        counts = [count(step[name]) for name in ("rows_in", "rows_out", "rows_rejected", "rows_reused")]
        named = [plain(step["step"]), plain(step["task"])]
        table.add_row(*named, state_text(step["state"]), *counts, duration(step["seconds"]))
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
        console.print(Text.assemble(state_text(step["state"]), f" {plain(step['step'])}: {why}"), soft_wrap=True)
    if troubled:
        console.print(plain(f"look at: {program()} runs {job} {result['run_id']}{overrides}"), soft_wrap=True)


def print_catch_up(entries: Sequence[dict[str, Any]], job_path: str, sets: Sequence[str] = ()) -> None:
    """Every night that ran, then a line for each that did not, and why."""
    console = new_console()
    for entry in entries:
        if entry["run_id"]:
            print_run(entry, job_path, sets)
    for why, group in groupby((e for e in entries if not e["run_id"]), lambda e: (e["state"], e["reason"], e["error"])):
        days = [entry["date"] for entry in group]
        shown = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} nights)"
        console.print(Text.assemble(state_text(why[0]), f" {shown}: {plain(why[2])}"), soft_wrap=True)
    if not entries:
        console.print("no night is missing")


def print_plan(plan: dict[str, Any]) -> None:
    """What a run would do. An empty cell is known only when an earlier step has run."""
    console = new_console()
    kinds = [kind for kind, cost in plan["costs"].items() if cost is not None]
    several = kinds not in ([], ["on_demand"])
    priced = [WAYS[kind] for kind in kinds] if several else [] if plan["cost"] is None else ["cost"]
    numbers = ["rows", "units", "tokens", "time", *priced]
    table = new_table(["step", "task", "input", "dates", *numbers[:2], "model", "engine", *numbers[2:]], numbers)
    for step in plan["steps"]:
        costs = [step["costs"][kind] for kind in kinds] if several else [step["cost"]] if priced else []
        table.add_row(
            *(plain(step[name]) for name in ("step", "task")),
            plain(", ".join([step["input"], *step["tables"].values()])),
            plain(step["dates"]),
            *(count(step[name]) for name in ("rows", "units")),
            plain(step["model"]),
            plain(step["engine"]),
            count(step["tokens"]),
            duration(step["seconds"]),
            *map(money, costs),
        )
    console.print(table)
    console.print()
    cluster = plan["cluster"]
    cost = f", cost about {money(plan['cost'])}" if plan["cost"] is not None else ""
    if several:
        cost = ", cost about " + " or ".join(f"{money(plan['costs'][kind])} {WAYS[kind]}" for kind in kinds)
        if plan["cost"] is not None and plan["cost"] not in plan["costs"].values():
            cost += f", as its pools pay {money(plan['cost'])}"
    where = "the cluster" if cluster else f"{plan['cpus']} CPUs"
    lines = [
        ("plan", f"{plan['job']} for {plan['date']}: about {duration(plan['seconds'])} on {where}{cost}"),
        ("warehouse", plan["warehouse"]),
    ]
    lines += cluster_lines(cluster) if cluster else []
    for name, value in lines:
        console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)
    if cluster:
        console.print()
        console.print(_placed(plan["steps"]))
        console.print()
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


def cluster_lines(cluster: dict[str, Any]) -> list[tuple[str, str]]:
    """What a cluster has: in all, and by kind of node."""
    gpus = ", ".join(f"{number:g} {name or 'of no told kind'}" for name, number in cluster["accelerators"].items())
    has = [f"{cluster['nodes']} node{'s' * (cluster['nodes'] != 1)}", f"{cluster['cpus']:g} CPUs"]
    has += [f"{cluster['gpus']:g} GPUs ({gpus})"] if gpus else []
    has += [f"{cluster['memory'] / (1 << 30):,.0f} GiB of memory for work"]
    grows = "an autoscaler may add nodes" if cluster["may_grow"] else "no autoscaler"
    if cluster["grows_to"]:
        most = ", ".join(f"{cluster['grows_to'].get(f'{kind}', 0):g} {kind}s" for kind in ("CPU", "GPU"))
        grows = f"an autoscaler adds up to {most} in all"
    lines = [("cluster", f"{cluster['address']}: {', '.join(has)}; {grows}")]
    for kind in cluster["kinds"]:
        gpu = f", {kind['gpus']:g} GPUs" if kind["gpus"] else ""
        free = f"{kind['free_cpus']:g} CPUs" + (f" and {kind['free_gpus']:g} GPUs" if kind["gpus"] else "")
        labels = ", ".join(f"{key}={value}" for key, value in kind["labels"].items())
        each = f"{kind['nodes']} × {kind['cpus']:g} CPUs{gpu}, of which {free} free" + (f"; {labels}" if labels else "")
        lines.append(("", each))
    return lines


def _placed(steps: Sequence[dict[str, Any]]) -> Table:
    """What each step asks for, and how much of that the cluster has."""
    numbers = ["workers", "CPUs each", "GPUs each", "fit", "fit now"]
    table = new_table(["step", "pool", *numbers[:3], "nodes with", *numbers[3:]], numbers)
    for step in steps:
        asks = step["asks"]
        labels = ", ".join(f"{key}={value}" for key, value in asks["labels"].items()) or "any"
        sizes = (f"{asks[name]:g}" for name in ("workers", "cpus", "gpus"))
        fits = (f"{asks[name]:g}" for name in ("fits", "fits_now"))
        table.add_row(plain(step["step"]), asks["pool"], *sizes, plain(labels), *fits)
    return table


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
            state_text(row["state"]),
            *(count(row[name]) for name in ("rows_in", "rows_out", "rows_rejected", "rows_reused", "tokens")),
            duration(row["seconds"]),
            *(money(row[name]) for name in priced),
        )
    console.print(table)
    for row in runs:
        if row["error"]:
            where = f"{plain(row.get('run_id'))} {plain(row.get('step'))}: "
            console.print(Text.assemble(where, plain(row["error"])), soft_wrap=True)
