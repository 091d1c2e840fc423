"""The ledger `<job>.runs`: one row for each step of each run, written once at the run's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import pyarrow as pa

from bizllm.tables.contract import LEDGER
from bizllm.tables.warehouse import Published, Warehouse

State = Literal["done", "unchanged", "failed", "skipped", "cancelled"]
TABLE = "runs"


@dataclass(frozen=True)
class StepResult:
    """How a step of a run ended. rows_* count rows, or groups for group tasks; records_out counts table rows."""

    run_date: date
    run_id: str
    step: str
    task: str
    table: str
    state: State
    started_at: datetime
    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    rows_reused: int = 0
    records_out: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cost: float | None = None
    snapshot_id: int | None = None
    fingerprint: str | None = None
    error: str | None = None
    engine: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """An entry of `steps` in `run --json`."""
        names = ("step", "task", "table", "state", "rows_in", "rows_out", "rows_rejected", "rows_reused")
        more = ("records_out", "tokens", "seconds", "cost", "error", "engine")
        return {name: getattr(self, name) for name in (*names, *more)}


def run_state(results: Sequence[StepResult]) -> State:
    """The state of a run whose steps ended so: the worst of them; unchanged where all are."""
    states = {result.state for result in results}
    worst: tuple[State, ...] = ("cancelled", "failed", "done")
    return next((state for state in worst if state in states), "unchanged")


def write(warehouse: Warehouse, job: str, run_id: str, run_date: date, results: Sequence[StepResult]) -> None:
    """Append the run's rows; doing it again changes nothing."""
    rows = pa.Table.from_pylist([asdict(result) for result in results], schema=LEDGER)
    warehouse.append(job, TABLE, rows, run_date, token=run_id)


def read(warehouse: Warehouse, job: str, **where: Any) -> list[dict[str, Any]]:
    """The ledger's rows, newest run first; those whose columns have the values of `where`."""
    rows = warehouse.read(job, TABLE, where=where)
    return sorted(rows.to_pylist() if rows else [], key=lambda row: (row["started_at"], row["step"]), reverse=True)


def missing(warehouse: Warehouse, job: str, published: Sequence[tuple[str, str, Published]]) -> list[StepResult]:
    """Rows for published slices (step, task, snapshot) whose run ended before it could write that it is done."""
    dates = {snapshot.run_date for _, _, snapshot in published}
    # A run may have been told that its commit failed, when it had landed: then the ledger has it as failed.
    rows = (row for day in dates for row in read(warehouse, job, run_date=day))
    known = {(row["run_id"], row["step"]) for row in rows if row["state"] == "done"}
    return [
        from_snapshot(job, step, task, snapshot)
        for step, task, snapshot in published
        if (snapshot.run_id, step) not in known
    ]


def from_snapshot(job: str, step: str, task: str, published: Published) -> StepResult:
    """The ledger row that a published snapshot's own properties tell."""
    said = published.properties
    return StepResult(
        published.run_date,
        published.run_id,
        step,
        task,
        f"{job}.{step}",
        "done",
        datetime.fromisoformat(said["started_at"]).astimezone(UTC),
        rows_in=int(said.get("rows_in", 0)),
        rows_out=int(said.get("rows_out", 0)),
        rows_rejected=int(said.get("rows_rejected", 0)),
        rows_reused=int(said.get("rows_reused", 0)),
        records_out=int(said.get("records_out", 0)),
        tokens=int(said.get("tokens", 0)),
        seconds=float(said.get("seconds", 0)),
        snapshot_id=published.snapshot_id,
        fingerprint=said.get("fingerprint"),
        engine=said.get("engine"),
    )
