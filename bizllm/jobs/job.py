"""The job file: what it may say, read and checked as a whole before anything starts.

Every fault of a file is found at once. Later faults, of columns or files, get their place from `LoadedJob.place`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SerializeAsAny, ValidationError, field_validator

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.days import last_night
from bizllm.jobs.explain import validate
from bizllm.jobs.notices import held_back
from bizllm.jobs.overrides import override
from bizllm.jobs.runtime import Runtime
from bizllm.jobs.yaml_places import Document, Key, Keys, dotted, kind_of, read_document
from bizllm.models.endpoint import VARIABLE as VARIABLE_NAME
from bizllm.models.endpoint import Endpoint
from bizllm.models.load import check as check_model
from bizllm.models.registry_uri import checked_uri
from bizllm.receivers import Receiver
from bizllm.tables.settings import Closed, SourceSettings, WarehouseSettings
from bizllm.tables.store_settings import ADDRESSES, StorageSettings
from bizllm.tasks.base import TaskSettings, task_class

NAME = r"[a-z][a-z0-9_]{0,62}"
DUE = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
MODEL_SETTINGS = ("model", "generator", "reranker")  # settings of a step that name a model, whatever its task
_SECRET = re.compile(r"password|passwd|secret|token$|credential|api[-_.]?key|private[-_.]?key|account[-_.]?key", re.I)


_VARIABLE = re.compile(r"\$\{[A-Za-z_]\w*\}", re.ASCII)  # without a default, which would be written down


class Job(Closed):
    """One YAML file: what to read, what to make of it, and where to put it."""

    name: str = Field(description="Names the tables: `<job>.<step>`.")
    timezone: str = Field(default="UTC", description="IANA time zone that decides what last night is.")
    warehouse: WarehouseSettings = Field(description="Where the tables go.")
    storage: StorageSettings | None = Field(default=None, description="How the object stores are reached.")
    registry: str | None = Field(default=None, description="MLflow registry of models: a URL or a SQLite file.")
    sources: dict[str, SourceSettings] = Field(min_length=1, description="The inputs, by name.")
    models: dict[str, str | Endpoint] = Field(
        default={}, description="Models by name: URIs (builtin:, hf:, path:, registry:, openai:), or endpoints."
    )
    steps: dict[str, SerializeAsAny[TaskSettings]] = Field(min_length=1, description="The work, by name.")
    runtime: Runtime = Field(default=Runtime(), description="How much of the machine or cluster a run takes.")
    due: str | None = Field(
        default=None,
        pattern=DUE,
        description="HH:MM in the time zone: when last night's tables should be there. `check` and alerts go by it.",
    )
    budget: float | None = Field(
        default=None, ge=0, description="What a night may cost before an alert tells; nothing is stopped."
    )
    notify: list[Receiver] = Field(default=[], description="Webhooks that are told of failed and late nights.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            hint = nearest(name, available_timezones()) or "such as Asia/Shanghai"
            raise ValueError(f"expected an IANA time zone; {hint}") from None
        return name


@dataclass(frozen=True)
class LoadedJob:
    """A job that holds together, and where each of its parts was written. Paths in `job` are absolute or URLs."""

    job: Job
    path: str  # as the user typed it
    folder: Path
    document: Document

    def place(self, *keys: Key) -> str:
        """`jobs/nightly.yaml:12 steps.tickets.text`: where that setting stands, or would stand."""
        told: list[Key] = []
        for key in keys:
            in_list = isinstance(key, str) and key.isdigit() and isinstance(self.document.at(*told), list)
            told.append(int(key) if in_list else key)
        return self.document.place(*told)

    def inputs(self, step: str) -> dict[str, str]:
        """The sources and steps that this one reads, by the setting: `input`, and `examples.input` and the like."""
        settings = self.job.steps[step]
        return {"input": settings.input, **{f"{name}.input": table.input for name, table in settings.tables().items()}}

    def upstream(self, step: str) -> list[str]:
        """The steps that this one reads directly."""
        return [name for name in dict.fromkeys(self.inputs(step).values()) if name in self.job.steps]

    def sensitive(self, step: str) -> str | None:
        """The source marked `sensitive` that the step reads, directly or through others; None where it reads none."""
        for name in self.inputs(step).values():
            if name in self.job.steps:
                if (found := self.sensitive(name)) is not None:
                    return found
            elif self.job.sources[name].sensitive:
                return name
        return None

    def hides(self, step: str) -> bool:
        """Whether texts of its table are shown to nobody unasked. Of a step that the job no longer has, nobody knows
        what it read."""
        if step in self.job.steps:
            return self.sensitive(step) is not None
        return any(source.sensitive for source in self.job.sources.values())

    def descendants(self, step: str) -> list[str]:
        """The steps that read this one, directly or through others, in the order in which they can run."""
        found = {step}
        for later in self.order():
            if found.intersection(self.upstream(later)):
                found.add(later)
        return [later for later in self.order() if later in found and later != step]

    def order(self) -> list[str]:
        """The steps so that each comes after those it reads; otherwise as written."""
        done: dict[str, None] = {}

        def visit(step: str) -> None:
            for earlier in self.upstream(step):
                visit(earlier)
            done[step] = None

        for step in self.job.steps:
            visit(step)
        return list(done)


def load_job(path: str, sets: Sequence[str] = ()) -> LoadedJob:
    """Read a job with its overrides (`steps.sales.horizon=14`). Raises UserError with every fault that was found."""
    document = read_document(path)
    override(document, sets, lambda keys: _check_place(document, keys))
    check_secrets(document)
    document.expand_environment(os.environ, but=held_back(document))
    _check_names(document)
    _make_paths_absolute(document)
    for name, uri in _mapping(document.values.get("models")).items():
        if isinstance(uri, str):
            _check_model(document, ("models", name), uri)
    check_registry(document)
    steps = _steps(document)
    values = {**document.values}
    if isinstance(values.get("steps"), dict):
        values["steps"] = {name: settings or _FAULTY for name, settings in steps.items()}
    job = validate(Job, values, document)
    _check_inputs(document)
    document.raise_faults()
    assert job is not None, "a job that is not valid has a fault"
    return LoadedJob(job, path, Path(os.path.abspath(path)).parent, document)


def run_date(job: Job, given: str | None, now: datetime) -> date:
    """The date a run is for: `given` (YYYY-MM-DD), else yesterday in the job's time zone. `now` must know its zone."""
    zone = ZoneInfo(job.timezone)
    if given is None:
        return last_night(zone, now)
    day, today = parse_date(given, "--date"), now.astimezone(zone).date()
    if day > today:
        raise UserError(Fault("--date", given, f"is in the future: today is {today} in {job.timezone}"))
    return day


