"""Jobs, trainings and compressions on a cluster, through Ray's Jobs API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from bizllm.api.nights import catch_up_dates, check_catch_up
from bizllm.errors import Fault, UserError
from bizllm.jobs.job import load_job, run_date

if TYPE_CHECKING:
    from bizllm.jobs.submission import Submission
    from bizllm.jobs.submit import Parcel

Kind = Literal["job", "training", "compress"]
_NAMES: dict[Kind, tuple[str, str]] = {
    "job": ("jobs", "a job"),
    "training": ("trainings", "a training file"),
    "compress": ("compress files", "a compress file"),
}
_FOR: dict[str, Kind] = {"--resume": "training", "--model": "compress"}  # other flags are for jobs


def submit(
    path: str,
    *,
    address: str | None = None,
    date: str | None = None,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    catch_up: bool = False,
    since: str | None = None,
    most: int | None = None,
    resume: str | None = None,
    model: str | None = None,
    working_dir: str | None = None,
    code: bool = False,
    wait: bool = False,
    sent: Callable[[Submission], None] = lambda _: None,
    line: Callable[[str], None] = lambda _: None,
) -> Submission:
    """Run a job, a training or a compression on a cluster through Ray's Jobs API: checked here first, then sent with
    its folder.

    address: http://HEAD:8265, else RAY_API_SERVER_ADDRESS. date and only are for a job's night; catch_up runs those
    that are missing instead, with since and most as of `bizllm.catch_up`. resume (a run that died) is for trainings,
    model (the URI of the teacher) for compress files. working_dir: what is sent; by default the file's folder. code:
    send this bizllm too. wait: until the end, with every line that it prints to `line`. sent: called when the cluster
    has it. Raises UserError where the file is wrong or the cluster lets nobody in, RunError where the cluster loses the
    job, Cancelled on Ctrl-C once it is sent, which the job does not hear.
    """
    from bizllm.jobs.follow import follow, goes_on
    from bizllm.jobs.submit import send

    night: dict[str, object] = {"--date": date, "--only": ", ".join(only) or None}
    bounds: dict[str, object] = {"--since": since, "--most": most}
    others: dict[str, object] = {"--catch-up": catch_up or None, "--resume": resume, "--model": model}
    kind = _checked_kind(path, night | bounds | others)
    if kind == "training":
        parcel = _training(path, sets, resume)
    elif kind == "compress":
        parcel = _compression(path, sets, model)
    else:
        check_catch_up(catch_up, night, bounds)
        parcel = _catch_up(path, sets, since, most) if catch_up else _night(path, sets, date, only)
    submission, client = send(parcel, address, working_dir=working_dir, code=code)
    try:
        sent(submission)
        return follow(submission, client, line) if wait else submission
    except KeyboardInterrupt:
        raise goes_on(submission) from None


def _checked_kind(path: str, given: Mapping[str, object]) -> Kind:
    """Which file it is. Raises UserError where flags are given that are for others."""
    from bizllm.jobs.training_file import is_compression_file, is_training_file

    kind: Kind = "job"
    if is_compression_file(path):
        kind = "compress"
    elif is_training_file(path):
        kind = "training"
    faults = []
    for flag, value in given.items():
        of = _FOR.get(flag, "job")
        if value is not None and of != kind:
            also = ", which resumes by itself" if (flag, kind) == ("--resume", "job") else ""
            said = f"is for {_NAMES[of][0]}; {path} is {_NAMES[kind][1]}{also}"
            faults.append(Fault(flag, None if value is True else value, said))
    if faults:
        raise UserError(*faults)
    return kind


def _night(path: str, sets: Sequence[str], date: str | None, only: Sequence[str]) -> Parcel:
    from bizllm.jobs.submit import night

    loaded = load_job(path, sets)
    return night(loaded, run_date(loaded.job, date, datetime.now(UTC)), sets, only)


def _catch_up(path: str, sets: Sequence[str], since: str | None, most: int | None) -> Parcel:
    from bizllm.jobs.submit import catch_up

    loaded = load_job(path, sets)
    first, _ = catch_up_dates(loaded, since, most)
    return catch_up(loaded, first, most, sets)


def _training(path: str, sets: Sequence[str], resume: str | None) -> Parcel:
    from bizllm.jobs.submit import training
    from bizllm.jobs.training_file import load_recipe

    return training(load_recipe(path, sets), sets, resume)


def _compression(path: str, sets: Sequence[str], model: str | None) -> Parcel:
    from bizllm.jobs.submit import compression
    from bizllm.jobs.training_file import load_compression

    if model is None:
        expected = f"expected the model that {path} makes smaller, such as registry:NAME@champion"
        raise UserError(Fault("--model", None, expected))
    return compression(load_compression(path, sets), model, sets)


def stop(run: str, *, address: str | None = None) -> dict[str, Any]:
    """End what a cluster runs, and wait until it has ended; tables stay as they were.

    run: a submission's id, or the run_id of a run that a Ray job made. Returns submission_id, job, date, state, stopped
    (whether this ended it), killed (whether its driver may have had no time to end by itself), seconds and the last
    `lines` that it printed. Raises UserError where the cluster knows no such run.
    """
    from bizllm.jobs.stop import stop as stop_job

    return stop_job(run, address).to_dict()
