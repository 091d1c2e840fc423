"""What is done to published tables beside publishing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bizllm.api.opened import loaded_job


def rollback(job_path: str, step: str, *, to: str, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Make what run `to` published of a step the current night of its date again, in one snapshot.

    Returns table, run_date, run_id, replaced (the run whose night it was), rows and snapshot_id. The next `run` of that
    date builds it anew where its input or settings are not those of the restored night.
    """
    loaded = loaded_job(job_path, sets)
    from bizllm.jobs.rollback import rollback as restore_night

    return restore_night(loaded, step, to).to_dict()


def gc(job_path: str, *, older_than: str = "7d", dry_run: bool = False, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Expire old snapshots by the tables' policy, and remove files older than that (12h, 7d, 2w) which no snapshot and
    no unfinished run needs, and uploads that never ended.

    Returns dry_run, before, expired (snapshots by table), files, bytes, removed (what, url, bytes) and left (folders
    that were not looked into, and why).
    """
    from bizllm.jobs.garbage import age, collect

    oldest = age(older_than)
    return collect(loaded_job(job_path, sets), oldest, dry_run=dry_run).to_dict()


def recover(job_path: str, *, dry_run: bool = False, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Give the job's catalog the tables that lie in the warehouse's folder, each in its newest whole state.

    For a catalog that was lost or restored from a backup, or another one that takes its place. Let no run of the job be
    under way. Returns dry_run, warehouse and tables: table, what (`registered`, `moved` on from an older state,
    `current`, or `left` alone), why, metadata, snapshot_id, broken (newer states that lack files, with one of them) and
    aside (nights that lie in no history of the table: run or backfill these dates).
    """
    loaded = loaded_job(job_path, sets)
    from bizllm.jobs.recover import recover as register

    return register(loaded, dry_run=dry_run)
