"""A small shop whose tables are really published, without a Ray: what readers, exports and contracts are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.jobs import ledger
from bizllm.jobs.job import load_job
from bizllm.jobs.prepare import prepare
from bizllm.tables import storage
from bizllm.tables.warehouse import Warehouse, describe

D1, D2 = date(2026, 6, 29), date(2026, 6, 30)
MADE = datetime(2026, 7, 1, 1, 2, 3, 456789, UTC)

JOB = """\
name: shop
timezone: Asia/Shanghai
warehouse: {path: warehouse}
sources:
  tickets: {path: tickets.parquet, key: [ticket_id]}
  notes: {path: tickets.parquet, key: [ticket_id], sensitive: true}
  sales: {path: sales.parquet, key: [store, day]}
steps:
  summary: {task: summarize, input: tickets, text: body}
  demand: {task: forecast, input: sales, series: [store], time: day, target: units, freq: D, horizon: 2}
  secret: {task: summarize, input: notes, text: body}
"""


class Tables:
    """The tables of a job, into which nights are put by hand. The job's sources must be there."""

    def __init__(self, path: str) -> None:
        self.path = path
        loaded = load_job(path)
        self.name = loaded.job.name
        self.steps = prepare(loaded, D2).steps
        self.warehouse = Warehouse(loaded.job.warehouse)
        self._files = 0

    def publish(
        self, table: str, day: date, run: str, rows: Sequence[dict[str, Any]], more: Sequence[pa.Field] = ()
    ) -> int:
        """Replace the table's night by rows in its own schema; what they leave out of the contract is filled in.
        more: further columns of the table, as a later version of the task would have."""
        step = self.steps[table.removesuffix("__rejects")]
        own = step.schema if table == step.name else step.reject_schema
        schema = pa.schema([*own, *more])
        made = {"run_date": day, "run_id": run, "input_hash": "h", "produced_at": MADE, "unit": "u1", "message": "m"}
        known = {name: value for name, value in made.items() if name in schema.names}
        filled = pa.Table.from_pylist([{**known, **row} for row in rows], schema=schema)
        self._files += 1
        folder = storage.join(self.warehouse.table_location(self.name, table), f"data/run_date={day}")
        url, footer, files = storage.join(folder, f"{run}-{self._files}.parquet"), [], []
        if rows:
            with storage.open_output(url) as stream:
                pq.write_table(filled, stream, metadata_collector=footer)
                files = [describe(url, footer[0], stream.tell())]
        return self.warehouse.publish(self.name, table, schema, day, files, {"run_id": run}, lambda: None)

    def note(
        self, day: date, run: str, rows: int, *steps: str, state: ledger.State = "done", at: datetime = MADE
    ) -> None:
        """A run's rows in the ledger; of `summary` by default."""
        done = [
            ledger.StepResult(day, run, step, task, f"{self.name}.{step}", state, at, rows, rows, records_out=rows)
            for step in steps or ("summary",)
            for task in [self.steps[step].settings.task]
        ]
        ledger.write(self.warehouse, self.name, run, day, done)


class Shop(Tables):
    """A job in a folder, with its sources."""

    def __init__(self, folder: Path, job: str = JOB) -> None:
        path = folder / "shop.yaml"
        path.write_text(job)
        pq.write_table(
            pa.table({"ticket_id": ["t1", "t2"], "body": ["Lid broke.", "盖子坏了。"]}), folder / "tickets.parquet"
        )
        days = [date(2026, 6, day) for day in (28, 29, 30)]
        pq.write_table(pa.table({"store": ["s1"] * 3, "day": days, "units": [1, 2, 3]}), folder / "sales.parquet")
        super().__init__(str(path))


def ticket(key: str, summary: str | None, **more: Any) -> dict[str, Any]:
    """A row of `summary`."""
    spans = [{"document": 0, "start": 0, "end": 3}]
    return {"ticket_id": key, "summary": summary, "spans": spans, "input_tokens": 7, "coverage": 0.5, **more}


def demo() -> Tables:
    """Two nights of jobs/demo.yaml in the warehouse that BIZLLM_WAREHOUSE names, one of them rerun, a third failed."""
    made = Tables(str(Path(__file__).parents[1] / "jobs/demo.yaml"))

    def segments(day: date, run: str, **customers: str) -> None:
        made.publish("customer_segment__rejects", day, run, [])
        rows = [{"customer_id": name, "segment": label, "segment_id": 1} for name, label in customers.items()]
        made.publish("customer_segment", day, run, rows)

    segments(D1, "r1", C1="loyal", C2="new")
    segments(D2, "r2", C1="loyal", C2="loyal", C3="new")
    reject = {"scope": "row", "code": "empty"}
    made.publish("ticket_summary__rejects", D2, "r2", [{"ticket_id": "T260630-0003", **reject}])
    rows = [ticket("T260630-0001", "孩子睡不好。"), ticket("T260630-0002", "想退货。")]
    made.publish("ticket_summary", D2, "r2", [row | {"model": "builtin:minilm"} for row in rows])
    segments(D1, "r3", C1="loyal", C2="lost")
    made.note(D1, "r1", 2, "customer_segment")
    made.note(D2, "r2", 3, "customer_segment", "ticket_summary")
    made.note(D1, "r3", 2, "customer_segment")
    made.note(date(2026, 7, 1), "r4", 0, "customer_segment", state="failed")
    return made
