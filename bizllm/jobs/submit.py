"""A night, a catch-up, a training or a compression through Ray's Jobs API: checked here, then sent with its folder, and
with bizllm itself if asked.

What runs on the cluster is `python -m bizllm.cli`, so its exit status is bizllm's own. What Ray keeps of it are this
command, hashes, and the file as it is written: `${VARIABLE}` is filled in by the cluster, from its own environment.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs import ray_jobs
from bizllm.jobs.code import PACKAGE, Code, code_of
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.submission import Submission, Verb
from bizllm.jobs.submitted import RESULTS, new_submission_id
from bizllm.jobs.training_file import LoadedCompression, LoadedRecipe
from bizllm.jobs.yaml_places import Document, dotted
from bizllm.models.load import check as check_model

# How long Ray waits between SIGTERM and SIGKILL; 3 s by itself, which is less than the units at work are given.
STOP_GRACE_S = 60
STOP_GRACE = "RAY_JOB_STOP_WAIT_TIME_S"

# Besides what the folder's .gitignore and .rayignore name.
EXCLUDED = [".git/", ".venv/", "/out/", "__pycache__/", ".mypy_cache/", ".ruff_cache/", ".pytest_cache/"]


@dataclass(frozen=True)
class Parcel:
    """What is to be sent. options: of the verb, after the file. faults: what is wrong with them. model: the teacher of
    a compression."""

    name: str
    path: str
    document: Document
    verb: Verb
    date: date | None
    options: tuple[str, ...]
    faults: tuple[Fault, ...] = ()
    model: str | None = None

    @property
    def folder(self) -> Path:
        """Where the file lies."""
        return Path(os.path.abspath(self.path)).parent.resolve()


def night(loaded: LoadedJob, run_date: date, sets: Sequence[str], only: Sequence[str]) -> Parcel:
    """A job for a date."""
    steps = loaded.job.steps
    faults = tuple(
        Fault("--only", name, f"no such step: the job has {', '.join(steps)}", nearest(name, steps))
        for name in only
        if name not in steps
    )
    options = ("--date", run_date.isoformat(), *_each("--only", only), *_each("--set", sets))
    return Parcel(loaded.job.name, loaded.path, loaded.document, "run", run_date, options, faults)


def catch_up(loaded: LoadedJob, since: date | None, most: int | None, sets: Sequence[str]) -> Parcel:
    """The nights of a job that are missing, whichever these are when it runs."""
    bounds = _each("--since", [since.isoformat()] if since else []) + _each("--most", [str(most)] if most else [])
    options = ("--catch-up", *bounds, *_each("--set", sets))
    return Parcel(loaded.job.name, loaded.path, loaded.document, "catch_up", None, options)


def training(loaded: LoadedRecipe, sets: Sequence[str], resume: str | None) -> Parcel:
    """A training, or one that goes on."""
    options = (*(("--resume", resume) if resume else ()), *_each("--set", sets))
    return Parcel(loaded.recipe.name, loaded.path, loaded.document, "finetune", None, options)


def compression(loaded: LoadedCompression, model: str, sets: Sequence[str]) -> Parcel:
    """Smaller models of a model, whose URI it is."""
    if model.startswith("path:"):
        model = f"path:{os.path.expanduser(model.removeprefix('path:'))}"
    named = re.sub(r"[^\w.-]", "-", re.split("[:/]", model.partition("@")[0].rstrip("/"))[-1])
    name, options = loaded.compression.name or named, _each("--set", sets)
    return Parcel(name, loaded.path, loaded.document, "compress", None, options, model=model)


def _each(flag: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (flag, value))


def send(
    parcel: Parcel, address: str | None, *, working_dir: str | None = None, code: bool = False
) -> tuple[Submission, Any]:
    """Send it and the folder that its file lies in. Returns it with the client that `follow` takes.

    address: http://HEAD:8265, else RAY_API_SERVER_ADDRESS. working_dir: the folder to send; the file's by default.
    code: send this bizllm too; else the cluster's runs, where it has the same version. Raises UserError before anything
    is sent where it can't work elsewhere, nobody answers or the token is wrong.
    """
    folder = Path(working_dir).resolve() if working_dir else parcel.folder
    _check(parcel, folder, working_dir)
    words = _words(parcel, folder)
    own, package = _code(folder, code)
    url = ray_jobs.checked_address(address)
    client = ray_jobs.connect(url)
    by = ("--sent-by", str(own), *(("--exactly",) if package else ()))
    submission = Submission(
        new_submission_id(f"{parcel.name}-{parcel.date or parcel.verb.replace('_', '-')}"),
        url,
        parcel.name,
        parcel.date,
        parcel.verb,
        code=str(own),
        code_from="sent" if package else "cluster",
        warnings=tuple(_warnings(parcel)),
    )
    runtime_env: dict[str, Any] = {
        "working_dir": str(folder),
        "excludes": EXCLUDED,
        "env_vars": {STOP_GRACE: str(STOP_GRACE_S)},
    }
    if package and package.parent != folder:
        runtime_env["py_modules"] = [str(package)]
    with ray_jobs.refusals(url, f"send {parcel.name}"), ray_jobs.quiet():
        client.submit_job(
            entrypoint=shlex.join(["python", "-m", "bizllm.cli", *by, *words]),
            submission_id=submission.submission_id,
            runtime_env=runtime_env,
            metadata=submission.metadata(),
        )
    return submission, client


def _words(parcel: Parcel, folder: Path) -> list[str]:
    """The command line there, whose working directory is the copy of the folder. Raises UserError."""
    script = (parcel.folder / Path(parcel.path).name).relative_to(folder)
    verb = "run" if parcel.verb == "catch_up" else parcel.verb
    model = [] if parcel.model is None else [_model(parcel.model, folder)]
    return [verb, *model, str(script), *parcel.options]


def _model(uri: str, folder: Path) -> str:
    """The teacher as the cluster finds it. Raises UserError."""
    check_model(uri, place="--model")
    kind, _, path = uri.partition(":")
    if kind != "path" or os.path.isabs(path):
        return uri
    full = Path(path).resolve()
    if not full.is_relative_to(folder):
        way_out = "give a registered model, or --working-dir DIR that holds it"
        raise UserError(Fault("--model", uri, f"lies outside the folder that is sent, {folder}", way_out))
    return f"path:{full.relative_to(folder)}"


def _code(folder: Path, send: bool) -> tuple[Code, Path | None]:
    """(the bizllm that must run there, its folder where that is sent).

    A bizllm in the folder that is sent is taken before any other, by the driver and by every worker.
    """
    inside = folder / "bizllm"
    if not (inside / "__init__.py").is_file():
        return code_of(), PACKAGE.resolve() if send else None
    found = code_of(inside)
    if send and found != code_of():
        what = (
            f"{inside} is another bizllm ({found}) than the one that runs here ({code_of()}), and would be taken first"
        )
        raise UserError(Fault("--code", None, what, "leave --code away to run that one"))
    return found, inside


# -- what can't work elsewhere ------------------------------------------------------------------------------------


def _check(parcel: Parcel, folder: Path, given: str | None) -> None:
    document, faults = parcel.document, list(parcel.faults)
    if not folder.is_dir():
        faults.append(Fault("--working-dir", given, "no such folder"))
    elif not parcel.folder.is_relative_to(folder):
        faults.append(Fault("--working-dir", given, f"does not hold {parcel.path}"))
    for keys in sorted(document.relative, key=str):
        text = str(document.at(*keys)).removeprefix("path:").removeprefix("sqlite:///")
        place, shown = document.place(*keys), document.shown(keys)
        if keys in RESULTS:
            expected = "is a local path without a root: it would lie in the copy of the folder that Ray deletes"
            hint = f"use a URL such as s3://bucket/{keys[0]}, or an absolute path that every node sees"
            faults.append(Fault(place, shown, expected, hint))
        elif document.folder_of(*keys).resolve() != parcel.folder and Path.cwd().resolve() != folder:
            expected = f"is relative to {Path.cwd()}, which is not the folder that is sent"
            faults.append(Fault(place, shown, expected, "give a URL, or --working-dir ."))
        elif not Path(text).resolve().is_relative_to(folder):
            expected = f"lies outside the folder that is sent, {folder}"
            faults.append(Fault(place, shown, expected, "give a URL, or --working-dir DIR that holds it"))
        elif not os.path.exists(text):
            faults.append(Fault(place, shown, "no such file or folder in the folder that is sent"))
    if faults:
        raise UserError(*faults)


def _warnings(parcel: Parcel) -> Iterator[str]:
    """What the nodes have to have of their own."""
    document = parcel.document
    if parcel.model and os.path.isabs(parcel.model.removeprefix("path:")):
        yield f"--model: {parcel.model} is a local path; every node must see the same there"
    for keys in sorted(document.rooted, key=str):
        yield f"{document.place(*keys)}: {document.shown(keys)} is a local path; every node must see the same there"
    for place in document.from_environment():
        sent = "" if place[0] == "notify" else f"; `--set {dotted(place)}=…` sends one"
        yield (
            f"{document.place(*place)}: {document.shown(place)} takes its value from the environment of the cluster,"
            f" not of this machine{sent}"
        )
