"""What is kept of a run for its report, and the report made of it: at the run's end, or again at any later time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm import logs
from bizllm.errors import RunError, safe_text
from bizllm.infer.work import write_parquet
from bizllm.jobs.ledger import StepResult, run_state
from bizllm.report.data import (
    AuditResult,
    CategoryPanel,
    Panel,
    RejectCount,
    RunReport,
    SamplesPanel,
    SeriesPanel,
    StepReport,
    TablePanel,
)
from bizllm.tables import storage
from bizllm.tables.query import connect
from bizllm.tables.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from bizllm.jobs.prepare import Night, PreparedStep
    from bizllm.jobs.step import StepDetails

log = logs.get(__name__)

SHOWN_ROWS = 20
SHOWN_SAMPLES = 8
SHOWN_SERIES = 6  # of the largest, and as many of the worst
VERSIONS = ("bizllm", "ray", "torch", "transformers", "pyiceberg", "pyarrow", "numpy", "duckdb")


def run_folder(warehouse_path: str, job: str, run_id: str) -> str:
    """Where what is kept of a run lies."""
    return storage.join(warehouse_path, "_bizllm", job, "runs", run_id)


def save(night: Night, run_id: str, results: Sequence[StepResult], details: Mapping[str, StepDetails]) -> str | None:
    """Keep audits, rejects and exhibits of the run, and write its report. The page's path or URL.

    The night is published by then: a report that can't be made is logged, and is no failure of the run.
    """
    folder = run_folder(night.warehouse.path, night.job.name, run_id)
    try:
        kept: dict[str, Any] = {"steps": {}}
        for result in results:
            detail = details[result.step]
            kept["steps"][result.step] = {
                "audits": [asdict(a) for a in detail.audits],
                "rejects": [[*name, count] for name, count in sorted(detail.rejects.items())],
                "of_run": _standing_run(night, result) or run_id,
            }
            if detail.exhibit is not None:
                url = storage.join(folder, f"{result.step}.exhibit.parquet")
                storage.again(url, "write", partial(write_parquet, detail.exhibit, url))
        kept["results"] = [_plain(result) for result in results]
        storage.write_bytes(storage.join(folder, "run.json"), json.dumps(kept, ensure_ascii=False).encode())
        return render_run(night, run_id)
    except Exception as fault:
        log.error("report_failed", error=safe_text(fault))
        return None


def render_run(night: Night, run_id: str) -> str:
    """Write the report of a run that `save` kept, and say where. Raises RunError where nothing was kept of it."""
    from bizllm.report.html import render

    folder = run_folder(night.warehouse.path, night.job.name, run_id)
    kept_url = storage.join(folder, "run.json")
    if not storage.exists(kept_url):
        raise RunError(f"nothing was kept of run {run_id} of {night.job.name}")
    kept = json.loads(storage.read_bytes(kept_url))
    page = render(_report(night, run_id, kept))
    url = storage.join(folder, "report.html")
    storage.write_bytes(url, page.encode())
    return url


def _standing_run(night: Night, result: StepResult) -> str | None:
    """The run that made what an unchanged step's table holds."""
    if result.state != "unchanged":
        return None
    published = night.warehouse.newest(night.job.name, result.step, night.run_date)
    return published.run_id if published else None


def _plain(result: StepResult) -> dict[str, Any]:
    values = asdict(result)
    return values | {"run_date": result.run_date.isoformat(), "started_at": result.started_at.isoformat()}


def _report(night: Night, run_id: str, kept: dict[str, Any]) -> RunReport:
    from datetime import date, datetime

    results = [
        StepResult(
            **{
                **raw,
                "run_date": date.fromisoformat(raw["run_date"]),
                "started_at": datetime.fromisoformat(raw["started_at"]),
            }
        )
        for raw in kept["results"]
    ]
    connection = connect(night.warehouse, night.job.name, [r.step for r in results], results[0].run_date)
    steps = []
    for result in results:
        detail = kept["steps"][result.step]
        if detail["of_run"] != run_id:
            earlier = storage.join(run_folder(night.warehouse.path, night.job.name, detail["of_run"]), "run.json")
            if storage.exists(earlier):
                detail = json.loads(storage.read_bytes(earlier))["steps"][result.step] | {"of_run": detail["of_run"]}
        step = night.steps.get(result.step)
        hidden = night.loaded.sensitive(result.step) if step is not None else None
        standing = result.state in ("done", "unchanged") and step is not None
        steps.append(
            StepReport(
                result.step,
                result.task,
                result.table,
                result.state,
                **{
                    name: getattr(result, name)
                    for name in ("rows_in", "rows_out", "rows_rejected", "rows_reused", "records_out", "tokens")
                },
                seconds=result.seconds,
                error=result.error,
                model=(step.model or "") if step else "",
                engine=result.engine or "",
                audits=[AuditResult(**a) for a in detail["audits"]],
                rejects=[RejectCount(s, code, count, message) for s, code, message, count in detail["rejects"]],
                panel=_panel(night, step, detail["of_run"], connection) if standing and step and not hidden else None,
                caveat=step.task.caveat() if standing and step else "",
                note=f"Rows are not shown: the source {hidden} is sensitive." if hidden else "",
            )
        )
    started = min(r.started_at for r in results)
    return RunReport(
        night.job.name,
        run_id,
        results[0].run_date,
        run_state(results),
        started,
        sum(r.seconds for r in results),
        night.job.timezone,
        steps,
        {name: version(name) for name in VERSIONS},
        night.warehouse.path,
    )


