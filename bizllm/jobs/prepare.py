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
from bizllm.models.endpoint import is_endpoint
from bizllm.models.engines.choice import installed
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.registry_uri import default_uri
from bizllm.models.saved import read_info
from bizllm.tables import contract, dropped
from bizllm.tables.lost import begun
from bizllm.tables.manifest import Dates
from bizllm.tables.mask_settings import SourceMask
from bizllm.tables.source import Source
from bizllm.tables.warehouse import Warehouse
from bizllm.tasks._prompts import source as prompt_source
from bizllm.tasks.base import StepInput, Task, TaskSettings, task_class


@dataclass(frozen=True)
class ReadWhole:
    """A further table of a step. name, key: of the source or the earlier step; source: None where it is a step."""

    name: str
    key: tuple[str, ...]
    source: Source | None
    dates: Dates
    columns: tuple[str, ...]


@dataclass(frozen=True)
class PreparedStep:
    """A step that can run: its task knows the input's schema, its table's schema is decided.

    source: where it reads; None where it reads an earlier step (`upstream`). tables: what it reads whole, by setting.
    pinned: its models as they were resolved, by URI; workers load these, and ask no registry.
    fingerprint: of everything but rows that decides an answer.
    """

    name: str
    settings: TaskSettings
    task: Task
    source: Source | None
    upstream: str | None
    tables: Mapping[str, ReadWhole]
    schema: pa.Schema
    reject_schema: pa.Schema
    model: str | None
    model_version: str | None
    pinned: Mapping[str, ResolvedModel]
    fingerprint: str

    @property
    def awaits(self) -> list[str]:
        """The steps that it reads."""
        read = [self.upstream, *(table.name for table in self.tables.values() if table.source is None)]
        return list(dict.fromkeys(name for name in read if name is not None))

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
        if any(name in loaded.inputs(step).values() for step in job.steps)
    }
    for source in sources.values():
        faults += source.faults()
    steps: dict[str, PreparedStep] = {}
    models: dict[str, ResolvedModel] = {}
    for name in loaded.order():
        given = {setting: _input(wanted, sources, steps) for setting, wanted in loaded.inputs(name).items()}
        known = {setting: found for setting, found in given.items() if found is not None}
        if len(known) < len(given):
            continue
        step, found = _step(loaded, name, known, sources, steps, models, run_date)
        faults += found
        if step is not None:
            steps[name] = step
    if faults:
        raise UserError(*faults)
    chosen = {name: step for name, step in steps.items() if not only or name in only}
    return Night(loaded, run_date, warehouse, chosen)


def _input(wanted: str, sources: dict[str, Source], steps: dict[str, PreparedStep]) -> StepInput | None:
    """What a step reads, unless that source or step has faults of its own, which are told once."""
    if wanted in steps:
        return StepInput(wanted, steps[wanted].schema, tuple(steps[wanted].task.keys()))
    source = sources.get(wanted)
    return None if source is None or source.faults() else StepInput(wanted, source.schema(), tuple(source.key))