def parse_date(text: str, place: str) -> date:
    """A date YYYY-MM-DD. Raises UserError."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise UserError(Fault(place, text, "expected a date YYYY-MM-DD")) from None


def _check_place(document: Document, keys: Keys) -> None:
    """An override may add a setting, but no step, source or model that the file doesn't have: that is a typo."""
    known, name, where = list(Job.model_fields), str(keys[0]), "a job"
    if name in ("steps", "sources", "models") and len(keys) > 1:
        known, name, where = list(_mapping(document.values.get(name))), str(keys[1]), f"the job's {name}"
    if name not in known:
        hint = nearest(name, known) or (f"there are {', '.join(known)}" if known else "")
        raise UserError(Fault(f"--set {dotted(keys)}", None, f"no '{name}' in {where}", hint))


# -- checks -------------------------------------------------------------------------------------------------------


def check_secrets(document: Document) -> None:
    """Refuse passwords in the file or on the command line; before variables are put in, so that it sees what is
    written. The value is never shown."""
    warehouse = _mapping(document.values.get("warehouse"))
    properties = warehouse.get("properties")
    for key, value in properties.items() if isinstance(properties, dict) else ():
        literal = isinstance(value, str) and value and not _only_from_environment(value)
        if _SECRET.search(key) and literal and value.lower() not in ("true", "false"):
            keys = ("warehouse", "properties", key)
            document.fault(keys, None, "holds a secret; expected an environment variable such as ${WAREHOUSE_SECRET}")
    sources, models, steps = (_mapping(document.values.get(part)) for part in ("sources", "models", "steps"))
    masks: list[tuple[Keys, Any]] = [(("steps", name), step) for name, step in steps.items()]
    masks += [(("sources", name, "mask"), _mapping(source).get("mask")) for name, source in sources.items()]
    for place, mask in masks:
        key = _mapping(mask).get("key")
        if (
            isinstance(key, str)
            and (place[0] == "sources" or _mapping(mask).get("task") == "mask")
            and not _VARIABLE.fullmatch(key)
        ):
            _mapping(mask).pop("key")
            document.fault(
                (*place, "key"), None, "holds a secret; expected an environment variable: ${BIZLLM_MASK_KEY}"
            )
    for name, model in models.items():
        key = _mapping(model).get("key_env")
        if key is not None and not (isinstance(key, str) and VARIABLE_NAME.fullmatch(key)):
            _mapping(model).pop("key_env")
            expected = "expected the name of an environment variable, such as LLM_KEY: neither the key nor ${}"
            document.fault(("models", name, "key_env"), None, expected)
    logins: list[Keys] = [("warehouse", "uri"), ("registry",), *(("storage", name) for name in ADDRESSES)]
    logins += [("models", name, *(("endpoint",) if isinstance(of, dict) else ())) for name, of in models.items()]
    for at in logins:
        uri = document.at(*at)
        login = re.match(r"[^/]*//[^/@:]*:([^/@]+)@", uri) if isinstance(uri, str) else None
        if login and not _only_from_environment(login[1]):
            document.fault(at, None, "holds a password; expected a variable: user:${DB_PASSWORD}@host")


