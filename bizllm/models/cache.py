"""Folders of the user's cache that several processes may fill at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def default_cache(kind: str = "models") -> Path:
    """Where downloads of a kind are kept: below BIZLLM_CACHE, else the user's cache folder."""
    base = os.environ.get("BIZLLM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bizllm"
    )
    return Path(base, kind)


def filled_once(target: Path, fill: Callable[[Path], Path]) -> bool:
    """Whether the folder `target` is there: already, or since `fill` put it into the empty folder that it was given.

    fill: returns the folder that is to become `target`, whole. It takes its place at once, unless another process was
    first; what is half done is deleted.
    """
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
        try:
            made = fill(part)
            with suppress(OSError):
                made.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target.is_dir()
