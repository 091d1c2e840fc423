"""Every metric: its name, what it means, its labels. Names follow Prometheus' conventions: base units, `_total` on
counters, points in time as seconds since 1970, so that an age is `time() - …` and stays true between two reads.

The label is `job_name`, not `job`: that one is Prometheus' own, of the scrape. Labels are names of the job file and
states, never keys or text, so that a job of ten steps makes some two hundred series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Literal, get_args

from bizllm.jobs.ledger import State
from bizllm.watch.nights import Nights, StepNight

STATES = get_args(State)
ROWS = ("in", "out", "rejected", "reused")


@dataclass(frozen=True)
class Metric:
    """labels: beside `job_name`, which all have. help: in ASCII, for Ray takes nothing else."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()


# Of nights, by `bizllm metrics`: from the warehouse, whatever became of the process that made them.
OF_NIGHTS = (
    Metric(
        "bizllm_night_run_date_timestamp_seconds", "gauge", "The newest run date that a run was for, as midnight UTC."
    ),
    Metric(
        "bizllm_night_state",
        "gauge",
        "1 for the state of the newest night, its worst step's; 0 for others.",
        ("state",),
    ),
    Metric(
        "bizllm_step_state",
        "gauge",
        "1 for the state of the step in the newest night; 0 for others.",
        ("step", "state"),
    ),
    Metric(
        "bizllm_step_rows",
        "gauge",
        "Rows of the newest night: in, out, rejected, reused (groups, for group tasks).",
        ("step", "kind"),
    ),
    Metric(
        "bizllm_step_records", "gauge", "Rows that the run says it put into the table in the newest night.", ("step",)
    ),
    Metric("bizllm_step_tokens", "gauge", "Tokens that models read and wrote in the newest night.", ("step",)),
    Metric("bizllm_step_seconds", "gauge", "Wall time of the step in the newest night.", ("step",)),
    Metric(
        "bizllm_step_usual_seconds",
        "gauge",
        "The median of `bizllm_step_seconds` over up to 14 nights before; absent for less than 3.",
        ("step",),
    ),
    Metric(
        "bizllm_step_cost",
        "gauge",
        "What all runs of the newest night cost, in the currency of the job's prices; absent without prices.",
        ("step",),
    ),
    Metric("bizllm_night_budget", "gauge", "The job's `budget`; absent without one."),
    Metric(
        "bizllm_step_published_timestamp_seconds",
        "gauge",
        "When the newest night's snapshot was committed; absent where there is none.",
        ("step",),
    ),
    Metric("bizllm_step_published_records", "gauge", "Rows of that snapshot; absent where there is none.", ("step",)),
    Metric(
        "bizllm_last_good_night_timestamp_seconds",
        "gauge",
        "When the newest night of which every step is published was complete.",
    ),
    Metric("bizllm_last_good_night_run_date_timestamp_seconds", "gauge", "Its run date, as midnight UTC."),
    Metric(
        "bizllm_missed_nights",
        "gauge",
        "Run dates after the last good night that were due (`due`, else the day's end) and are not published.",
    ),
    Metric(
        "bizllm_lock_taken_timestamp_seconds",
        "gauge",
        "When the oldest run that holds a lock began; absent where none does.",
    ),
    Metric(
        "bizllm_lock_renewed_timestamp_seconds", "gauge", "The last sign of life of the quietest run that holds a lock."
    ),
    Metric(
        "bizllm_exporter_job_up",
        "gauge",
        "1 where the job's warehouse could be read at the last try, else 0; the rest is then of an earlier one.",
    ),
    Metric("bizllm_exporter_read_timestamp_seconds", "gauge", "When the warehouse was last read."),
    Metric("bizllm_exporter_read_seconds", "gauge", "How long that took."),
)

# Of a run that lives, by its driver through Ray, which puts `ray_` before the names.
OF_RUNS = (
    Metric("bizllm_run_alive", "gauge", "1 while the run works, then 0; gone once its process is."),
    Metric("bizllm_run_started_timestamp_seconds", "gauge", "When it began its work."),
    Metric(
        "bizllm_run_progress_timestamp_seconds",
        "gauge",
        "When a unit was last answered, or a stage or step began or ended.",
    ),
    Metric(
        "bizllm_run_step_state",
        "gauge",
        "1 for `running`, then for how the step ended; 0 for others.",
        ("step", "state"),
    ),
    Metric(
        "bizllm_run_stage",
        "gauge",
        "1 for the stage that the step is in (scatter, answer, audit, publish and others), else 0.",
        ("step", "stage"),
    ),
    Metric("bizllm_run_units", "gauge", "Units of the stage that answers: done, total.", ("step", "kind")),
    Metric(
        "bizllm_run_rows", "gauge", "in and rejected so far; at the step's end out and reused too.", ("step", "kind")
    ),
    Metric("bizllm_run_tokens_total", "counter", "Tokens that models read and wrote in this run.", ("step",)),
    Metric(
        "bizllm_run_model_seconds_total",
        "counter",
        "Seconds that all workers together spent on units of the stage that answers.",
        ("step",),
    ),
    Metric("bizllm_run_publish_seconds", "gauge", "How long the step's commits took.", ("step",)),
)

Sample = tuple[str, dict[str, str], float]


def samples(nights: Nights, budget: float | None) -> Iterator[Sample]:
    """What `OF_NIGHTS` are of a job, but for the exporter's own: (name, labels, value)."""
    job = {"job_name": nights.job}
    if nights.newest is not None:
        yield "bizllm_night_run_date_timestamp_seconds", job, _midnight(nights.newest)
        yield from (("bizllm_night_state", {**job, "state": s}, float(s == nights.state)) for s in STATES)
    for name, step in nights.steps.items():
        yield from _of_step({**job, "step": name}, step)
    if budget is not None:
        yield "bizllm_night_budget", job, budget
    if nights.last_good is not None and nights.last_good_at is not None:
        yield "bizllm_last_good_night_timestamp_seconds", job, nights.last_good_at.timestamp()
        yield "bizllm_last_good_night_run_date_timestamp_seconds", job, _midnight(nights.last_good)
    yield "bizllm_missed_nights", job, nights.missed
    if nights.locks:
        yield "bizllm_lock_taken_timestamp_seconds", job, min(lock.taken for lock in nights.locks)
        yield "bizllm_lock_renewed_timestamp_seconds", job, min(lock.renewed for lock in nights.locks)


def _of_step(labels: Mapping[str, str], step: StepNight) -> Iterator[Sample]:
    own = dict(labels)
    yield from (("bizllm_step_state", {**own, "state": s}, float(s == step.state)) for s in STATES)
    yield from (("bizllm_step_rows", {**own, "kind": kind}, step.rows[kind]) for kind in ROWS)
    yield "bizllm_step_records", own, step.records
    yield "bizllm_step_tokens", own, step.tokens
    yield "bizllm_step_seconds", own, step.seconds
    if step.usual_s is not None:
        yield "bizllm_step_usual_seconds", own, step.usual_s
    if step.cost is not None:
        yield "bizllm_step_cost", own, step.cost
    if step.published is not None:
        yield "bizllm_step_published_timestamp_seconds", own, step.published.committed_at.timestamp()
        yield "bizllm_step_published_records", own, step.published.rows


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()
