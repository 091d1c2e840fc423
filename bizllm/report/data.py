"""What a night's report shows, as plain values: the engine fills these, `render` draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

import pyarrow as pa

from bizllm.tables.audit import AuditResult as AuditResult

State = Literal["done", "unchanged", "failed", "skipped", "cancelled"]


@dataclass(frozen=True)
class RejectCount:
    """How many inputs of a scope (`row` or `group`) were rejected under one code."""

    scope: str
    code: str
    count: int
    message: str = ""


@dataclass(frozen=True)
class SeriesPanel:
    """History and forecast of a few series; the report draws the largest and the worst-predicted.

    time: name of the time column, for people.
    history: `series` string, `time` (date, timestamp or number), `value`, `size`, `error` double; size and error say
        the same on every row of a series.
    forecast: `series`, `time`, `mean`, and quantiles named as in the forecast table (`q10`, `q2_5` for 0.025).
    """

    time: str
    history: pa.Table
    forecast: pa.Table
    size_label: str = "size"
    error_label: str = "backtest error"


@dataclass(frozen=True)
class SamplesPanel:
    """A few inputs beside what the task made of them: `title`, `source`, `result` string, `score` double; maybe `why`,
    a list of {start, end, weight}: the characters of the source that the result rests on, weightiest first."""

    pairs: pa.Table


@dataclass(frozen=True)
class CategoryPanel:
    """How many records each label has, and how many came from which label of the night before.

    counts: `label` string, `count` int64.
    moves: `previous` string (null: new tonight), `label` string (null: gone tonight), `count` int64; no rows on a
        first night.
    samples: of the records, where the task shows some.
    """

    column: str
    counts: pa.Table
    moves: pa.Table
    samples: SamplesPanel | None = None


@dataclass(frozen=True)
class TablePanel:
    """The first rows of the step's table, for tasks that have nothing better to show."""

    table: pa.Table


Panel = SeriesPanel | CategoryPanel | SamplesPanel | TablePanel


@dataclass(frozen=True)
class StepReport:
    """One step of the run: the counts of its ledger row, and what to look at.

    table: the table's full name, `<job>.<step>`.
    rows_*: rows or groups, whatever the task answers; rows_in = rows_out + rows_rejected.
    error: what went wrong, where state is failed, or why it was skipped; never row text.
    note: why there is no panel, where there could be one.
    caveat: how far the answers can be trusted.
    """

    name: str
    task: str
    table: str
    state: State
    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    rows_reused: int = 0
    records_out: int = 0
    tokens: int = 0
    seconds: float = 0.0
    error: str | None = None
    model: str = ""
    engine: str = ""  # what computed it, and how far it agrees, in words
    audits: list[AuditResult] = field(default_factory=list)
    rejects: list[RejectCount] = field(default_factory=list)
    panel: Panel | None = None
    note: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class RunReport:
    """One run of a job for one run date.

    started_at: aware of its zone; shown in `timezone`, an IANA name.
    versions: name and version of what took part, for the foot of the page.
    warehouse: where the tables lie, without secrets.
    """

    job: str
    run_id: str
    run_date: date
    state: State
    started_at: datetime
    seconds: float
    timezone: str
    steps: list[StepReport]
    versions: dict[str, str] = field(default_factory=dict)
    warehouse: str = ""
