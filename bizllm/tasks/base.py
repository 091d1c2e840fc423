"""What a task is: its settings, the columns it reads and writes, and the work on one batch.

A task file holds one `Task` subclass named `TASK` and is found by its file name. Tasks know nothing of Ray, files,
Iceberg or runs: the engine hands them Arrow tables and takes `Outcome`s back. Three shapes:

* **row**:   `prepare(rows)` on CPU workers, then `answer(rows)`: each row is a *subject*.
* **group**: `combine(rows)` where the rows are read (map side), then `answer(groups)`: each group is a subject.
* **table**: as group, but `features(groups)` first; `fit(features, previous)` once; then `answer(features)` with
  `self.fitted` set: each group is a subject.

A task of any shape may read further tables whole (labelled examples, a catalogue, articles): settings that are a
`TableRead`. `learn(tables)` is asked once, before the first answer; every worker then has `self.learned`.

The engine adds keys, input hashes and the contract columns, and checks that every subject is answered or rejected.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from bizllm.errors import Fault, UserError, nearest
from bizllm.models.saved import ModelInfo
from bizllm.tasks._prompts import source as prompt_source

Shape = Literal["row", "group", "table"]
Dates = Literal["day", "to_date", "all"]
Subjects = npt.NDArray[np.int64]
Learned = dict[str, Any]

# What a report can draw of a step, and the columns that `Outcome.exhibit` then has:
#   series:     series string, time timestamp[us] or date32, value double, size double, error double: the recent history
#               of the batch's largest and worst-predicted series; the forecasts themselves come from the table
#   samples:    title string, source string, result string, score double: an input beside what the task made of it;
#               maybe why list of {start, end, weight}: the characters of the source that the result rests on
#   categories: the report counts `Task.category_column` in the table, and moves from `previous_<column>`; an exhibit,
#               where the task gives one, is samples
Exhibit = Literal["series", "samples", "categories"]

# Codes that tell about the data, not about the task: they spare the reject budget.
DATA_CODES = frozenset({"empty", "too_short", "no_key", "no_time", "no_value", "after_date"})


class TableRead(BaseModel):
    """A further table that a step reads whole, once, before its first answer. A task adds the columns that it wants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str = Field(description="A source or an earlier step.")
    dates: Dates | None = Field(
        default=None,
        description="Which partitions of a source to read; by default all up to the run date. A step is read as it was "
        "published for the run date.",
    )

    def columns(self) -> dict[str, str]:
        """The columns it reads, by the setting that names them: every other setting that is a text."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in TableRead.model_fields}
        return {name: column for name, column in own.items() if isinstance(column, str)}


class TaskSettings(BaseModel):
    """What every step takes, whatever its task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str = Field(description="The kind of work: see `bizllm tasks`.")
    input: str = Field(description="A source or an earlier step.")
    dates: Dates | None = Field(
        default=None,
        description="Which partitions to read: the run date's, all up to it, or all. "
        "By default row tasks read `day`, others `to_date`.",
    )
    reuse: bool = Field(
        default=True,
        description="Copy the answers of rows or groups that did not change since an earlier night, where model, "
        "settings and task are the same. Table tasks answer all anew.",
    )
    engine: Literal["auto", "torch", "packed", "openvino", "onnxruntime", "vllm"] = Field(
        default="auto",
        description="What computes the step's model. `auto` measures on its first rows which is fastest of those that "
        "say what torch says in float32. A `generator` is computed by torch, or by `vllm` where that is asked.",
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto",
        description="Of the model's numbers. `auto`: bfloat16 where the machine multiplies it by itself, else float32. "
        "`int8` is quantized on the step's own rows, and used where its answers agree.",
    )
    drop: list[str] = Field(
        default=[],
        description="Columns of the task that its table leaves out, such as `summary`; `spans.text` of a list's items.",
    )
    reject_budget: float = Field(
        default=0.01, ge=0.0, le=1.0, description="Share of rows that may be rejected before the step fails."
    )

    def tables(self) -> dict[str, TableRead]:
        """The further tables that the step reads whole, by setting."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in own.items() if isinstance(value, TableRead)}

    @property
    def any_engine(self) -> bool:
        """Whether it is left to bizllm what computes the step's models."""
        return self.engine == self.precision == "auto"


