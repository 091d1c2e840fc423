"""Jobs on a cluster, through Ray's Jobs API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bizllm.errors import Fault, UserError
from bizllm.jobs.job import load_job, run_date

if TYPE_CHECKING:
    from bizllm.jobs.submit import Submission


def submit(
    job_path: str,
    *,
    address: str | None = None,
    date: str | None = None,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    working_dir: str | None = None,
    wait: bool = False,
    sent: Callable[[Submission], None] = lambda _: None,
    line: Callable[[str], None] = lambda _: None,
) -> Submission:
    """Run a job on a cluster through Ray's Jobs API: checked here first, then sent with its folder.

    address: http://HEAD:8265, else RAY_API_SERVER_ADDRESS. working_dir: what is sent; by default the job file's folder.
    wait: until the job's end, with every line that it prints to `line`. sent: called when the cluster has the job.
    Raises UserError where the job is wrong or the cluster lets nobody in, RunError where the cluster loses the job.
    """
    from bizllm.jobs.training_file import is_training_file

    if is_training_file(job_path):
        raise UserError(Fault(job_path, None, "is a training file; expected a job", f"bizllm finetune {job_path}"))
    loaded = load_job(job_path, sets)
    day = run_date(loaded.job, date, datetime.now(UTC))
    from bizllm.jobs.submit import follow, submit_job

    submission, client = submit_job(loaded, day, address, sets=sets, only=only, working_dir=working_dir)
    sent(submission)
    return follow(submission, client, line) if wait else submission
