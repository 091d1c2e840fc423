"""Benchmarks are run by hand and seldom: what they import of bizllm must still be there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


NAMES = sorted(
    [file.stem for file in FOLDER.glob("*.py")]
    + [f"measured.{file.stem}" for file in FOLDER.glob("measured/[a-z]*.py")]
)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    importlib.import_module(name)