@dataclass(frozen=True)
class Reject:
    """Why a subject got no answer. `message` is shown to people and must never hold row text or key values."""

    subject: int
    code: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What a task says of one batch of subjects (rows, or groups).

    subject: (records,) for each answer the position of its subject in the batch; a group may give several records.
    columns: (records,) rows of the task's own columns, in the order of `Task.columns()`.
    rejects: the subjects without an answer. Every subject is in `subject` or in `rejects`, never in both.
    tokens:  model tokens that were read, 0 where no model took part.
    exhibit: a few rows for the night's report (see `Task.exhibits`), bounded whatever the batch's size.
    skipped: subjects that the settings leave out (all but the best-sold 200, say): neither answered nor rejected,
        and not counted among the rows that came in.
    """

    subject: Subjects
    columns: pa.Table
    rejects: Sequence[Reject] = ()
    tokens: int = 0
    exhibit: pa.Table | None = None
    skipped: Subjects = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Combined:
    """What is left of a batch of rows after the map-side step of a group task.

    rows: columns of the task's choice; must hold the group columns. Combining twice must equal combining once.
    rejects: input rows that can't be used (scope row): `subject` is the row's position in the batch.
    """

    rows: pa.Table
    rejects: Sequence[Reject] = ()


@dataclass(frozen=True)
class Groups:
    """Every combined row of some groups, a group's rows side by side.

    rows:  (rows,) sorted by group, within a group in no promised order.
    starts: (groups + 1,) group g is rows[starts[g]:starts[g + 1]]; a group may have no usable row left.
    keys:  (groups,) the group columns, one row a group.
    prior: (groups,) what this step published for the group on its newest earlier date: the columns of
        `Task.prior_columns`, null where there was nothing; None where the task asks for none.
    """

    rows: pa.Table
    starts: Subjects
    keys: pa.Table
    prior: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.keys)


class Models(Protocol):
    """Hands loaded models to a task, once for each worker."""

    def encoder(self, uri: str) -> Any:
        """Load the text encoder that `uri` names."""

    def classifier(self, uri: str) -> Any:
        """Load the fine-tuned model with a head that `uri` names: classes or numbers."""

    def tagger(self, uri: str) -> Any:
        """Load the fine-tuned model that `uri` names, which tags tokens."""

    def generator(self, uri: str) -> Any:
        """Load the generating model that `uri` names."""


@dataclass(frozen=True)
class StepInput:
    """What a step reads, known before any row is.

    schema: the columns of its source or upstream step.
    key: the columns that identify a row there; empty where the source has no key.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...] = ()


