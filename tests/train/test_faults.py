"""What goes wrong while training: numbers that are none, a full disk; and what is left then."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from figures import figures
from safetensors.torch import load_file

from bizllm.train import checkpoint


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_loss_that_is_no_number_stops_all_workers(stage: int, workers: Any, base: Any, tmp_path: Path) -> None:
    """Weights are poisoned after step 4, so that step 5 has no loss; the checkpoint and weights of step 3 remain."""
    zero = {"stage": stage, "precision": "fp32"}
    work = tiny.work(tmp_path, base("bert"), tiny.table(64), zero=zero, stop={"every": 3})
    answers = workers(2).call("train", folder=tmp_path, poison_after=4)
    assert len({answer["error"] for answer in answers}) == 1, "all workers stop alike"
    assert "loss of step 5 is nan" in answers[0]["error"] and "step 3 are kept" in answers[0]["error"]
    assert answers[0]["saved"] == [3]
    assert all(
        weight.isfinite().all() for weight in load_file(tmp_path / "best" / "best-3" / "weights.safetensors").values()
    )
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-3"
    again = workers(2).call("train", folder=tmp_path)[0]  # from step 3, without the poison
    assert again["summary"]["steps"] == 16 and all(map(_finite, figures(tmp_path)))
    assert work.recipe.zero.stage == stage


def test_weights_spoilt_by_the_last_step_are_never_saved(workers: Any, base: Any, tmp_path: Path) -> None:
    """Its loss was a number, its gradient none: the validation shows it, before the checkpoint."""
    tiny.work(tmp_path, base("bert"), tiny.table(64), stop={"every": 3})
    answers = workers(2).call("train", folder=tmp_path, poison_after=6)
    assert all("validation loss after step 6 is nan" in answer["error"] for answer in answers)
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-3"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_full_disk_leaves_the_checkpoint_before(
    stage: int, workers: Any, base: Any, small_disk: Path, tmp_path: Path
) -> None:
    folder = small_disk / "work"
    zero = {"stage": stage, "precision": "fp32"}
    tiny.work(folder, base("bert"), tiny.table(64), zero=zero, stop={"every": 3})
    workers(1).call("train", folder=folder, stop_after=3)
    free = shutil.disk_usage(folder).free
    (small_disk / "rest").write_bytes(b"0" * (free - 300_000))
    answer = workers(1).call("train", folder=folder)[0]
    assert "no space left" in answer["error"]
    (small_disk / "rest").unlink()
    assert checkpoint.state_of(folder / "checkpoints" / "step-3")["step"] == 3
    again = workers(1).call("train", folder=folder)[0]
    assert again["summary"]["steps"] == 16


def test_a_run_killed_before_its_result_does_not_train_on(workers: Any, base: Any, tmp_path: Path) -> None:
    """Early stopping is remembered: the run ended at a checkpoint after which it had enough."""
    rows = tiny.table(64)
    said = {"stop": {"every": 2, "patience": 2}, "optim": tiny.optim(lr=1e-9, head_lr=1e-9, epochs=4)}
    tiny.work(tmp_path, base("bert"), rows, **said)
    first = workers(2).call("train", folder=tmp_path)[0]["summary"]
    assert first["stopped_early"] and first["steps"] == 2 + 2 * 2
    again = workers(2).call("train", folder=tmp_path)[0]["summary"]
    assert again["stopped_early"] and again["steps"] == first["steps"]
    assert len(figures(tmp_path)) == first["steps"]


def test_a_finished_training_is_not_trained_again(workers: Any, base: Any, tmp_path: Path) -> None:
    tiny.work(tmp_path, base("bert"), tiny.table(32))
    first = workers(2).call("train", folder=tmp_path)[0]["summary"]
    again = workers(2).call("train", folder=tmp_path)[0]["summary"]
    assert (again["steps"], again["best"], again["stopped_early"]) == (first["steps"], first["best"], False)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == first["steps"] and steps.count(1) == 1


def _finite(number: float) -> bool:
    return number == number and abs(number) < 1e9