def _panel(night: Night, step: PreparedStep, run_id: str, connection: DuckDBPyConnection) -> Panel | None:
    """What to look at of a step: by what its task exhibits, never by its name."""
    kind = step.task.exhibits
    exhibit_url = storage.join(run_folder(night.warehouse.path, night.job.name, run_id), f"{step.name}.exhibit.parquet")
    exhibit = None
    if kind is not None and storage.exists(exhibit_url):
        exhibit = pq.read_table(pa.BufferReader(storage.read_bytes(exhibit_url)))
    if kind == "categories":
        return _categories(step, exhibit, connection)
    if kind == "samples" and exhibit is not None:
        return SamplesPanel(_spread(exhibit, SHOWN_SAMPLES))
    if kind == "series" and exhibit is not None:
        return _series(step, exhibit, connection)
    shown = ", ".join(quoted(name) for name in step.schema.names)
    first = connection.sql(f"select {shown} from {quoted(step.name)} limit {SHOWN_ROWS}")
    return TablePanel(first.to_arrow_table())


def _categories(step: PreparedStep, exhibit: pa.Table | None, connection: DuckDBPyConnection) -> CategoryPanel:
    column = step.task.category_column
    counts = connection.sql(
        f'select {quoted(column)} as label, count(*) as "count" from {quoted(step.name)}'
        " group by 1 order by 2 desc, 1 limit 50"
    ).to_arrow_table()
    before = f"previous_{column}"
    moves = pa.table(
        {"previous": pa.nulls(0, pa.string()), "label": pa.nulls(0, pa.string()), "count": pa.nulls(0, pa.int64())}
    )
    if before in step.schema.names:
        found = connection.sql(
            f'select {quoted(before)} as previous, {quoted(column)} as label, count(*) as "count"'
            f" from {quoted(step.name)}"
            " group by 1, 2 order by 3 desc, 1, 2 limit 400"
        ).to_arrow_table()
        if found["previous"].null_count < found.num_rows:
            moves = found
    samples = None if exhibit is None else SamplesPanel(_spread(exhibit, SHOWN_SAMPLES))
    return CategoryPanel(column, counts, moves, samples)


def _series(step: PreparedStep, exhibit: pa.Table, connection: DuckDBPyConnection) -> SeriesPanel:
    """The largest series and the worst-predicted ones, with their forecasts from the table."""
    connection.register("__exhibit", exhibit)
    series = step.task.group_by()
    time = next(k for k in step.task.keys() if k not in series)
    picked = (
        "with sizes as (select series, any_value(size) as size, any_value(error) as error from __exhibit group by 1), "
        f"picked as ((select series from sizes order by size desc, series limit {SHOWN_SERIES}) union "
        f"(select series from sizes where error is not null order by error desc, series limit {SHOWN_SERIES})) "
    )
    history = connection.sql(
        f"{picked} select e.* from __exhibit e where series in (select series from picked) order by series, time"
    ).to_arrow_table()
    label = " || ' · ' || ".join(f"{quoted(name)}::varchar" for name in series) if series else "'all'"
    quantiles = ", ".join(quoted(n) for n in step.schema.names if n == "mean" or (n[:1] == "q" and n[1:2].isdigit()))
    forecast = connection.sql(
        f"{picked} select {label} as series, {quoted(time)} as time, {quantiles} from {quoted(step.name)}"
        f" where {label} in (select series from picked) order by 1, 2"
    ).to_arrow_table()
    return SeriesPanel(time, history, forecast, *step.task.exhibit_labels)


def _spread(table: pa.Table, most: int) -> pa.Table:
    """At most so many rows, evenly from all of them."""
    if table.num_rows <= most:
        return table
    return table.take([i * table.num_rows // most for i in range(most)])