def _only_from_environment(text: str) -> bool:
    return re.fullmatch(r"(\$\{\w+\}|[:/])+", text) is not None and "${" in text


def _check_names(document: Document) -> None:
    values = document.values
    named: list[Keys] = [("name",)] if isinstance(values.get("name"), str) else []
    for section in ("sources", "models", "steps"):
        named += [(section, name) for name in _mapping(values.get(section))]
    for keys in named:
        name = values["name"] if keys == ("name",) else str(keys[1])
        if not re.fullmatch(NAME, name) or "__" in name:
            rule = "expected a name of a-z, 0-9 and single _, starting with a letter, at most 63 long"
            document.fault(keys, name, rule)
        elif name == "runs":
            document.fault(keys, name, "the name 'runs' is taken by the table of runs")
        elif keys[0] == "steps" and name in _mapping(values.get("sources")):
            document.fault(keys, name, "a source has this name too; a step needs one of its own")


def _steps(document: Document) -> dict[str, TaskSettings | None]:
    """Each step's settings by its task's model; None where they are faulty."""
    return {
        name: _step(document, ("steps", name), value) for name, value in _mapping(document.values.get("steps")).items()
    }


def _step(document: Document, at: Keys, value: Any) -> TaskSettings | None:
    if not isinstance(value, dict):
        document.fault(at, None, f"expected a mapping that starts with `task: …`, not {kind_of(value)}")
        return None
    name = value.get("task")
    if not isinstance(name, str):
        document.fault((*at, "task"), name, "'task' is missing" if name is None else "expected the name of a task")
        return None
    try:
        task = task_class(name)
    except UserError as error:  # no such task
        document.fault(
            (*at, "task"), document.shown((*at, "task")), error.faults[0].expected, error.faults[0].suggestion
        )
        return None
    settings = validate(task.Settings, value, document, at)
    named = {key: value.get(key) for key in MODEL_SETTINGS if key in task.Settings.model_fields}
    uris = {key: _model_uri(document, (*at, key), name) for key, name in named.items() if isinstance(name, str)}
    return settings and settings.model_copy(update=uris)


