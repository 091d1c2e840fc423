"""What a training keeps under its run's URL, and which of it is whole. No Ray in it.

ray/LAUNCH/CHECKPOINT/  state.json, shards/, worker-00000.done …: it counts once every worker has marked it
ray/group               the workers that count now, see `Group`
best/best-STEP-GROUP/   the best weights; a checkpoint, and the training's summary, say which
work/                   the frozen input (see `work`)

Workers on a machine that was cut off the network may live on, and write, while others have taken their place. So
nothing here is written twice under one name, nobody deletes what others made, and a result names what it stands on.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables import storage
from bizllm.tables.urls import local_path
from bizllm.train.checkpoint import STATE, disk_space

CHECKPOINTS = "ray"
BEST = "best"
WORK = "work"
GROUP = "group"
NEWEST = 2  # checkpoints that stay: the newest, and the one before it

_CHUNK = 64 << 20  # bytes


@dataclass(frozen=True)
class Kept:
    """A whole checkpoint. best: name of the best weights by then; empty where there were none."""

    url: str
    step: int
    workers: int
    best: str


def checkpoints(run_url: str) -> list[Kept]:
    """Those that every worker has finished, the newest last. What an upload or a kill left in between is not named."""
    top = storage.join(run_url, CHECKPOINTS)
    inside: dict[str, set[str]] = defaultdict(set)
    for path in _paths(top):
        folder, _, name = path.rpartition("/")
        inside[folder].add(name)
    found = []
    for folder, names in inside.items():
        if STATE in names and done_name(0) in names:  # the first worker writes the state before its mark
            state = json.loads(storage.read_bytes(storage.join(top, folder, STATE)))
            if all(done_name(rank) in names for rank in range(state["workers"])):
                url = storage.join(top, folder)
                found.append(Kept(url, state["step"], state["workers"], state["best"]))
    return sorted(found, key=lambda kept: kept.step)


def newest(run_url: str) -> Kept | None:
    """The checkpoint to go on from."""
    return next(reversed(checkpoints(run_url)), None)


def drop_old(run_url: str, best: str | None = None) -> None:
    """Delete all checkpoints but the newest ones, and what killed trainings left unfinished. Nobody may be training.

    best: the only weights that stay; without it those that the checkpoints name.
    """
    top = storage.join(run_url, CHECKPOINTS)
    whole = checkpoints(run_url)[-NEWEST:]
    stay = {"/".join(kept.url.split("/")[-2:]) for kept in whole}  # LAUNCH/CHECKPOINT
    used = {name.partition("/")[0] for name in stay}
    parts = [path.split("/") for path in _paths(top)]
    old = {part[0] for part in parts if len(part) > 1} - used
    old |= {"/".join(part[:2]) for part in parts if part[0] in used and len(part) > 2} - stay
    for name in old:
        storage.delete_tree(storage.join(top, name))
    weights = storage.join(run_url, BEST)
    named = {kept.best for kept in whole} if best is None else {best}
    for name in {path.partition("/")[0] for path in _paths(weights)} - named:
        storage.delete_tree(storage.join(weights, name))


def done_name(rank: int) -> str:
    """The file by which a worker says that its part of a checkpoint is there."""
    return f"worker-{rank:05d}.done"


# -- the workers that count ----------------------------------------------------------------------------------------


class Group:
    """Workers that train together, from a start to the next. The one that began last counts; those before it may live
    on where they were cut off, until they look."""

    def __init__(self, run_url: str, name: str) -> None:
        self.run_url, self.name = run_url, name
        self._made: list[str] = []

    @classmethod
    def begin(cls, run_url: str) -> Group:
        """Another group counts from now on."""
        group = cls(run_url, uuid.uuid4().hex[:8])
        storage.write_bytes(storage.join(run_url, CHECKPOINTS, GROUP), group.name.encode())
        return group

    def check(self) -> None:
        """Raises RunError where another group has begun."""
        if storage.read_bytes(storage.join(self.run_url, CHECKPOINTS, GROUP)).decode() != self.name:
            raise RunError("other workers have taken this training over: these were thought lost")

    def keep_best(self, folder: Path, name: str) -> None:
        """Upload a folder, and delete what this group kept before the one before: that one is a checkpoint's still."""
        self.check()
        upload(folder, storage.join(self.run_url, BEST, name))
        self._made.append(name)
        self.check()
        for old in self._made[:-2]:
            storage.delete_tree(storage.join(self.run_url, BEST, old))
        del self._made[:-2]


def best(run_url: str, name: str) -> str | None:
    """URL of the folder with the best weights of that name; None where the name is empty."""
    return storage.join(run_url, BEST, name) if name else None


def _paths(url: str) -> list[str]:
    """The files below a folder, relative to it."""
    listed = (local_path(url) if storage.is_local(url) else url).rstrip("/")
    return [file.url[len(listed) + 1 :] for file in storage.list_files(url)]


# -- whole folders ------------------------------------------------------------------------------------------------


def upload(folder: Path, url: str) -> None:
    """Copy a local folder to a URL. A store that fails is asked again, a few times; a full disk is told at once."""

    def copy() -> None:
        store, path = storage.filesystem(url)
        with disk_space(Path(url)):
            store.create_dir(path)
            # pyarrow's threads may lock each other up where files are uploaded to S3.
            fs.copy_files(str(folder), path, None, store, chunk_size=_CHUNK, use_threads=storage.is_local(url))

    storage.again(url, "write", copy)


def download(url: str, folder: Path) -> None:
    """Copy what lies under a URL to a new local folder."""
    folder.mkdir(parents=True)

    def copy() -> None:
        store, path = storage.filesystem(url)
        with disk_space(folder):
            fs.copy_files(path, str(folder), store, fs.LocalFileSystem(), chunk_size=_CHUNK)

    storage.again(url, "read", copy)
