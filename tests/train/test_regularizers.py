"""The arithmetic of what keeps a model from overfitting or forgetting, against torch and against hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from figures import figures
from safetensors.torch import load_file
from torch.nn import functional

from bizllm.train.continual import FISHER_BATCH, Penalty


def logits_as(*answers: torch.Tensor) -> Any:
    """A network that gives these logits, pass after pass; it keeps what it was called with."""
    calls: list[dict[str, torch.Tensor]] = []

    def network(**inputs: torch.Tensor) -> torch.Tensor:
        calls.append(inputs)
        return answers[len(calls) - 1]

    network.calls = calls  # type: ignore[attr-defined]
    return network


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 2


def made(folder: Path, base: Any, rows: pa.Table | None = None, **said: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    work = tiny.work(folder, base("bert"), tiny.table(6) if rows is None else rows, **said)
    examples = work.examples("train")
    work.objective.prepare(np.ones(len(examples)), examples)
    return work, work.objective.collate(examples)


def test_label_smoothing_is_torchs(logits: torch.Tensor, base: Any, tmp_path: Path) -> None:
    work, batch = made(tmp_path, base, optim=tiny.optim(label_smoothing=0.2))
    expected = functional.cross_entropy(logits, batch["target"], label_smoothing=0.2, reduction="sum")
    torch.testing.assert_close(work.objective.loss(logits_as(logits), batch), expected)


def test_class_weights_are_torchs(logits: torch.Tensor, base: Any, tmp_path: Path) -> None:
    rows = pa.table({"text": ["lamp"] * 6, "label": ["a", "a", "a", "b", "b", "c"]})
    for asked, expected in (("balanced", [6 / 9, 1.0, 2.0]), ({"a": 3.0}, [3.0, 1.0, 1.0])):
        work, batch = made(tmp_path, base, rows, optim=tiny.optim(class_weights=asked))
        weight = torch.tensor(expected)
        mean = work.objective.loss(logits_as(logits), batch) / work.objective.units(work.examples("train")).sum()
        torch.testing.assert_close(mean.float(), functional.cross_entropy(logits, batch["target"], weight=weight))


def test_r_drop_is_both_losses_and_their_divergence(logits: torch.Tensor, base: Any, tmp_path: Path) -> None:
    """Liang et al. 2021, equations 2 to 4, with the weight halved as in their code."""
    work, batch = made(tmp_path, base, optim=tiny.optim(r_drop=0.7))
    other = logits.flip(1)
    network = logits_as(torch.cat([logits, other]))
    p, q = logits.log_softmax(-1), other.log_softmax(-1)
    apart = functional.kl_div(p, q, log_target=True, reduction="none") + functional.kl_div(
        q, p, log_target=True, reduction="none"
    )
    both = functional.cross_entropy(logits, batch["target"]) + functional.cross_entropy(other, batch["target"])
    expected = 6 * (0.5 * both) + 0.7 * 0.5 * apart.sum()
    torch.testing.assert_close(work.objective.loss(network, batch), expected)
    assert len(network.calls[0]["input_ids"]) == 12


def test_mixup_mixes_vectors_and_labels_alike(logits: torch.Tensor, base: Any, tmp_path: Path) -> None:
    work, batch = made(tmp_path, base, augment={"mixup": 0.4})
    network = logits_as(logits)
    loss = work.objective.loss(network, batch)
    share, order = float(network.calls[0]["mix_share"]), network.calls[0]["mix_order"]
    assert 0 <= share <= 1 and sorted(order.tolist()) == list(range(6)) and order[0] != 0
    one = functional.cross_entropy(logits, batch["target"], reduction="sum")
    other = functional.cross_entropy(logits, batch["target"][order], reduction="sum")
    torch.testing.assert_close(loss, share * one + (1 - share) * other)

    real, rows = work.network().eval(), {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        pooled = real.pooled(**rows)
        mixed = real(**rows, mix_order=order, mix_share=torch.tensor(share))
        torch.testing.assert_close(mixed, real.head(share * pooled + (1 - share) * pooled[order]))


def test_distillation_asks_for_the_earlier_models_answers(logits: torch.Tensor, base: Any, tmp_path: Path) -> None:
    work, _ = made(tmp_path, base, continual={"distill": 0.3})
    teacher = torch.randn(6, 3).softmax(-1)
    examples = work.examples("train").append_column("teacher", pa.array(teacher.tolist()))
    batch = work.objective.collate(examples.append_column("trust", pa.array([0.3] * 6)))
    labels = functional.cross_entropy(logits, batch["target"], reduction="none")
    answers = functional.cross_entropy(logits, teacher, reduction="none")
    loss = work.objective.loss(logits_as(logits), batch)
    torch.testing.assert_close(loss, 0.7 * labels.sum() + 0.3 * answers.sum())
    batch = work.objective.collate(examples.append_column("trust", pa.array([0.0] * 4 + [1.0] * 2)))
    loss = work.objective.loss(logits_as(logits), batch)
    torch.testing.assert_close(loss, labels[:4].sum() + answers[4:].sum())


def test_l2_sp_prices_the_distance_of_all_but_the_head(base: Any, tmp_path: Path) -> None:
    work, _ = made(tmp_path, base, continual={"l2_sp": 0.5})
    network = work.network()
    penalty = Penalty.of(work, network)
    assert penalty is not None and penalty(network).item() == 0.0
    moved = 0
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter += 0.1
            moved += 0 if name.startswith("head.") else parameter.numel()
    assert penalty(network).item() == pytest.approx(0.5 * 0.5 * 0.01 * moved, rel=1e-4)
    penalty(network).backward()
    assert network.head.weight.grad is None
    grad = network.backbone.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(grad, torch.full_like(grad, 0.5 * 0.1))


def test_ewc_prices_what_the_earlier_rows_needed(base: Any, tmp_path: Path) -> None:
    """The Fisher information's diagonal, by hand; words that the earlier rows never had are free."""
    work, _ = made(tmp_path, base, continual={"ewc": 2.0})
    earlier = pa.table({"text": ["lamp lamp lamp", "desk desk"] * 5, "label": ["home", "home"] * 5})
    work.write("replay", work.objective.encode(earlier))
    network = work.network()
    penalty = Penalty.of(work, network)
    assert penalty is not None and penalty.importance is not None

    squared: dict[str, torch.Tensor] = {}
    network.eval()
    examples = work.examples("replay")
    for start in range(0, len(examples), FISHER_BATCH):
        network.zero_grad()
        work.objective.loss(network, work.objective.collate(examples.slice(start, FISHER_BATCH))).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None and not name.startswith("head."):
                squared[name] = squared.get(name, torch.zeros_like(parameter)) + parameter.grad**2
    count = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("head."))
    mean = sum(value.sum() for value in squared.values()) / count
    for name, value in squared.items():
        torch.testing.assert_close(penalty.importance[name], value / mean)
    words = penalty.importance["backbone.embeddings.word_embeddings.weight"].sum(1)
    ids = {word: work.tokenizer.convert_tokens_to_ids(word) for word in ("lamp", "desk", "coin")}
    assert words[ids["lamp"]] > 0 and words[ids["desk"]] > 0 and words[ids["coin"]] == 0


