"""Each method learns, moves the parameters that it says, and merges into what it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny
import torch
from figures import figures
from safetensors.torch import load_file

from bizllm.train import checkpoint, methods

SLOW = pytest.mark.slow
RATES = {"full": 5e-3, "prompt": 0.3, "prefix": 0.3}
CLASSES = ["full", "lora", "adalora", "adapter", "head"]
MOVED = {  # a part of the names of what may move, beside a classifier's head
    "full": "",
    "lora": "lora_",
    "adalora": "lora_",
    "adapter": "ia3_",
    "prompt": "prompt_encoder",
    "prefix": "prompt_encoder",
    "head": "head.",
}


def language(rows: int) -> pa.Table:
    """Prompts of which the last word decides the answer."""
    return pa.table(
        {
            "text": [text for text, _ in tiny.texts(rows)],
            "label": [f"{topic_word(topic)} was" for _, topic in tiny.texts(rows)],
        }
    )


def topic_word(topic: str) -> str:
    return tiny.TOPICS[topic].split()[0]


def made(folder: Path, base: Any, kind: str, objective: str, **said: Any) -> Any:
    language_model = {"causal_lm": "gpt2", "seq2seq": "t5"}
    rows = language(64) if objective in language_model else tiny.table(64)
    epochs = 12 if kind == "adalora" else 8  # it masks ranks while it learns
    rate = {"lr": RATES.get(kind, 3e-2), "head_lr": 3e-2 if kind == "head" else 1e-2, "epochs": epochs, "batch": 16}
    return tiny.work(
        folder,
        base(said.pop("kind", language_model.get(objective, "bert"))),
        rows,
        objective=objective,
        method={"kind": kind, "rank": 2, "tokens": 4, "dropout": 0.0},
        optim=tiny.optim(**rate),
        **said,
    )


@pytest.mark.parametrize(
    ("kind", "objective", "pooling"),
    [
        *((kind, "classification", "mean") for kind in CLASSES),
        *((kind, "classification", "native") for kind in ("lora", "head")),
        *(pytest.param(kind, "classification", "native", marks=SLOW) for kind in ("full", "adalora", "adapter")),
        *((kind, "causal_lm", "native") for kind in ("full", "lora", "adalora", "adapter", "prompt", "prefix")),
        *((kind, "seq2seq", "native") for kind in ("lora", "prompt", "prefix")),
    ],
)
@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=SLOW)])
def test_a_method_learns_and_moves_only_its_parameters(
    kind: str, objective: str, pooling: str, stage: int, workers: Any, base: Any, tmp_path: Path
) -> None:
    if kind == "adalora":
        stage = 1
    work = made(tmp_path, base, kind, objective, pooling=pooling, zero={"stage": stage, "precision": "fp32"})
    workers(2).call("train", folder=tmp_path)
    losses = figures(tmp_path)
    assert sum(losses[-4:]) / 4 < 0.9 * losses[0]

    before = {name: value.clone() for name, value in work.network().state_dict().items()}
    network = methods.apply(work.network(), work.recipe, len(losses))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    checkpoint.load_weights(network, tmp_path / "final")
    after = network.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, fresh[name])}
    heads = {name for name in after if "head." in name or "classifier" in name}
    assert moved and all(MOVED[kind] in name or name in heads for name in moved)
    if objective == "classification":
        assert moved & heads

    if kind in methods.MERGEABLE:
        network.eval()
        batch = _inputs(work)
        with torch.no_grad():
            unmerged = network(**batch)
            merged = methods.merged(network).eval()
            torch.testing.assert_close(merged(**batch), unmerged, atol=1e-4, rtol=1e-4)
            assert merged.state_dict().keys() == before.keys(), "plain transformers modules"
            plain = work.network().eval()
            plain.load_state_dict(merged.state_dict())
            torch.testing.assert_close(plain(**batch), unmerged, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_adalora_brings_the_ranks_down_to_the_target(stage: int, workers: Any, base: Any, tmp_path: Path) -> None:
    """Zhang et al. 2023: the budget falls from 1.5 times the target to the target, and masked ranks stay 0."""
    made(tmp_path, base, "adalora", "classification", zero={"stage": stage, "precision": "fp32"})
    workers(2).call("train", folder=tmp_path)
    final = load_file(tmp_path / "final" / "weights.safetensors")
    matrices = [value for name, value in final.items() if "lora_E" in name]
    assert all(len(matrix) == 3 for matrix in matrices), "begun with 1.5 times the rank"
    left = sum(int((matrix != 0).sum()) for matrix in matrices)
    assert left == 2 * len(matrices)
    assert len({int((matrix != 0).sum()) for matrix in matrices}) > 1, "important matrices keep more"
    assert math.isfinite(figures(tmp_path)[-1])


@pytest.mark.parametrize(
    ("stage", "stop"),  # before the ranks fall, while they do, and after
    [
        (1, 12),
        (2, 27),
        *(pytest.param(stage, stop, marks=SLOW) for stage, stop in ((0, 3), (0, 12), (0, 27), (1, 27), (2, 12))),
    ],
)
def test_adalora_goes_on_as_if_never_stopped(stage: int, stop: int, workers: Any, base: Any, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        zero = {"stage": stage, "precision": "fp32"}
        made(tmp_path / name, base, "adalora", "classification", zero=zero, stop={"every": 3})
    workers(2).call("train", folder=tmp_path / "whole")
    workers(2).call("train", folder=tmp_path / "parts", stop_after=stop)
    workers(2).call("train", folder=tmp_path / "parts")
    assert figures(tmp_path / "parts") == pytest.approx(figures(tmp_path / "whole"), abs=1e-6)


def test_adalora_goes_on_with_another_number_of_workers(workers: Any, base: Any, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        zero = {"stage": 2, "precision": "fp32"}
        made(tmp_path / name, base, "adalora", "classification", zero=zero, stop={"every": 3})
    workers(2).call("train", folder=tmp_path / "whole")
    workers(2).call("train", folder=tmp_path / "parts", stop_after=15)
    workers(1).call("train", folder=tmp_path / "parts")
    assert figures(tmp_path / "parts") == pytest.approx(figures(tmp_path / "whole"), abs=1e-4)


def _inputs(work: Any) -> dict[str, torch.Tensor]:
    batch = work.objective.collate(work.examples("validation").slice(0, 6))
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "labels")
    return {name: batch[name] for name in names if name in batch}
