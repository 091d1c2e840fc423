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


class Shop:
    """A job's folder with its sources, and nights put into its tables by hand."""

    def __init__(self, folder: Path, job: str = JOB) -> None:
        self.path = str(folder / "shop.yaml")
        Path(self.path).write_text(job)
        pq.write_table(
            pa.table({"ticket_id": ["t1", "t2"], "body": ["Lid broke.", "盖子坏了。"]}), folder / "tickets.parquet"
        )
        days = [date(2026, 6, day) for day in (28, 29, 30)]
        pq.write_table(pa.table({"store": ["s1"] * 3, "day": days, "units": [1, 2, 3]}), folder / "sales.parquet")
        loaded = load_job(self.path)
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
        folder = storage.join(self.warehouse.table_location("shop", table), f"data/run_date={day}")
        url, footer, files = storage.join(folder, f"{run}-{self._files}.parquet"), [], []
        if rows:
            with storage.open_output(url) as stream:
                pq.write_table(filled, stream, metadata_collector=footer)
                files = [describe(url, footer[0], stream.tell())]
        return self.warehouse.publish("shop", table, schema, day, files, {"run_id": run}, lambda: None)

    def note(self, day: date, run: str, rows: int, step: str = "summary") -> None:
        """A row of the ledger."""
        done = ledger.StepResult(
            day, run, step, "summarize", f"shop.{step}", "done", MADE, rows, rows, records_out=rows
        )
        ledger.write(self.warehouse, "shop", run, day, [done])


def ticket(key: str, summary: str | None, **more: Any) -> dict[str, Any]:
    """A row of `summary`."""
    spans = [{"document": 0, "start": 0, "end": 3}]
    return {"ticket_id": key, "summary": summary, "spans": spans, "input_tokens": 7, "coverage": 0.5, **more}
