"""What a run would do: steps, rows, models, estimated tokens, time and cost. Runs nothing and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from bizllm.errors import Fault, UserError
from bizllm.infer.pools import Capacity, Room
from bizllm.jobs import engines, offers
from bizllm.jobs.accounting import cost_of
from bizllm.jobs.placement import Cluster, costs, held, measured
from bizllm.jobs.prepare import Night, PreparedStep, check_tables
from bizllm.jobs.sharing import Shared, shared_of
from bizllm.models.endpoint import is_endpoint, parsed
from bizllm.models.engines.choice import Choice
from bizllm.models.registry_uri import SQLITE
from bizllm.prices import KINDS
from bizllm.tables import storage
from bizllm.tables.manifest import Manifest, freeze

STEP_OVERHEAD_S = 5.0  # starting a step's workers; measured on 2 cores
HEAD_ROW_S = 1e-4  # of a CPU: tokenizing a short text, taking its vector, and a head on it; measured there, too


@dataclass(frozen=True)
class PlannedStep:
    """One step of a plan. rows, units, tokens, seconds, cost: None where an earlier step decides them at run time.

    tables: what it reads whole, by setting. engine: what computes its model, in words; None where it asks none.
    smaller: for models that `compress` made smaller ones of, the smallest that loses little (`offers.smaller`).
    """

    step: str
    task: str
    shape: str
    table: str
    input: str
    tables: dict[str, str]
    dates: str
    model: str | None
    files: int | None
    rows: int | None
    bytes: int | None
    units: int | None
    tokens: int | None
    seconds: float | None
    cost: float | None
    costs: dict[str, float | None]
    asks: dict[str, Any] | None
    engine: str | None
    smaller: list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A job for a date, as it would run on `cpus` CPUs. seconds and cost are rough: constants times rows and bytes.

    cluster: what it has, where the plan is for one. cost: as the job's pools pay; costs: all in one way.
    """

    job: str
    date: date
    cpus: int
    warehouse: str
    steps: list[PlannedStep]
    seconds: float
    cost: float | None
    costs: dict[str, float | None]
    cluster: dict[str, Any] | None
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        return {**asdict(self), "date": self.date.isoformat()}


def plan(night: Night, address: str | None = None, max_loss: float = offers.MAX_LOSS, room: Room | None = None) -> Plan:
    """Estimate a checked night. Raises UserError where a source has nothing for the date, or the cluster has no room.

    max_loss: how much of its score a smaller model may lose to be offered. room: of the cluster at `address`.
    """
    runtime, cluster = night.job.runtime, Cluster(address or "", room) if room is not None else None
    cpus = int(cluster.facts()["cpus"]) if cluster else runtime.num_cpus or os.cpu_count() or 1
    check_tables(night)
    faults: list[Fault] = []
    steps: list[PlannedStep] = []
    asked: dict[str, Capacity] = {}
    shared = shared_of(night.steps)
    for step in night.steps.values():
        try:
            manifest = _manifest(night, step)
        except UserError as fault:
            faults += fault.faults
            continue
        units = len(manifest.units) if manifest else None
        if cluster:
            asked[step.name] = cluster.asked(night, step, units)
        here = asked[step.name] if cluster else Capacity(1, cpus, cpus, 0.0)
        told = cluster.told(here) if cluster else None
        steps.append(_planned(night, step, manifest, here, told, shared.get(step.name), max_loss))
    faults += cluster.faults(night, asked) if cluster else []
    if faults:
        raise UserError(*dict.fromkeys(faults))
    warnings = _warnings(night, address)
    if cluster:
        warnings += cluster.warnings(night, asked)
        unknown = [step.step for step in steps if step.rows is not None and step.seconds is None]
        warnings += [
            f"{night.loaded.place('steps', name)}: time and cost are not known: its model was not measured on "
            f"{asked[name].accelerator or 'these'} GPUs yet; a first night there measures encoders, not generators"
            for name in unknown
        ]
    return Plan(
        night.job.name,
        night.run_date,
        cpus,
        night.warehouse.path,
        steps,
        round(sum(step.seconds or 0.0 for step in steps), 1),
        _sum([step.cost for step in steps]),
        {kind: _sum([step.costs[kind] for step in steps]) for kind in KINDS},
        cluster.facts() if cluster else None,
        warnings,
    )


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 6) if known else None


