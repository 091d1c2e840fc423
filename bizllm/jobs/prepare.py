"""A job held against its data: every column, type, key and model is checked before any work starts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.job import MODEL_SETTINGS, Job, LoadedJob
from bizllm.methods.pii.masker import VERSION as MASK_VERSION
from bizllm.methods.pii.masker import Masker
from bizllm.models import vllm_writer
from bizllm.models.engines.choice import installed
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.registry_uri import default_uri
from bizllm.models.saved import read_info
from bizllm.tables import contract, dropped
from bizllm.tables.manifest import Dates
from bizllm.tables.mask_settings import SourceMask
from bizllm.tables.source import Source
from bizllm.tables.warehouse import Warehouse
from bizllm.tasks.base import StepInput, Task, TaskSettings, task_class


@dataclass(frozen=True)
class PreparedStep:
    """A step that can run: its task knows the input's schema, its table's schema is decided.

    source: where it reads; None where it reads an earlier step (`upstream`).
    pinned: its models as they were resolved, by URI; workers load these, and ask no registry.
    fingerprint: of everything but rows that decides an answer.
    """

    name: str
    settings: TaskSettings
    task: Task
    source: Source | None
    upstream: str | None
    schema: pa.Schema
    reject_schema: pa.Schema
    model: str | None
    model_version: str | None
    pinned: Mapping[str, ResolvedModel]
    fingerprint: str

    @property
    def dates(self) -> Dates:
        """Which partitions it reads: row tasks the run date's, others all up to it."""
        return self.settings.dates or ("day" if self.upstream or self.task.shape == "row" else "to_date")


@dataclass(frozen=True)
class Night:
    """A job, checked against its sources, for one run date. `steps` in the order in which they can run."""

    loaded: LoadedJob
    run_date: date
    warehouse: Warehouse
    steps: dict[str, PreparedStep]

    @property
    def job(self) -> Job:
        """The job as it was read."""
        return self.loaded.job


def prepare(loaded: LoadedJob, run_date: date, only: Sequence[str] = ()) -> Night:
    """Check the job's steps (or `only` some) against their sources. Raises UserError with every fault."""
    job = loaded.job
    faults = [
        Fault("--only", name, f"no such step: the job has {', '.join(job.steps)}", nearest(name, job.steps))
        for name in only
        if name not in job.steps
    ]
    if faults:
        raise UserError(*faults)
    warehouse = Warehouse(job.warehouse)
    sources = {
        name: Source(name, settings, loaded.place, warehouse, Masker(settings.mask) if settings.mask else None)
        for name, settings in job.sources.items()
        if any(step.input == name for step in job.steps.values())
    }
    for source in sources.values():
        faults += source.faults()
    broken = {fault.place for fault in faults}
    steps: dict[str, PreparedStep] = {}
    models: dict[str, ResolvedModel] = {}
    for name in loaded.order():
        given = _input(loaded, name, sources, steps) if not broken else _try_input(loaded, name, sources, steps)
        if given is None:
            continue
        step, found = _step(loaded, name, given, sources, steps, models, run_date)
        faults += found
        if step is not None:
            steps[name] = step
    if faults:
        raise UserError(*faults)
    chosen = {name: step for name, step in steps.items() if not only or name in only}
    return Night(loaded, run_date, warehouse, chosen)


def _input(loaded: LoadedJob, name: str, sources: dict[str, Source], steps: dict[str, PreparedStep]) -> StepInput:
    wanted = loaded.job.steps[name].input
    if wanted in steps:
        return StepInput(wanted, steps[wanted].schema, tuple(steps[wanted].task.keys()))
    source = sources[wanted]
    return StepInput(wanted, source.schema(), tuple(source.key))


def _try_input(
    loaded: LoadedJob, name: str, sources: dict[str, Source], steps: dict[str, PreparedStep]
) -> StepInput | None:
    """The step's input, unless its source (or the step that it reads) has faults of its own, which are told once."""
    wanted = loaded.job.steps[name].input
    if wanted in loaded.job.steps:
        return _input(loaded, name, sources, steps) if wanted in steps else None
    return None if sources[wanted].faults() else _input(loaded, name, sources, steps)


def _step(
    loaded: LoadedJob,
    name: str,
    given: StepInput,
    sources: dict[str, Source],
    steps: dict[str, PreparedStep],
    resolved: dict[str, ResolvedModel],
    run_date: date,
) -> tuple[PreparedStep | None, list[Fault]]:
    settings = loaded.job.steps[name]
    task = task_class(settings.task)(settings, given, run_date)
    source = sources.get(given.name)
    faults = [
        Fault(loaded.place("steps", name, *setting.split(".")), value, *_mixed(source, value, expected, hint))
        for setting, value, expected, hint in task.check()
    ]
    faults += [*_drop_faults(loaded, name, task), *_engine_faults(loaded, name, task)] if not faults else []
    if faults:
        return None, faults
    key_place = loaded.place("sources", given.name, "key") if given.name in sources else loaded.place("steps", name)
    faults = contract.clashes(key_place, task.keys(), task.columns().names, own_keys=task.columns().names)
    models = {}
    for role, uri in task.models().items():
        try:
            if uri not in resolved:  # once a night: an alias that moves meanwhile moves no later step
                setting = next((key for key in MODEL_SETTINGS if getattr(settings, key, None) == uri), "model")
                place = loaded.place("steps", name, setting)
                registry, adapter = _registry(loaded, uri), role == "generator"
                resolved[uri] = resolve(uri, str(loaded.folder), place, registry, adapter)
            models[role] = resolved[uri]
        except UserError as fault:
            faults += fault.faults
    if not faults:
        faults += [
            Fault(loaded.place("steps", name, setting), value, expected, hint)
            for setting, value, expected, hint in task.check_models(
                {role: read_info(model.folder) for role, model in models.items()}
            )
        ]
    if faults:
        return None, faults
    upstream = given.name if given.name in steps else None
    fields = {f.name: f for f in given.schema}
    rejects = list(dict.fromkeys([*task.group_by(), *given.key]))
    first = next(iter(models.values()), None)
    return (
        PreparedStep(
            name,
            settings,
            task,
            sources.get(given.name),
            upstream,
            contract.output_schema(
                [fields[k] for k in task.keys() if k in fields], dropped.without(task.columns(), settings.drop)
            ),
            contract.reject_schema([fields[k] for k in rejects]),
            first.uri if first else None,
            first.model_version if first else None,
            {uri: resolved[uri] for uri in task.models().values()},
            _fingerprint(
                task,
                {role: m.content_hash for role, m in models.items()},
                steps[upstream].fingerprint if upstream else "",
                sources[given.name].settings.mask if given.name in sources else None,
            ),
        ),
        [],
    )


