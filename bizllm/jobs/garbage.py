"""`bizllm gc`: what no snapshot and no unfinished run needs any more is removed.

A file is garbage where it lies in a folder of the job's tables, no snapshot that stays needs it, no receipt of an
unfinished run names it, and it is older than the given age. The age keeps what a run under way has just written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from bizllm import logs
from bizllm.errors import Fault, UserError
from bizllm.infer.kept_engines import FILE
from bizllm.infer.receipts import Receipt
from bizllm.jobs.job import LoadedJob
from bizllm.models.engines.choice import Choice
from bizllm.tables import storage
from bizllm.tables.storage import FileInfo
from bizllm.tables.upkeep import KEPT_BESIDE, expirable, expire, needed_files, same_file
from bizllm.tables.warehouse import Warehouse

_log = logs.get(__name__)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
LEAST_AGE = timedelta(hours=1)

ENGINE_AGE = timedelta(days=30)  # then the engine is chosen anew, on rows of the day

What = Literal["file", "state", "upload", "engine", "vectors"]


@dataclass(frozen=True)
class Garbage:
    """what: a file of a table, one of an unfinished run that was given up, an upload that never ended, a choice of
    engine that is old, or vectors that several steps read."""

    what: What
    file: FileInfo

    @property
    def url(self) -> str:
        """Where it is, or would be."""
        return self.file.url

    @property
    def bytes(self) -> int:
        """Its size; 0 of an upload, whose parts no store counts."""
        return self.file.size


@dataclass(frozen=True)
class Cleaned:
    """expired: snapshots that were forgotten, by table. left: folders that were not looked into, and why."""

    dry_run: bool
    before: datetime
    expired: dict[str, int]
    removed: list[Garbage]
    left: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dry_run": self.dry_run,
            "before": self.before.isoformat(),
            "expired": self.expired,
            "files": len(self.removed),
            "bytes": sum(one.bytes for one in self.removed),
            "removed": [{"what": one.what, "url": one.url, "bytes": one.bytes} for one in self.removed],
            "left": self.left,
        }


def age(text: str, place: str = "--older-than") -> timedelta:
    """`7d`, `12h` or `2w`. Raises UserError; an hour is the least, since a run may be under way."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", text, re.ASCII)
    if not found:
        raise UserError(Fault(place, text, "expected an age such as 12h, 7d or 2w"))
    said = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if said < LEAST_AGE:
        raise UserError(Fault(place, text, "expected at least 1h: a run that is under way writes files, too"))
    return said


def collect(loaded: LoadedJob, older_than: timedelta, *, dry_run: bool = False) -> Cleaned:
    """Expire old snapshots, then remove garbage; or tell what would go. Raises RunError."""
    job = loaded.job
    warehouse = Warehouse(job.warehouse)
    now = datetime.now(UTC)
    before = now - older_than
    expired: dict[str, int] = {}
    left: dict[str, str] = {}
    garbage: list[Garbage] = []
    state = storage.join(warehouse.path, "_bizllm", job.name, "state")
    locks = storage.join(warehouse.path, "_bizllm", job.name, "locks")
    # The holder of a lock writes it anew every so often, however long a unit takes.
    held = {lock.url.rsplit("/", 2)[-2] for lock in storage.list_files(locks) if lock.modified >= before.timestamp()}
    alive, given_up = _states(state, before.timestamp(), held)
    garbage += given_up
    garbage += _engines(storage.join(warehouse.path, "_bizllm", job.name, "engines"), before, now - ENGINE_AGE)
    vectors = storage.list_files(storage.join(warehouse.path, "_bizllm", job.name, "vectors"))
    garbage += [Garbage("vectors", file) for file in vectors if file.modified < before.timestamp()]
    known = warehouse.tables(job.name)
    for name in dict.fromkeys([*known, *(n for step in job.steps for n in (step, f"{step}__rejects")), "runs"]):
        folder = warehouse.table_location(job.name, name)
        # Listed before it is asked what is needed: what a run publishes meanwhile is not in the list.
        files = [file for file in storage.list_files(folder) if file.modified < before.timestamp()]
        needed = set(alive)
        table = warehouse.load(job.name, name) if name in known else None
        if table is not None:
            gone = expirable(table, now)
            if gone and not dry_run:
                gone = expire(warehouse, job.name, name, now)
                table = warehouse.load(job.name, name)
                assert table is not None
            if gone:
                expired[name] = len(gone)
            needed |= {same_file(url) for url in needed_files(table, without=gone)}
        elif any(file.url.endswith(".metadata.json") for file in storage.list_files(folder)):
            left[folder] = "holds a table that this catalog doesn't know"
            continue
        garbage += [Garbage("file", file) for file in files if same_file(file.url) not in needed]
        garbage += _uploads(folder, before.timestamp())
    garbage += _uploads(state, before.timestamp())
    if not dry_run:
        for one in garbage:
            storage.abort_upload(one.file) if one.what == "upload" else storage.delete(one.url)
    _log.info("gc", job=job.name, dry_run=dry_run, files=len(garbage), expired=sum(expired.values()))
    return Cleaned(dry_run, before, expired, garbage, left)


def _states(url: str, before: float, held: set[str]) -> tuple[set[str], list[Garbage]]:
    """(files that receipts of unfinished runs name, files of runs that were given up: nothing in them is newer).

    held: dates whose lock was held of late: a run may be under way, in a unit that takes long.
    """
    folders: dict[str, list[FileInfo]] = {}
    for file in storage.list_files(url):
        day, step = file.url[len(same_file(url)) :].strip("/").split("/")[:2]
        folders.setdefault(f"{day}/{step}", []).append(file)
    alive: set[str] = set()
    given_up: list[Garbage] = []
    for name, files in folders.items():
        if name.partition("/")[0] not in held and max(file.modified for file in files) < before:
            given_up += [Garbage("state", file) for file in files]
        else:
            alive |= {same_file(named) for file in files for named in _named(file.url)}
    return alive, given_up


def _engines(url: str, before: datetime, chosen_before: datetime) -> Iterator[Garbage]:
    """Old choices of engines, and converted networks that none names: of a choice that another took the place of.

    A worker that finds a network gone computes by torch.
    """
    files = storage.list_files(url)
    choices = {file.url.rpartition("/")[0]: file for file in files if file.url.endswith(f"/{FILE}")}
    for file in files:
        choice = choices.get(file.url.rpartition("/")[0]) or choices.get(file.url.rsplit("/", 2)[0])
        named = choice is not None and (file is choice or f"/{_kept_folder(choice.url)}/" in file.url)
        oldest = chosen_before if choice is not None and named else before
        if (choice.modified if choice is not None and named else file.modified) < oldest.timestamp():
            yield Garbage("engine", file)


def _kept_folder(url: str) -> str:
    return Choice.from_json(storage.read_bytes(url)).files


def _named(url: str) -> Iterator[str]:
    if "/receipts/" in url and url.endswith(".json"):
        try:
            receipt = Receipt.from_json(storage.read_bytes(url))
        except FileNotFoundError:
            return  # the run ended meanwhile
        yield from (file.url for file in (*receipt.files, *receipt.reject_files))
        yield from (receipt.extra[kept] for kept in KEPT_BESIDE if kept in receipt.extra)


def _uploads(folder: str, before: float) -> list[Garbage]:
    return [Garbage("upload", file) for file in storage.unfinished_uploads(folder) if file.modified < before]
