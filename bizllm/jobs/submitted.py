"""What a process knows that a Ray cluster runs as a submitted job: the submission, and that its folder is a copy.

A run's id tells its submission's, without a table of both anywhere: inside a Ray job its last part begins with the
submission's mark, so that `bizllm stop RUN` finds the job among those of the cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from datetime import UTC, datetime
from typing import Any

from bizllm.errors import Fault, UserError
from bizllm.jobs.yaml_places import Document, Keys
from bizllm.tables.urls import is_local, local_path

# Settings of a job or a training file that name a place where results stay.
RESULTS: tuple[Keys, ...] = (("warehouse", "path"), ("warehouse", "uri"), ("registry",), ("output",))

_COPY = re.compile(r"^(path:)?/.*/working_dir_files/_ray_pkg_[0-9a-f]+/")  # where Ray unpacks a folder that was sent
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the process of a job, and for no other
_MARK = 6  # hexadecimal digits
_RUN_ID = re.compile(r"(?P<time>\d{8}T\d{6})-(?P<mark>[0-9a-f]{6})(?P<own>[0-9a-f]{6})?", re.ASCII)


def in_ray_job() -> bool:
    """Whether this process is the entrypoint of a job that was submitted to a Ray cluster."""
    return _JOB in os.environ


def submission() -> str | None:
    """The submission's id; None outside a Ray job."""
    try:
        name = json.loads(os.environ[_JOB])["metadata"]["job_submission_id"]
    except (KeyError, TypeError, ValueError):
        return None
    return str(name)


def new_run_id() -> str:
    """`20260630T013000-a1b2c3`: the time in UTC and chance; inside a Ray job its submission's mark before chance."""
    name = submission()
    mark = mark_of(name) if name else ""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{mark}{secrets.token_hex(3)}"


def new_submission_id(name: str) -> str:
    """`NAME-a1b2c3`, whose end is its mark."""
    return f"{name}-{secrets.token_hex(_MARK // 2)}"


def mark_of(submission_id: str) -> str:
    """Six hexadecimal digits by which runs tell their submission: its own end, or a hash of an id that others gave."""
    own = re.search(r"-([0-9a-f]{6})$", submission_id, re.ASCII)
    return own[1] if own else hashlib.sha256(submission_id.encode()).hexdigest()[:_MARK]


def mark_in(run_id: str) -> str | None:
    """The mark of the submission that made the run. None where it is no run's id, empty where no Ray job made it."""
    found = _RUN_ID.fullmatch(run_id)
    if found is None:
        return None
    return found["mark"] if found["own"] else ""


def refuse_copies(document: Document) -> None:
    """Inside a Ray job the working folder is a copy that Ray deletes: results in it would be lost. Raises UserError."""
    faults = [
        Fault(
            document.place(*keys),
            document.shown(keys),
            "lies in the job's working folder, which Ray deletes when the job ends",
            f"use a URL such as s3://bucket/{keys[0]}, or an absolute path that every node sees",
        )
        for keys in RESULTS
        if isinstance(text := document.at(*keys), str)
        if is_local(path := text.removeprefix("sqlite:///"))
        if keys in document.relative or local_path(path).startswith(os.getcwd() + os.sep)
    ]
    if in_ray_job() and faults:
        raise UserError(*faults)


def outside_copies(value: Any) -> Any:
    """The same settings, with paths into a copy of a folder that was sent as paths in that folder: each cluster, and
    each content, has another copy."""
    if isinstance(value, dict):
        return {key: outside_copies(item) for key, item in value.items()}
    if isinstance(value, list):
        return [outside_copies(item) for item in value]
    return _COPY.sub(r"\1", value) if isinstance(value, str) else value
