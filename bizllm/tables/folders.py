"""Whole folders between this machine and a store, such as a model or a training's frozen input."""

from __future__ import annotations

import shutil
from pathlib import Path

from bizllm.errors import RunError
from bizllm.tables import storage


def at_hand(url: str, copy: Path) -> Path:
    """The folder on this machine: itself where it is local, else a copy made at `copy`. Raises RunError."""
    if storage.is_local(url):
        return Path(url.removeprefix("file://"))
    files = storage.list_files(url)
    if not files:
        raise RunError(f"{url}: nothing there")
    for file in files:
        target = copy / file.url.removeprefix(url.rstrip("/") + "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_input(file.url) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 22)
    return copy


def upload(folder: Path, url: str) -> None:
    """Copy every file of a folder to the URL, which may be local too."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with (
                file.open("rb") as source,
                storage.open_output(storage.join(url, file.relative_to(folder).as_posix())) as sink,
            ):
                shutil.copyfileobj(source, sink, 1 << 22)
