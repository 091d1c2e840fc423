"""What a training keeps under its run's URL, and which of it is whole. No Ray in it.

ray/LAUNCH/CHECKPOINT/  state.json, shards/, worker-00000.done …: a checkpoint counts when every worker has marked it
best/best-STEP/         the best weights; best/latest names the folder that counts
work/                   the frozen input (see `work`)
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from bizllm.tables import storage
from bizllm.tables.urls import local_path
from bizllm.train.checkpoint import STATE, disk_space

CHECKPOINTS = "ray"
BEST = "best"
WORK = "work"
LATEST = "latest"
NEWEST = 2  # checkpoints that stay: the newest, and the one before it

_CHUNK = 64 << 20  # bytes


@dataclass(frozen=True)
class Kept:
    """A whole checkpoint. best_step: of the best weights by then; 0 where there were none."""

    url: str
    step: int
    workers: int
    best_step: int


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
                found.append(Kept(url, state["step"], state["workers"], state["watch"]["best_step"]))
    return sorted(found, key=lambda kept: kept.step)


def newest(run_url: str) -> Kept | None:
    """The checkpoint to go on from."""
    return next(reversed(checkpoints(run_url)), None)


def drop_old(run_url: str) -> None:
    """Delete all checkpoints but the newest ones, and what killed trainings left unfinished. Nobody may be training."""
    top = storage.join(run_url, CHECKPOINTS)
    stay = {"/".join(kept.url.split("/")[-2:]) for kept in checkpoints(run_url)[-NEWEST:]}  # LAUNCH/CHECKPOINT
    used = {name.partition("/")[0] for name in stay}
    parts = [path.split("/") for path in _paths(top)]
    old = {part[0] for part in parts} - used
    old |= {"/".join(part[:2]) for part in parts if part[0] in used and len(part) > 2} - stay
    for name in old:
        storage.delete_tree(storage.join(top, name))


def done_name(rank: int) -> str:
    """The file by which a worker says that its part of a checkpoint is there."""
    return f"worker-{rank:05d}.done"


# -- the best weights ---------------------------------------------------------------------------------------------


def keep_best(run_url: str, folder: Path) -> None:
    """Upload a folder named `best-STEP`, let it count, and delete all others but the one that counted before."""
    top = storage.join(run_url, BEST)
    before = _pointed(run_url)
    upload(folder, storage.join(top, folder.name))
    storage.write_bytes(storage.join(top, LATEST), folder.name.encode())
    others = {path.partition("/")[0] for path in _paths(top)}
    for name in others - {folder.name, before, LATEST}:
        storage.delete_tree(storage.join(top, name))


def point_best(run_url: str, step: int) -> None:
    """Let the best weights of that step count: those that a checkpoint knows which training goes on from."""
    top = storage.join(run_url, BEST)
    name = f"best-{step}"
    if _pointed(run_url) != name and storage.exists(storage.join(top, name)):
        storage.write_bytes(storage.join(top, LATEST), name.encode())


def best(run_url: str) -> str | None:
    """URL of the folder with the best weights."""
    name = _pointed(run_url)
    return storage.join(run_url, BEST, name) if name else None


def _pointed(run_url: str) -> str | None:
    try:
        return storage.read_bytes(storage.join(run_url, BEST, LATEST)).decode()
    except FileNotFoundError:
        return None


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