def _planned(
    night: Night,
    step: PreparedStep,
    manifest: Manifest | None,
    asked: Capacity,
    told: dict[str, Any] | None,
    shared: Shared | None,
    max_loss: float,
) -> PlannedStep:
    choices = [found.choice for found in engines.standing(engines.urls_of(night, step, shared)).values()]
    follows = shared is not None and shared.leader != step.name
    rows = size = units = files = tokens = None
    seconds = cost = None
    by_kind: dict[str, float | None] = dict.fromkeys(KINDS)
    if manifest is not None:
        rows, size, units, files = manifest.rows, manifest.bytes, len(manifest.units), len(manifest.files)
        tokens, cpu_s = step.task.estimate(rows, size)
        choice = measured(choices, asked) if told else next(iter(choices), None)
        if follows and not getattr(step.settings, "explain", False):  # which reads more than others computed
            work_s: float | None = rows * HEAD_ROW_S / asked.workers / (1 if asked.gpus else asked.threads)
        elif choice and tokens:
            workers = asked.workers * (1 if asked.gpus else asked.threads / choice.threads)
            work_s = tokens / choice.tokens_per_s / workers
        else:
            work_s = None if asked.gpus else cpu_s / asked.workers / asked.threads
        seconds = None if work_s is None else round(STEP_OVERHEAD_S + work_s, 1)
        endpoint = _endpoint_cost(step, rows, tokens)
        if seconds is not None:
            taken = held(asked, seconds)
            cost = cost_of(night.job.runtime.cost(taken), endpoint)
            by_kind |= costs(night, taken, endpoint)
    return PlannedStep(
        step.name,
        step.task.name,
        step.task.shape,
        f"{night.job.name}.{step.name}",
        step.settings.input,
        {setting: table.name for setting, table in step.tables.items()},
        step.dates,
        step.model,
        files,
        rows,
        size,
        units,
        tokens,
        seconds,
        cost,
        by_kind,
        told,
        f"vectors of {shared.leader}" if shared and follows else _engine(step, choices, tokens),
        offers.smaller(step.pinned, max_loss),
    )


def _endpoint_cost(step: PreparedStep, rows: int, tokens: int) -> float | None:
    """What the tokens cost of an endpoint that has a price."""
    uri = step.task.models().get("generator", "")
    endpoint = parsed(uri) if is_endpoint(uri) else None
    written = step.task.written(rows)
    return endpoint.cost(tokens - written, written) if endpoint and endpoint.priced else None


def _engine(step: PreparedStep, choices: Sequence[Choice], tokens: int | None) -> str | None:
    """What computes the step's model tonight."""
    if not set(step.task.models()) - {"generator"}:
        return None
    if choices:
        return f"{choices[0].engine} {choices[0].precision}"
    if tokens is None:
        return "chosen where there is much to read" if step.settings.any_engine else "chosen on its first rows"
    return "chosen on its first rows" if engines.asks(step.settings, tokens) else "torch"


def _manifest(night: Night, step: PreparedStep) -> Manifest | None:
    if step.source is None:
        return None
    runtime = night.job.runtime
    columns = [*step.source.key, *step.task.reads()]
    return freeze(step.source, night.run_date, step.dates, columns, runtime.unit_rows, int(runtime.unit_mb * 1e6))


def _warnings(night: Night, address: str | None) -> list[str]:
    """What would go wrong on other nodes, where the run is for a cluster."""
    address = address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return []
    local: list[tuple[tuple[str, ...], str]] = [
        (("sources", name, "path"), source.path)
        for name, source in night.job.sources.items()
        if source.path and storage.is_local(source.path)
    ]
    if storage.is_local(night.job.warehouse.path):
        local.append((("warehouse", "path"), night.job.warehouse.path))
    if (where := _registry_file(night)) is not None:
        local.append((("registry",), where))
    return [
        f"{night.loaded.place(*keys)}: {path} is a local path: every node of the cluster at {address} would read its"
        " own; use a URL such as s3://bucket/…, or a file system that all nodes mount"
        for keys, path in local
    ]


def _registry_file(night: Night) -> str | None:
    """The SQLite file that models come from; None where none comes from one."""
    pins = (pin for step in night.steps.values() for pin in step.pinned.values())
    uris = (pin.registry for pin in pins if pin.kind == "registry" and pin.registry is not None)
    return next((uri.removeprefix(SQLITE) for uri in uris if uri.startswith(SQLITE)), None)
