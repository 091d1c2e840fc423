"""Rates, schedules, and when to stop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from figures import figures
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from bizllm.train import methods, optim
from bizllm.train.recipe import OptimSettings


def rates(network: torch.nn.Module, settings: OptimSettings) -> dict[str, tuple[float, float]]:
    """Learning rate and decay by a parameter's name."""
    made = {}
    for group in optim.groups(network.named_parameters(), settings):
        for parameter in group["params"]:
            name = next(name for name, p in network.named_parameters() if p is parameter)
            made[name] = (group["lr"], group["weight_decay"])
    return made


def test_each_layer_below_learns_slower(base: Any, tmp_path: Path) -> None:
    settings = OptimSettings(lr=1e-3, head_lr=1e-1, layer_decay=0.5, weight_decay=0.1)
    network = tiny.work(tmp_path, base("bert"), tiny.table(4)).network()
    found = rates(network, settings)
    assert found.keys() == dict(network.named_parameters()).keys(), "each parameter once"
    assert found["head.weight"] == (1e-1, 0.1)
    assert found["backbone.encoder.layer.1.output.dense.weight"] == (1e-3, 0.1)
    assert found["backbone.encoder.layer.1.output.dense.bias"] == (1e-3, 0.0)
    assert found["backbone.encoder.layer.0.output.LayerNorm.weight"] == (0.5e-3, 0.0)
    assert found["backbone.embeddings.word_embeddings.weight"] == (0.25e-3, 0.1)


@pytest.mark.parametrize(
    ("kind", "objective", "head"),
    [
        ("bert", "classification", "model.classifier.weight"),
        ("gpt2", "classification", "model.score.weight"),
        ("llama", "causal_lm", None),
        ("bert", "masked_lm", None),
    ],
)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_only_a_fresh_head_learns_at_its_rate(
    kind: str, objective: str, head: str | None, method: str, base: Any, tmp_path: Path
) -> None:
    """A language model's output layer was trained before."""
    said = {"objective": objective, "pooling": "native", "method": {"kind": method, "rank": 2}}
    work = tiny.work(
        tmp_path, base(kind), tiny.table(8).select(["text"] if head is None else ["text", "label"]), **said
    )
    network = methods.apply(work.network(), work.recipe, 10)
    found = rates(network, OptimSettings(lr=1e-3, head_lr=1e-1))
    fast = {name for name, (lr, _) in found.items() if lr == 1e-1}
    if head is None:
        assert not fast
    else:
        layer = head.removeprefix("model.").removesuffix(".weight")
        assert fast and all(layer in name for name in fast)
        assert all(layer not in name for name in found.keys() - fast)


@pytest.mark.parametrize("steps", [7, 40])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_schedules_are_those_of_transformers(steps: int, warmup: float) -> None:
    made = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}
    for name, schedule in made.items():
        rise = round(warmup * steps)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = schedule(optimizer, rise, steps)
        settings = OptimSettings(schedule=name, warmup=warmup)  # type: ignore[arg-type]
        for step in range(steps):
            # Ours counts the first step of the rise as one of it: theirs would waste it at a rate of 0.
            ours = optim.factor(step, steps, settings)
            assert ours == pytest.approx((step + 1) / rise if step < rise else theirs.get_last_lr()[0])
            optimizer.step()
            theirs.step()


def test_the_rate_falls_on_a_plateau() -> None:
    settings = OptimSettings(schedule="reduce_on_plateau", patience=2, factor=0.1)
    watch = optim.Watch(higher_is_better=True)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=1, threshold=0.0)
    for step, value in enumerate([0.5, 0.6, 0.6, 0.55, 0.61, 0.6, 0.6, 0.6, 0.6, 0.62], start=1):
        watch.see(value, step, settings)
        theirs.step(value)
        assert settings.factor**watch.falls == pytest.approx(optimizer.param_groups[0]["lr"])
    assert watch.falls == 3 and (watch.best, watch.best_step) == (0.62, 10)


def test_no_number_is_never_the_best() -> None:
    watch = optim.Watch(higher_is_better=False)
    assert not watch.see(math.nan, 1, OptimSettings())
    assert watch.best is None and watch.see(3.0, 2, OptimSettings()) and not watch.see(math.nan, 3, OptimSettings())
    assert not watch.tired(2) and not watch.see(3.0, 4, OptimSettings()) and watch.tired(2) and not watch.tired(None)


def test_a_score_that_stands_still_lowers_the_rate_and_ends_it(workers: Any, base: Any, tmp_path: Path) -> None:
    still = {"lr": 1e-9, "head_lr": 1e-9, "epochs": 8, "schedule": "reduce_on_plateau", "warmup": 0.0}
    tiny.work(tmp_path, base("bert"), tiny.table(32), optim=tiny.optim(**still), stop={"patience": 3})
    summary = workers(2).call("train", folder=tmp_path)[0]["summary"]
    assert summary["stopped_early"] and (summary["steps"], summary["best_step"]) == (4 * 4, 4)
    # After the 2nd validation and the 3rd it stood still.
    assert figures(tmp_path, "lr") == pytest.approx([1e-9] * 8 + [0.5e-9] * 4 + [0.25e-9] * 4)
