"""Stopped and gone on is never stopped: at every stage, with other workers, with few trainable parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from figures import figures

ROWS = 40
STEPS = 10  # 5 an epoch
STOP = 6  # within the second epoch
METHODS: dict[str, dict[str, Any]] = {"full": {"kind": "full"}, "lora": {"kind": "lora", "rank": 2, "dropout": 0.0}}


@pytest.fixture
def make(base: Callable[[str], Path]) -> Callable[..., Path]:
    """A work folder: `make(folder, stage, method, …)`."""

    def made(folder: Path, stage: int, method: str = "full", dropout: float = 0.0, **said: Any) -> Path:
        optim = tiny.optim(dropout=dropout, schedule="cosine", lr=3e-3, **said.pop("optim", {}))
        tiny.work(
            folder,
            base("bert"),
            tiny.table(ROWS),
            zero={"stage": stage, "precision": "fp32"},
            method=METHODS[method],
            optim=optim,
            stop={"every": 3},
            **said,
        )
        return folder

    return made


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_stopped_and_gone_on_gives_the_losses_of_one_that_never_stopped(
    stage: int, method: str, workers: Any, make: Any, tmp_path: Path
) -> None:
    whole, parts = (make(tmp_path / name, stage, method, dropout=0.1) for name in ("whole", "parts"))
    never = workers(2).call("train", folder=whole)[0]
    assert never["saved"] == [3, 6, 9, 10], "checkpoints within an epoch, and at the end"
    assert workers(2).call("train", folder=parts, stop_after=STOP)[0]["stopped"]
    again = workers(2).call("train", folder=parts)[0]
    assert again["saved"] == [9, 10]
    assert figures(parts) == pytest.approx(figures(whole), abs=1e-6)
    assert figures(parts, split="validation") == pytest.approx(figures(whole, split="validation"), abs=1e-6)
    same = ("steps", "best_step", "best", "tokens")
    assert [again["summary"][name] for name in same] == pytest.approx([never["summary"][name] for name in same])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("after", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_another_number_of_workers_goes_on_with_the_same_losses(
    stage: int, method: str, after: int, workers: Any, make: Any, tmp_path: Path
) -> None:
    folders = [make(tmp_path / name, stage, method, optim={"micro_batch": 2}) for name in ("whole", "parts")]
    workers(2).call("train", folder=folders[0])
    workers(2).call("train", folder=folders[1], stop_after=STOP)
    workers(after).call("train", folder=folders[1])
    assert len(figures(folders[1])) == STEPS
    assert figures(folders[1]) == pytest.approx(figures(folders[0]), abs=1e-4)