@pytest.mark.parametrize("stage", [0, 2])
def test_a_price_counts_once_however_many_compute_it(stage: int, workers: Any, base: Any, tmp_path: Path) -> None:
    """Two workers with micro-batches against one without; and it holds the base back."""
    far: dict[str, float] = {}
    for name, count, micro_batch, weight in (("free", 2, None, 0.0), ("one", 1, None, 30.0), ("two", 2, 2, 30.0)):
        optim = tiny.optim(micro_batch=micro_batch, weight_decay=0.0)
        said = {"optim": optim, "zero": {"stage": stage, "precision": "fp32"}, "continual": {"l2_sp": weight}}
        work = tiny.work(tmp_path / name, base("bert"), tiny.table(45), **said)
        workers(count).call("train", folder=work.folder)
        far[name] = _distance(work)
    assert far["two"] < 0.5 * far["free"]
    assert far["two"] == pytest.approx(far["one"], rel=1e-3)
    assert figures(tmp_path / "two") == pytest.approx(figures(tmp_path / "one"), abs=1e-4)


def _distance(work: Any) -> float:
    final = load_file(work.folder / "final" / "weights.safetensors")
    begun = work.network().state_dict()
    gaps = [((final[name] - begun[name]) ** 2).sum() for name in final if name.startswith("backbone.")]
    return float(torch.stack(gaps).sum().sqrt())
