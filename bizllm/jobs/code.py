"""Which bizllm it is that runs: its version, and a hash of its files. A job says by which one it was sent."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from bizllm.errors import Fault, UserError

PACKAGE = Path(__file__).parents[1]
_SAID = re.compile(r"(?P<version>[\w.!+-]+)/(?P<content>[0-9a-f]{12})", re.ASCII)


@dataclass(frozen=True)
class Code:
    """A bizllm. content: the first digits of a hash of all its files' names and bytes."""

    version: str
    content: str

    def __str__(self) -> str:
        return f"{self.version}/{self.content}"


def code_of(package: Path = PACKAGE) -> Code:
    """The bizllm in that folder; by default the one that runs."""
    digest = hashlib.sha256()
    files = (file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    for file in sorted(files, key=lambda file: file.relative_to(package).as_posix()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    said = re.search(r'^__version__ = "(.+)"$', (package / "__init__.py").read_text("utf-8"), re.M)
    return Code(said[1] if said else "unknown", digest.hexdigest()[:12])


def check_sender(said: str, exactly: bool = False) -> str | None:
    """Hold the bizllm that runs here against the one that sent the job: `0.1.0/1a2b3c4d5e6f`.

    exactly: its files came with the job, so that no others may run. Returns a warning where the versions are the same
    and the files are not. Raises UserError where the versions differ.
    """
    sender = _SAID.fullmatch(said)
    if sender is None:
        raise UserError(Fault("--sent-by", said, "expected VERSION/CONTENT, as `bizllm submit` writes it"))
    here = code_of()
    if sender["content"] == here.content:
        return None
    what = f"bizllm {here} in {PACKAGE}, and not the {said}"
    if exactly:
        raise UserError(Fault("--code", None, f"the cluster runs {what} that came with the job"))
    way_out = "submit with --code, which sends its own, or install the same on every node"
    if sender["version"] == here.version:
        return f"the cluster runs {what} that sent the job; {way_out}"
    raise UserError(Fault("bizllm", None, f"the cluster runs {what} that sent the job", way_out))
