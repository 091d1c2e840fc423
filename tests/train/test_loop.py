"""The loop under DeepSpeed with two workers against a loop written by hand in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from figures import figures
from reference import losses_and_weights
from safetensors.torch import load_file

ROWS = 45  # five batches of 8, one of 5


@pytest.fixture(scope="module")
def by_hand(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Losses and weights of the loop by hand, by rows."""
    made = {}
    for rows in (ROWS, 9):  # of 9, the last batch is smaller than the workers
        table = tiny.table(rows)
        made[rows] = losses_and_weights(tiny.work(tmp_path_factory.mktemp("hand"), base("bert"), table), table)
    return made


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("rows", "micro_batch"),
    [
        (ROWS, None),
        (ROWS, 2),
        (9, None),
        pytest.param(ROWS, 1, marks=pytest.mark.slow),
        pytest.param(9, 2, marks=pytest.mark.slow),
    ],
)
def test_every_stage_gives_the_losses_and_weights_of_a_plain_loop(
    stage: int, rows: int, micro_batch: int | None, workers: Any, base: Any, by_hand: dict[int, Any], tmp_path: Path
) -> None:
    optim = tiny.optim(micro_batch=micro_batch)
    tiny.work(tmp_path, base("bert"), tiny.table(rows), zero={"stage": stage, "precision": "fp32"}, optim=optim)
    workers(2).call("train", folder=tmp_path)
    losses, weights = by_hand[rows]
    assert figures(tmp_path) == pytest.approx(losses, abs=1e-4)
    final = load_file(tmp_path / "final" / "weights.safetensors")
    assert final.keys() == weights.keys()
    for name, weight in weights.items():
        if "pooler" in name or "key.bias" in name:
            continue  # no gradient: Adam makes steps of rounding errors
        torch.testing.assert_close(final[name], weight, atol=2e-4, rtol=0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_bf16_stays_near_fp32(
    stage: int, micro_batch: int | None, workers: Any, base: Any, by_hand: dict[int, Any], tmp_path: Path
) -> None:
    optim = tiny.optim(micro_batch=micro_batch)
    tiny.work(tmp_path, base("bert"), tiny.table(ROWS), zero={"stage": stage, "precision": "bf16"}, optim=optim)
    workers(2).call("train", folder=tmp_path)
    losses = figures(tmp_path)
    assert losses == pytest.approx(by_hand[ROWS][0], abs=0.02)
    assert losses != pytest.approx(by_hand[ROWS][0], abs=1e-6), "it computed in fp32"


@pytest.mark.parametrize(("kind", "method", "stage"), [("bert", "full", 1), ("gpt2", "lora", 2), ("gpt2", "lora", 3)])
def test_activations_computed_again_change_nothing(
    kind: str, method: str, stage: int, workers: Any, base: Any, tmp_path: Path
) -> None:
    for name, again in (("kept", False), ("again", True)):
        optim = tiny.optim(dropout=0.1, gradient_checkpointing=again)
        said = {"zero": {"stage": stage, "precision": "fp32"}, "method": {"kind": method}, "optim": optim}
        tiny.work(tmp_path / name, base(kind), tiny.table(24), **said)
        workers(2).call("train", folder=tmp_path / name)
    assert figures(tmp_path / "again") == pytest.approx(figures(tmp_path / "kept"), abs=1e-5)
