"""A job and its warehouse, ready for a verb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bizllm.jobs.job import LoadedJob, load_job
from bizllm.tables.store_settings import configure

if TYPE_CHECKING:
    from bizllm.tables.warehouse import Warehouse


def loaded_job(job_path: str, sets: Sequence[str]) -> LoadedJob:
    """The job, with its object stores configured for this process: the newest file's `storage:` counts."""
    loaded = load_job(job_path, sets)
    configure(loaded.job.storage)
    return loaded


def warehouse_of(loaded: LoadedJob) -> Warehouse:
    """The job's warehouse, through its catalog."""
    from bizllm.tables.warehouse import Warehouse

    return Warehouse(loaded.job.warehouse)
