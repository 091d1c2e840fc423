"""Choices of engines in the warehouse: `FOLDER/choice.json`, and beside it the converted network that it names."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from bizllm.models.cache import default_cache, filled_once
from bizllm.models.engines.choice import Choice
from bizllm.tables import storage
from bizllm.tables.urls import local_path

FILE = "choice.json"
FORMAT = 2  # of what converted networks give: 2, pooled vectors without their head
_BLOCK = 8 << 20


@dataclass(frozen=True)
class Kept:
    """A choice that stands in the warehouse. url: of its folder."""

    url: str
    choice: Choice

    def folder(self) -> Path | None:
        """Where the converted network is on this machine, downloaded once; None where there is none (any more).

        Safe where several processes ask at once.
        """
        if not self.choice.files:
            return None
        url = storage.join(self.url, self.choice.files)
        if storage.is_local(url):
            return Path(local_path(url)) if storage.exists(url) else None
        target = default_cache("engines") / hashlib.sha256(url.encode()).hexdigest()[:32]
        if target.is_dir():
            return target
        files = storage.list_files(url)

        def fill(part: Path) -> Path:
            for file in files:
                to = part / file.url.rpartition("/")[2]
                with storage.open_input(file.url) as source, to.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _BLOCK)
            return part

        return target if files and filled_once(target, fill) else None


def folder_of(root: str, content_hash: str, engine: str, precision: str) -> str:
    """Where the choice for a model and a wish is kept, below a step's folder of choices."""
    return storage.join(root, f"{content_hash[:16]}-{engine}-{precision}-{FORMAT}")


def keep(url: str, choice: Choice, work: Path) -> Kept:
    """Upload what `choose` made in `work`, then the choice; whoever reads sees the one before or this one, whole."""
    if choice.files:
        name = f"{choice.files}-{uuid.uuid4().hex[:8]}"
        for file in sorted((work / choice.files).iterdir()):
            target = storage.join(url, name, file.name)
            with file.open("rb") as source, storage.explained(target, "write"), storage.open_output(target) as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
        choice = replace(choice, files=name)
    storage.write_bytes(storage.join(url, FILE), choice.to_json().encode())
    return Kept(url, choice)


def kept(url: str) -> Kept | None:
    """The choice that stands there."""
    file = storage.join(url, FILE)
    return Kept(url, Choice.from_json(storage.read_bytes(file))) if storage.exists(file) else None
