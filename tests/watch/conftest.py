"""A job whose nights are written by warehouse and ledger themselves, without a Ray: any past in milliseconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bizllm.jobs import ledger
from bizllm.jobs.job import LoadedJob, load_job
from bizllm.jobs.ledger import State, StepResult
from bizllm.tables import storage
from bizllm.tables.warehouse import Warehouse, describe

NOW = datetime.now(UTC).replace(microsecond=0)
LAST = NOW.date() - timedelta(days=1)  # the night that `check` looks at, in UTC


@pytest.fixture(autouse=True)
def same_day() -> None:
    """What is asked without a date is of yesterday, which midnight changes."""
    if datetime.now(UTC).date() != NOW.date():
        pytest.skip("midnight has passed since these tests were collected")


@dataclass
class Shop:
    """A job of two steps, `summary` and `labels`, and its past."""

    path: Path
    count: int = 0

    @property
    def loaded(self) -> LoadedJob:
        return load_job(str(self.path))

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.loaded.job.warehouse)

    def ran(self, day: date, state: State = "done", publish: bool | None = None, **facts: Any) -> str:
        """Both steps of a night ended so: rows in the ledger and, of good ones, a snapshot. facts: of the ledger's row;
        `only`: this step alone."""
        self.count += 1
        run_id = f"{day:%Y%m%d}T000000-{self.count:06d}"
        steps = [facts.pop("only")] if "only" in facts else ["summary", "labels"]
        told = (
            {"rows_in": 10, "rows_out": 10, "records_out": 10, "tokens": 70, "seconds": 12.0} if state == "done" else {}
        )
        told |= facts
        started = NOW - timedelta(days=30) + timedelta(seconds=self.count)
        name, warehouse = self.loaded.job.name, self.warehouse
        rows = [StepResult(day, run_id, step, "summarize", f"{name}.{step}", state, started, **told) for step in steps]
        ledger.write(warehouse, name, run_id, day, rows)
        for step in steps if (state == "done" if publish is None else publish) else ():
            self._publish(warehouse, name, step, day, run_id, told["records_out"])
        return run_id

    def _publish(self, warehouse: Warehouse, job: str, step: str, day: date, run_id: str, count: int) -> None:
        rows = pa.table({"key": list(range(count)), "run_date": [day] * count, "run_id": [run_id] * count})
        rows = rows.cast(pa.schema([("key", pa.int64()), ("run_date", pa.date32()), ("run_id", pa.string())]))
        url = storage.join(warehouse.table_location(job, step), "data", f"run_date={day}", f"{run_id}.parquet")
        footer: list[pq.FileMetaData] = []
        with storage.open_output(url) as stream:
            pq.write_table(rows, stream, metadata_collector=footer)
            file = describe(url, footer[0], stream.tell())
        warehouse.publish(job, step, rows.schema, day, [file], {"run_id": run_id}, lambda: None)


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Shop]:
    """`shop(name="shop", due=…, …)`: a job with these further settings and no past."""

    def make(name: str = "shop", **settings: Any) -> Shop:
        folder = tmp_path / name
        (folder / "tickets").mkdir(parents=True)
        pq.write_table(pa.table({"ticket_id": ["a"], "body": ["The lid leaks."]}), folder / "tickets/part-0.parquet")
        step = {"task": "summarize", "input": "tickets", "text": "body"}
        job = {
            "name": name,
            "warehouse": {"path": "wh"},
            "sources": {"tickets": {"path": "tickets", "key": ["ticket_id"]}},
            "steps": {"summary": step, "labels": step},
            **settings,
        }
        path = folder / "job.yaml"
        path.write_text(yaml.safe_dump(job, sort_keys=False))
        return Shop(path)

    return make


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own tool."""
    return required("promtool", "apt-get install prometheus")


@pytest.fixture(scope="session")
def amtool() -> str:
    """Alertmanager's own tool."""
    return required("amtool", "apt-get install prometheus-alertmanager")


def required(program: str, how: str) -> str:
    """Its path; skips without it, and fails where .ci/run has installed it."""
    found = shutil.which(program)
    if found is None:
        reason = f"no {program} on PATH: {how}"
        if os.environ.get("BIZLLM_REQUIRE_PROMTOOL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