def _step(
    loaded: LoadedJob,
    name: str,
    inputs: Mapping[str, StepInput],
    sources: dict[str, Source],
    steps: dict[str, PreparedStep],
    resolved: dict[str, ResolvedModel],
    run_date: date,
) -> tuple[PreparedStep | None, list[Fault]]:
    settings = loaded.job.steps[name]
    given = inputs["input"]
    others = {setting: inputs[f"{setting}.input"] for setting in settings.tables()}
    task = task_class(settings.task)(settings, given, run_date, others)
    source = sources.get(given.name)
    faults = _table_faults(loaded, name, task, sources)
    faults += [
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
            {
                setting: ReadWhole(
                    table.input,
                    others[setting].key,
                    sources.get(table.input),
                    table.dates or "to_date",
                    tuple(dict.fromkeys(table.columns().values())),
                )
                for setting, table in settings.tables().items()
            },
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
                {setting: steps[found.name].fingerprint for setting, found in inputs.items() if found.name in steps},
                {
                    setting: mask
                    for setting, found in inputs.items()
                    if found.name in sources and (mask := sources[found.name].settings.mask) is not None
                },
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
    if is_endpoint(task.models().get("generator", "")):
        return [Fault(place, value, "is for models that are computed here, and the step's generator is an endpoint")]
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


def _table_faults(loaded: LoadedJob, name: str, task: Task, sources: Mapping[str, Source]) -> list[Fault]:
    """Columns that are not in the tables that are to be read whole."""
    faults = []
    for setting, table in task.settings.tables().items():
        known, source = task.others[setting].schema.names, sources.get(table.input)
        for key, column in table.columns().items():
            if table.input == task.settings.input and column in task.reads():
                continue  # the step's own check tells it
            if column not in known:
                place = loaded.place("steps", name, setting, *key.split("."))
                missing = f"no such column in '{table.input}'; there are {', '.join(known)}"
                faults.append(Fault(place, column, *_mixed(source, column, missing, nearest(column, known))))
        if table.dates is not None and source is None:
            place = loaded.place("steps", name, setting, "dates")
            faults.append(Fault(place, table.dates, "is for sources; a step is read as it was published"))
    return faults


def _mixed(source: Source | None, value: object, expected: str, hint: str) -> tuple[str, str]:
    """Expected and hint; of a column that only some files of the source have, what differs."""
    why = source.mixed(value) if source is not None and isinstance(value, str) else ""
    return (why, "it is read, so all files must have it") if why else (expected, hint)


def check_tables(night: Night) -> None:
    """Hold the steps' output against the tables that are there. Raises UserError: the work could not be published."""
    faults = []
    known = night.warehouse.tables(night.job.name)
    for step in night.steps.values():
        for table, schema in ((step.name, step.schema), (f"{step.name}__rejects", step.reject_schema)):
            if table not in known and begun(night.warehouse, night.job.name, table):
                what = f"table {night.job.name}.{table} lies there, and its catalog doesn't know it"
                hint = f"if the catalog was lost or changed: bizllm recover {night.loaded.path}"
                faults.append(Fault(night.loaded.place("warehouse", "path"), night.warehouse.path, what, hint))
                break
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


def _fingerprint(
    task: Task, models: dict[str, str], upstream: Mapping[str, str], masks: Mapping[str, SourceMask]
) -> str:
    """sha256 over task version, settings, model contents, the used columns' types, upstream fingerprints, and what the
    sources mask. Of a mask's key it knows a keyed digest. upstream, masks: by the setting that names the input."""
    tables = task.settings.tables()
    settings = task.settings.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)
    for setting in tables:
        settings[setting] = {key: value for key, value in settings[setting].items() if key not in _NOT_IN_FINGERPRINT}
    said: dict[str, Any] = {
        "task": task.name,
        "version": task.version,
        "settings": settings,
        "models": models,
        "reads": {name: str(task.source.schema.field(name).type) for name in task.reads()},
        "keys": task.keys(),
        "upstream": upstream.get("input", ""),
    }
    if not task.settings.any_engine:  # whatever computes, where all may, agrees with torch
        said["engine"] = [task.settings.engine, task.settings.precision]
    if task.prompts and "generator" in models:
        said["prompts"] = [prompt_source(name) for name in task.prompts]
    if task.settings.drop:
        said["drop"] = task.settings.drop
    if tables:
        said["tables"] = {
            setting: {
                "reads": {c: str(task.others[setting].schema.field(c).type) for c in table.columns().values()},
                "upstream": upstream.get(f"{setting}.input", ""),
            }
            for setting, table in tables.items()
        }
    for setting, mask in masks.items():
        place = "mask" if setting == "input" else f"mask {setting}"
        said[place] = {"version": MASK_VERSION, **mask.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
