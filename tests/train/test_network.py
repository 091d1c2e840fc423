"""What was trained is what plain transformers loads: at stage 3 too, into other objects than the trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from reference import losses_and_weights
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from bizllm.models.network import load_network, pool
from bizllm.train.export import export
from bizllm.train.work import Work


def trained(folder: Path, workers: Any, base: Any, kind: str, rows: pa.Table, **said: Any) -> tuple[Work, torch.Tensor]:
    """The work and the engine's own logits of its first validation rows."""
    zero = {"stage": 3, "precision": "fp32"}
    work = tiny.work(folder, base(kind), rows, zero=zero, optim=tiny.optim(epochs=1), **said)
    workers(2).call("train", folder=folder, logits_of=5)
    return work, load_file(folder / "logits.safetensors")["logits"]


def batch_of(work: Work) -> dict[str, torch.Tensor]:
    batch = work.objective.collate(work.examples("validation").slice(0, 5))
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels") if name in batch}


def test_at_stage_3_the_gathered_weights_are_a_plain_networks(workers: Any, base: Any, tmp_path: Path) -> None:
    rows = tiny.table(32)
    work, _ = trained(tmp_path, workers, base, "bert", rows)
    _, weights = losses_and_weights(work, rows)
    final = load_file(tmp_path / "final" / "weights.safetensors")
    for name, weight in weights.items():
        if "pooler" not in name and "key.bias" not in name:
            torch.testing.assert_close(final[name], weight, atol=2e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_pooled_model_is_a_plain_backbone_and_a_head(pooling: str, workers: Any, base: Any, tmp_path: Path) -> None:
    work, logits = trained(tmp_path / "work", workers, base, "bert", tiny.table(32), pooling=pooling)
    export(work, tmp_path / "work" / "final", tmp_path / "model")
    backbone = AutoModel.from_pretrained(tmp_path / "model")
    head = load_file(tmp_path / "model" / "head.safetensors")
    batch = batch_of(work)
    with torch.no_grad():
        hidden = backbone(**batch).last_hidden_state
        masks = batch["attention_mask"]
        alone = torch.stack([_alone(row, mask, pooling) for row, mask in zip(hidden, masks, strict=True)])
        torch.testing.assert_close(pool(hidden, batch["attention_mask"], pooling), alone)
        torch.testing.assert_close(alone @ head["weight"].T + head["bias"], logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(load_network(tmp_path / "model", work.info)(**batch), logits, atol=1e-5, rtol=1e-5)


def _alone(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    tokens = hidden[: int(mask.sum())]
    return {"mean": tokens.mean(0), "cls": tokens[0], "last": tokens[-1]}[pooling]


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_native_classifier_is_a_plain_one(kind: str, workers: Any, base: Any, tmp_path: Path) -> None:
    work, logits = trained(tmp_path / "work", workers, base, kind, tiny.table(32), pooling="native")
    export(work, tmp_path / "work" / "final", tmp_path / "model")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert plain.config.id2label == dict(enumerate(sorted(tiny.TOPICS)))
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch_of(work)).logits, logits, atol=1e-5, rtol=1e-5)
        other = load_network(tmp_path / "model", work.info)
        torch.testing.assert_close(other(**batch_of(work)), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "auto"), [("gpt2", AutoModelForCausalLM), ("llama", AutoModelForCausalLM)])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_language_model_is_a_plain_one(
    kind: str, auto: Any, method: str, workers: Any, base: Any, tmp_path: Path
) -> None:
    """GPT-2's output layer is its embedding table, Llama's is its own."""
    rows = tiny.table(32).select(["text"])
    said = {"objective": "causal_lm", "packing": False, "method": {"kind": method, "rank": 2}}
    work, logits = trained(tmp_path / "work", workers, base, kind, rows, **said)
    export(work, tmp_path / "work" / "final", tmp_path / "model")
    with torch.no_grad():
        plain = auto.from_pretrained(tmp_path / "model")(**batch_of(work)).logits
    torch.testing.assert_close(plain, logits, atol=1e-4, rtol=1e-4)


def test_an_encoder_with_a_decoder_is_a_plain_one(workers: Any, base: Any, tmp_path: Path) -> None:
    rows = tiny.table(32)
    work, logits = trained(tmp_path / "work", workers, base, "t5", rows, objective="seq2seq")
    export(work, tmp_path / "work" / "final", tmp_path / "model")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch_of(work)).logits, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("objective", ["regression", "quantile"])
def test_numbers_of_any_size_are_in_the_head(objective: str, workers: Any, base: Any, tmp_path: Path) -> None:
    """Labels around 50,000: the saved head answers in their units, and training goes on from it where it was."""
    rng = np.random.default_rng(0)
    sizes = {"home": 49_000.0, "money": 50_000.0, "travel": 52_000.0}
    rows = tiny.table(48)
    label = [[sizes[topic] + rng.normal(0, 9), -sizes[topic]] for topic in rows["label"].to_pylist()]
    rows = rows.set_column(1, "label", pa.array(label))
    said = {"objective": objective, "levels": (0.1, 0.5, 0.9) if objective == "quantile" else ()}
    work, logits = trained(tmp_path / "work", workers, base, "bert", rows, **said)
    export(work, tmp_path / "work" / "final", tmp_path / "model")
    network = load_network(tmp_path / "model", work.info)
    with torch.no_grad():
        torch.testing.assert_close(network(**batch_of(work)), logits, atol=0.1, rtol=1e-5)
        further = tiny.work(tmp_path / "further", tmp_path / "model", rows, **said).network().eval()
        assert further.scale is not None
        torch.testing.assert_close(further(**batch_of(work)), logits, atol=0.1, rtol=1e-5)
    truth = np.array(label)[:5, :, None].repeat(logits.shape[1] // 2, 2).reshape(5, -1)
    assert np.abs(logits.numpy() - truth).max() < 5_000, "begun at the labels' centre"
