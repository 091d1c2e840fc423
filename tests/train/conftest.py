"""Workers and tiny base models for the tests of training, each made once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tiny, reference and workers lie beside the tests
import tiny
from workers import Workers


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Any]]:
    """`workers(2).call(…)`: that many processes in one group, started at the first call."""

    @cache
    def group(count: int) -> Any:
        made = Workers(count, tmp_path_factory.mktemp(f"workers{count}"))
        groups.append(made)
        return made

    groups: list[Any] = []
    yield group
    for made in groups:
        made.stop()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny random model: bert, gpt2, llama or t5."""

    @cache
    def folder(kind: str) -> Path:
        return Path(tiny.BASES[kind](tmp_path_factory.mktemp(kind)))

    return folder
