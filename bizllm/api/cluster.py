"""Jobs and trainings on a cluster, through Ray's Jobs API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bizllm.errors import Fault, UserError
from bizllm.jobs.job import load_job, run_date

if TYPE_CHECKING:
    from bizllm.jobs.submission import Submission
    from bizllm.jobs.submit import Parcel


def submit(
    path: str,
    *,
    address: str | None = None,
    date: str | None = None,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    resume: str | None = None,
    working_dir: str | None = None,
    code: bool = False,
    wait: bool = False,
    sent: Callable[[Submission], None] = lambda _: None,
    line: Callable[[str], None] = lambda _: None,
) -> Submission:
    """Run a job, or a training, on a cluster through Ray's Jobs API: checked here first, then sent with its folder.

    address: http://HEAD:8265, else RAY_API_SERVER_ADDRESS. date and only are for jobs, resume (a run that died) for
    trainings. working_dir: what is sent; by default the file's folder. code: send this bizllm too. wait: until the end,
    with every line that it prints to `line`. sent: called when the cluster has it. Raises UserError where the file is
    wrong or the cluster lets nobody in, RunError where the cluster loses the job, Cancelled on Ctrl-C once it is sent,
    which the job does not hear.
    """
    from bizllm.jobs.follow import follow, goes_on
    from bizllm.jobs.submit import send

    parcel = _parcel(path, date, sets, only, resume)
    submission, client = send(parcel, address, working_dir=working_dir, code=code)
    try:
        sent(submission)
        return follow(submission, client, line) if wait else submission
    except KeyboardInterrupt:
        raise goes_on(submission) from None


def _parcel(path: str, date: str | None, sets: Sequence[str], only: Sequence[str], resume: str | None) -> Parcel:
    from bizllm.jobs import submit
    from bizllm.jobs.training_file import is_training_file, load_recipe

    if not is_training_file(path):
        if resume is not None:
            raise UserError(Fault("--resume", resume, f"is for trainings; {path} is a job, which resumes by itself"))
        loaded = load_job(path, sets)
        return submit.night(loaded, run_date(loaded.job, date, datetime.now(UTC)), sets, only)
    asked = {"--date": date, "--only": ", ".join(only) or None}
    faults = [Fault(flag, given, f"is for jobs; {path} is a training file") for flag, given in asked.items() if given]
    if faults:
        raise UserError(*faults)
    return submit.training(load_recipe(path, sets), sets, resume)


def stop(run: str, *, address: str | None = None) -> dict[str, Any]:
    """End what a cluster runs, and wait until it has ended; tables stay as they were.

    run: a submission's id, or the run_id of a run that a Ray job made. Returns submission_id, job, date, state, stopped
    (whether this ended it), killed (whether its driver may have had no time to end by itself), seconds and the last
    `lines` that it printed. Raises UserError where the cluster knows no such run.
    """
    from bizllm.jobs.stop import stop as stop_job

    return stop_job(run, address).to_dict()