@dataclass
class Task(ABC):
    """One step's work. Created on the driver and, equal, on every worker; so it holds settings only, until `open`."""

    name: ClassVar[str]
    version: ClassVar[int]  # raise it when outputs move; part of the fingerprint
    Settings: ClassVar[type[TaskSettings]]
    summary: ClassVar[str]  # one sentence for `bizllm tasks`
    takes: ClassVar[str] = ""  # what its input and its further tables must hold, in a sentence, for `bizllm tasks show`
    example: ClassVar[str] = ""  # a step of a job, or two, in YAML, as they stand under `steps:`
    prompts: ClassVar[tuple[str, ...]] = ()  # what it asks a generator by: files of tasks/prompts/, of its fingerprint
    shapes: ClassVar[tuple[Shape, ...]]  # the shapes that settings may give it
    writes: ClassVar[dict[str, str]]  # own output columns (or patterns of them): type and meaning, for `bizllm tasks`
    exhibits: ClassVar[Exhibit | None] = None
    exhibit_labels: ClassVar[tuple[str, str]] = ("size", "error")  # what those columns of a series are, for people
    category_column: ClassVar[str] = ""  # where exhibits == "categories"
    prior_columns: ClassVar[tuple[str, ...]] = ()  # own columns of the newest earlier night that the task wants to see

    settings: Any
    source: StepInput
    run_date: date
    others: Mapping[str, StepInput] = field(default_factory=dict)  # the tables that it reads whole, by setting
    fitted: dict[str, Any] | None = field(default=None)  # table tasks: what `fit` returned
    learned: Learned | None = field(default=None)  # what `learn` returned, before the first answer on each worker

    # -- what it reads and writes ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """row, group or table; may depend on the settings."""

    @abstractmethod
    def reads(self) -> list[str]:
        """Input columns that the answers depend on, group columns included, row keys not (unless used)."""

    @abstractmethod
    def check(self) -> list[tuple[str, object, str, str]]:
        """Faults of the settings against the input's schema: (setting, value, what was expected, suggestion)."""

    @abstractmethod
    def columns(self) -> pa.Schema:
        """The task's own output columns, without keys and contract columns."""

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """What `bizllm tasks` shows: what it reads, settings as JSON Schema, the columns of its table, an example, and
        the templates of its prompts by name."""
        return {
            "name": cls.name,
            "summary": cls.summary,
            "version": cls.version,
            "shapes": list(cls.shapes),
            "takes": cls.takes,
            "example": cls.example,
            "settings": cls.Settings.model_json_schema(),
            "columns": cls.writes,
            "prompts": {name: prompt_source(name) for name in cls.prompts},
        }

    def group_by(self) -> list[str]:
        """The columns that make a group; empty for row tasks."""
        return []

    def keys(self) -> list[str]:
        """Columns that are unique together in one night's output."""
        return self.group_by() if self.shape != "row" else list(self.source.key)

    def rules(self) -> dict[str, str]:
        """What must hold of every output row: a name for people, and a DuckDB condition. Null counts as broken."""
        return {}

    def models(self) -> dict[str, str]:
        """Model URIs that the step loads, by what they are for. Settings hold URIs by then, not the job's names."""
        return {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        """Faults of the models that were found, as `check` tells them. infos: by the names that `models` uses; None for
        a model that was not fine-tuned here."""
        return []

    def depends_on_date(self) -> bool:
        """Whether a group's answer may change with the run date although its rows did not."""
        return self.shape != "row"

    def caveat(self) -> str:
        """How far the answers can be trusted, as the step is set: a weak default with its figure. The report says it
        beside the step."""
        return ""

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        """(model tokens, CPU seconds) for that much input, roughly; for `plan`."""
        return 0, rows * 2e-6

    def written(self, rows: int) -> int:
        """Of the tokens that `estimate` tells those that a generator writes: endpoints have a price of their own for
        these."""
        return 0

    # -- the work -------------------------------------------------------------------------------------------------

    def open(self, models: Models) -> None:
        """Load what answering needs; called once on each worker before the first batch, with `learned` set, and before
        `learn`, where it is not."""

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        """What answering needs of the tables that are read whole. Values: JSON, numpy arrays, or Arrow tables.

        tables: by setting; all rows, in an order that follows from the rows alone, with the columns of
        `TableRead.columns` under their own names. previous: what an earlier night of the same version, settings and
        models learned of other rows; what is copied of it (a passage's vector, say) must be what would be learned anew.
        Raises UserError where nothing can be learned.
        """
        raise AssertionError(f"{self.name} reads no table whole")

    def prepare(self, rows: pa.Table) -> pa.Table:
        """CPU work ahead of the model for a batch of rows (row tasks): the same rows, with more columns."""
        return rows

    def combine(self, rows: pa.Table) -> Combined:
        """Map side of group and table tasks: drop what can't be used, aggregate what can be aggregated early. `learned`
        is set, models are not loaded."""
        return Combined(rows)

    def features(self, groups: Groups) -> Outcome:
        """Table tasks: one row of features a group. They go to `fit` (a sample of them) and to `answer` (all)."""
        raise AssertionError(f"{self.name} is no table task")

    def fit(self, features: pa.Table, previous: dict[str, Any] | None) -> dict[str, Any]:
        """Table tasks: what to keep, as JSON. `previous` is the fit of the newest earlier night, if any."""
        raise AssertionError(f"{self.name} is no table task")

    @abstractmethod
    def answer(self, batch: Any) -> Outcome:
        """Answer a batch: row tasks get the prepared `pa.Table`, group tasks `Groups`, table tasks the features of
        the groups (columns of `features()` plus the group columns), a `pa.Table` of one row a group."""


# -- finding tasks ------------------------------------------------------------------------------------------------

_NOT_TASKS = {"base"}


def task_names() -> list[str]:
    """Every task that a job may name: the files of this folder."""
    folder = importlib.import_module("bizllm.tasks").__path__
    return sorted(
        m.name for m in pkgutil.iter_modules(folder) if m.name not in _NOT_TASKS and not m.name.startswith("_")
    )


def task_class(name: str, place: str = "task") -> type[Task]:
    """The task of that name. Raises UserError with the nearest right name."""
    if name not in task_names():
        known = task_names()
        raise UserError(Fault(place, name, f"expected a task: one of {', '.join(known)}", nearest(name, known)))
    cls: type[Task] = importlib.import_module(f"bizllm.tasks.{name}").TASK
    assert issubclass(cls, Task) and cls.name == name
    return cls