def _engine_faults(loaded: LoadedJob, name: str, task: Task) -> list[Fault]:
    """What was asked of engines where none computes, or of one that is not there."""
    settings = task.settings
    setting = "engine" if settings.engine != "auto" else "precision"
    place, value = loaded.place("steps", name, setting), getattr(settings, setting)
    if settings.any_engine:
        return []
    if settings.precision == "auto" and settings.engine in ("torch", "vllm") and set(task.models()) == {"generator"}:
        there = settings.engine == "torch" or vllm_writer.installed()
        return [] if there else [Fault(place, value, "is not installed", vllm_writer.INSTALL)]
    if settings.engine == "vllm":
        return [Fault(place, value, "is for steps with a `generator`, and leaves `precision` open", "engine: auto")]
    if not set(task.models()) - {"generator"}:
        return [Fault(place, value, "is for steps with an encoder or a fine-tuned classifier, and this has none")]
    if settings.engine not in ("auto", "torch") and not installed(settings.engine):
        return [Fault(place, value, "is not installed", "pip install 'bizllm[engines]', or leave it to `auto`")]
    if settings.engine == "torch" and settings.precision == "int8":
        return [
            Fault(loaded.place("steps", name, "precision"), "int8", "torch does not compute in int8", "engine: auto")
        ]
    return []


def _mixed(source: Source | None, value: object, expected: str, hint: str) -> tuple[str, str]:
    """Expected and hint; of a column that only some files of the source have, what differs."""
    why = source.mixed(value) if source is not None and isinstance(value, str) else ""
    return (why, "it is read, so all files must have it") if why else (expected, hint)


def check_tables(night: Night) -> None:
    """Hold the steps' output against the tables that are there. Raises UserError: the work could not be published."""
    faults = []
    for step in night.steps.values():
        for table, schema in ((step.name, step.schema), (f"{step.name}__rejects", step.reject_schema)):
            found = night.warehouse.clash(night.job.name, table, schema)
            if found is not None:
                column, why = found
                place = night.loaded.place("steps", step.name)
                faults.append(Fault(place, column, f"table {night.job.name}.{table}: the column {why}"))
                break
    if faults:
        raise UserError(*faults)


def _drop_faults(loaded: LoadedJob, name: str, task: Task) -> list[Fault]:
    """What `drop` names must be there, and nothing that the next night or the table's key needs."""
    known, faults = dropped.names(task.columns()), []
    needed = {*task.keys(), *task.prior_columns, task.category_column}
    for i, column in enumerate(task.settings.drop):
        place = loaded.place("steps", name, "drop", str(i))
        if column not in known:
            faults.append(Fault(place, column, f"expected one of {', '.join(known)}", nearest(column, known)))
        elif column in needed:
            faults.append(Fault(place, column, "is needed: it is part of the key, or the next night reads it"))
    if not faults and not dropped.without(task.columns(), task.settings.drop).names:
        faults.append(Fault(loaded.place("steps", name, "drop"), None, "expected at least one column to stay"))
    return faults


def _registry(loaded: LoadedJob, uri: str) -> str | None:
    """Where the job's `registry:` models are; by default beside its warehouse."""
    if not uri.startswith("registry:"):
        return None
    warehouse = loaded.job.warehouse.path.removeprefix("file://")
    beside = warehouse if "://" in warehouse else os.path.dirname(warehouse)
    return default_uri(loaded.job.registry, os.environ, beside, loaded.place("registry"))


# Settings that decide which rows are read or how a step may fail, not what a row's answer is.
_NOT_IN_FINGERPRINT = {"input", "dates", "reject_budget", "reuse", "drop", "engine", "precision", *MODEL_SETTINGS}


def _fingerprint(task: Task, models: dict[str, str], upstream: str, mask: SourceMask | None) -> str:
    """sha256 over task version, settings, model contents, the used columns' types, upstream fingerprints, and what the
    source masks. Of a mask's key it knows a keyed digest."""
    said: dict[str, Any] = {
        "task": task.name,
        "version": task.version,
        "settings": task.settings.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT),
        "models": models,
        "reads": {name: str(task.source.schema.field(name).type) for name in task.reads()},
        "keys": task.keys(),
        "upstream": upstream,
    }
    if not task.settings.any_engine:  # whatever computes, where all may, agrees with torch
        said["engine"] = [task.settings.engine, task.settings.precision]
    if task.settings.drop:
        said["drop"] = task.settings.drop
    if mask is not None:
        said["mask"] = {"version": MASK_VERSION, **mask.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
