"""Memory estimates: parameters counted as transformers counts them, and less with every stage and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from transformers import AutoModel, AutoModelForCausalLM

from bizllm.train import memory, methods
from bizllm.train.work import Work


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny.BASES[kind](tmp_path_factory.mktemp(kind)) for kind in tiny.BASES}


def work_of(base: Path, folder: Path, **said: Any) -> Work:
    return tiny.work(folder, base, tiny.table(8), **said)


def test_parameters_are_those_of_the_model(bases: dict[str, Path], tmp_path: Path) -> None:
    shape = memory.shape_of(work_of(bases["bert"], tmp_path / "a"))
    plain = sum(p.numel() for p in AutoModel.from_pretrained(bases["bert"]).parameters())
    assert shape.parameters == shape.trainable == plain + 3 * tiny.DIM + 3
    assert (shape.layers, shape.hidden) == (2, tiny.DIM)
    shape = memory.shape_of(work_of(bases["gpt2"], tmp_path / "b", objective="causal_lm"))
    model = AutoModelForCausalLM.from_pretrained(bases["gpt2"])
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.vocabulary == model.config.vocab_size


@pytest.mark.parametrize("kind", ["full", "lora", "adalora", "adapter", "head", "prompt", "prefix"])
def test_trainable_ones_are_those_that_training_moves(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    language = kind in ("prompt", "prefix")
    said: dict[str, Any] = {"method": {"kind": kind}}
    base = bases["gpt2" if language else "bert"]
    work = work_of(base, tmp_path, objective="causal_lm" if language else "classification", **said)
    shape = memory.shape_of(work)
    network = methods.apply(work.network(), work.recipe, 100)
    assert shape.parameters == sum(p.numel() for p in network.parameters())
    assert shape.trainable == sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(("device", "numbers"), [("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "bf16")])
def test_less_with_every_stage_and_worker(device: str, numbers: Any) -> None:
    shape = memory.Shape(110_000_000, 110_000_000, 12, 768, 30_000)
    for workers in (1, 2, 8):
        by_stage = [memory.state_mb(shape, workers, stage, "none", numbers, device) for stage in (1, 2, 3)]
        assert by_stage == sorted(by_stage, reverse=True)
        if workers > 1:
            assert len(set(by_stage)) == 3 and memory.state_mb(shape, workers, 0, "none", numbers, device) > by_stage[0]
            fewer = [memory.state_mb(shape, workers // 2, stage, "none", numbers, device) for stage in (1, 2, 3)]
            assert all(now < before for now, before in zip(by_stage, fewer, strict=True))
    # Rajbhandari et al. 2020, figure 1: 16 bytes a weight without sharding, of 7.5 billion weights 120 GB; over 64
    # devices 31.4, 16.6 and 1.9.
    if device == "cuda":
        large = memory.Shape(7_500_000_000, 7_500_000_000, 1, 1, 1)
        found = [memory.state_mb(large, 64, stage, "none", numbers, device) / 1e3 for stage in (0, 1, 2, 3)]
        assert found == pytest.approx([120.0, 31.4, 16.6, 1.9], rel=0.02)


def test_offloaded_state_and_checkpointed_activations_count_no_more(bases: dict[str, Path], tmp_path: Path) -> None:
    shape = memory.Shape(1_000_000, 1_000_000, 12, 768, 30_000)
    offloaded = [memory.state_mb(shape, 2, 2, where, "bf16", "cuda") for where in ("none", "cpu")]
    assert offloaded[1] < offloaded[0]
    plain = work_of(bases["bert"], tmp_path / "a")
    saving = work_of(bases["bert"], tmp_path / "b", optim=tiny.optim(gradient_checkpointing=True))
    assert memory.activations_mb(saving, shape, 4_096, "fp32") < 0.3 * memory.activations_mb(
        plain, shape, 4_096, "fp32"
    )
    made = memory.estimates(plain, memory.shape_of(plain), 2, 4_096, "bf16", "cuda")
    assert [(row.stage, row.offload) for row in made if row.chosen] == [(1, "none")]
    assert len(made) == 7