def _model_uri(document: Document, at: Keys, model: str) -> str:
    """The URI that a step's setting means: a name of `models`, or itself."""
    models = _mapping(document.values.get("models"))
    if model in models:
        named = models[model]
        try:
            return Endpoint.model_validate(named).uri if isinstance(named, dict) else str(named)
        except ValidationError:  # told by the job's own validation
            return model
    if ":" in model:
        _check_model(document, at, model)
    else:
        known = f"a name in `models` ({', '.join(models)})" if models else "a name in `models`"
        expected = f"no such model; expected {known}, or a URI such as builtin:minilm"
        document.fault(at, document.shown(at), expected, nearest(model, models))
    return model


def _check_model(document: Document, at: Keys, uri: str) -> None:
    try:
        check_model(uri)
    except UserError as error:
        fault = error.faults[0]
        document.fault(at, document.shown(at), fault.expected, fault.suggestion)


def check_registry(document: Document) -> None:
    """Whether `registry` can name one; nothing is opened."""
    uri = document.values.get("registry")
    if isinstance(uri, str) and not document.faulty("registry"):
        try:
            checked_uri(uri, "registry")
        except UserError as error:
            fault = error.faults[0]
            document.fault(("registry",), document.shown(("registry",)), fault.expected, fault.suggestion)


def _check_inputs(document: Document) -> None:
    """Every step reads a source or another step, and no step reads itself in the end."""
    sources, steps = _mapping(document.values.get("sources")), _mapping(document.values.get("steps"))
    reads = {
        name: {at: input_ for at, input_ in _inputs(step).items() if input_ not in sources}
        for name, step in steps.items()
    }
    for name, own in reads.items():
        for inside, input_ in own.items():
            if input_ in steps:
                continue
            at: Keys = ("steps", name, *inside)
            known = list(dict.fromkeys([*sources, *(step for step in steps if step != name)]))
            expected = f"no such source or step; there are {', '.join(known)}" if known else "no such source or step"
            document.fault(at, document.shown(at), expected, nearest(input_, known))
    graph = {name: [input_ for input_ in own.values() if input_ in steps] for name, own in reads.items()}
    while circle := _circle(graph):
        at = next(inside for inside, input_ in reads[circle[0]].items() if input_ == circle[1])
        told = f"these steps read each other in a circle: {' → '.join(circle)}"
        document.fault(("steps", circle[0], *at), None, told)
        for name in circle:
            graph.pop(name, None)


def _inputs(step: Any) -> dict[Keys, str]:
    """The sources and steps that a step's part of the file names, by where: `input`, and that of further tables."""
    parts: dict[Keys, Any] = {("input",): _mapping(step).get("input")}
    parts |= {(key, "input"): value.get("input") for key, value in _mapping(step).items() if isinstance(value, dict)}
    return {at: name for at, name in parts.items() if isinstance(name, str)}


def _circle(graph: dict[str, list[str]]) -> list[str]:
    """Steps of which each reads the next, and the last is the first, beginning with the one that stands first in the
    file; empty where there are none. graph: what each step reads."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as fault:
        around: list[str] = fault.args[1][:0:-1]
        first = around.index(min(around, key=list(graph).index))
        return [*around[first:], *around[: first + 1]]
    return []


# -- paths --------------------------------------------------------------------------------------------------------


def _make_paths_absolute(document: Document) -> None:
    """Local paths become absolute: see `Document.folder_of` for what they are relative to."""
    values = document.values
    for name in _mapping(values.get("sources")):
        document.make_absolute(("sources", name, "path"))
    for keys in (("warehouse", "path"), ("registry",), ("storage", "ca_bundle")):
        document.make_absolute(keys)
    document.make_absolute(("warehouse", "uri"), "sqlite:///")
    for name in _mapping(values.get("models")):
        document.make_absolute(("models", name), "path:")
    for name in _mapping(values.get("steps")):
        for key in MODEL_SETTINGS:
            document.make_absolute(("steps", name, key), "path:")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


class _Faulty(TaskSettings):
    """Stands in for a step whose own faults are noted already."""


_FAULTY = _Faulty(task="", input="")
