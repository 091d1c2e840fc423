"""What downstream systems get of the published tables: copies, and a contract that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bizllm.api.opened import loaded_job
from bizllm.errors import Fault, RunError, UserError
from bizllm.jobs.job import parse_date

if TYPE_CHECKING:
    from bizllm.jobs.exporting import Copied, Exported


def export(
    job_path: str,
    step: str,
    *,
    to: str,
    target: str | None = None,
    table: str | None = None,
    date: str | None = None,
    every: bool = False,
    reveal: bool = False,
    sets: Sequence[str] = (),
    told: Callable[[Copied], None] = lambda night: None,
) -> Exported:
    """Copy a published night of a table (the newest, that of `date`, or every one) into another system.

    to: parquet, duckdb, postgres, snowflake, bigquery, clickhouse. target: a path or URI, as `to` wants it. table:
    SCHEMA.TABLE there; JOB.STEP by default. A night that is there already is replaced, others stay. reveal: copy the
    texts of steps that read a `sensitive` source too. told: called after each night.
    """
    day = parse_date(date, "--date") if date else None
    loaded = loaded_job(job_path, sets)
    from bizllm.jobs.exporting import export as copy

    return copy(loaded, step, to, target, table=table, day=day, every=every, reveal=reveal, told=told)


def contract(
    job_path: str,
    *,
    write: str | None = None,
    against: str | None = None,
    planned: bool = False,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """What the job's tables promise, as {job, tables, text}; or with `against` how they differ from a contract file, as
    {holds, breaking, notes}.

    write: also write it to this file. planned: of what the job would write next, rather than of what is published.
    """
    if write and against:
        raise UserError(Fault("--against", against, "expected either --write or --against"))
    loaded = loaded_job(job_path, sets)
    from bizllm.jobs import promises

    before = promises.read(against, loaded.job.name) if against else None
    now = promises.promise(loaded, planned)
    if before is not None:
        changes = promises.compare(before, now)
        breaking = [{**vars(change), "told": str(change)} for change in changes if change.breaks]
        notes = [{**vars(change), "told": str(change)} for change in changes if not change.breaks]
        return {"holds": not breaking, "breaking": breaking, "notes": notes}
    if write:
        from bizllm.tables import storage

        try:
            storage.write_bytes(write, promises.text_of(now, job_path).encode())
        except (OSError, RunError) as fault:
            raise UserError(Fault("--write", write, f"can't be written ({fault})")) from None
    return {"job": now.job, "tables": now.to_dict()["tables"], "text": promises.text_of(now, job_path)}
