"""Exported models: the trained network's own answers, in plain transformers, merged where parameters were added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from bizllm.models import virtual_tokens
from bizllm.models.generator import Generator
from bizllm.models.load import resolve
from bizllm.models.network import load_network
from bizllm.models.saved import read_info
from bizllm.train import checkpoint, methods
from bizllm.train.export import export
from bizllm.train.work import Work

KINDS = ("full", "lora", "adalora", "adapter", "head")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny.BASES[kind](tmp_path_factory.mktemp(kind)) for kind in ("bert", "gpt2")}


def trained(work: Work, folder: Path) -> tuple[Any, Path]:
    """A network whose trained parameters moved, and its kept weights."""
    network = methods.apply(work.network(), work.recipe, 100)
    torch.manual_seed(5)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    checkpoint.save_weights(checkpoint.trainable(network, 0, 0), folder / "best-7", {"step": 7})
    return network.eval(), folder / "best-7"


def inputs(folder: Path) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    batch = tokenizer([text for text, _ in tiny.texts(8, seed=3)], padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("pooling", ["mean", "native"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier(bases: dict[str, Path], tmp_path: Path, kind: str, pooling: str) -> None:
    work = tiny.work(
        tmp_path / "work", bases["bert"], tiny.table(12), method={"kind": kind, "dropout": 0.0}, pooling=pooling
    )
    network, best = trained(work, tmp_path)
    folder = tmp_path / "model"
    made = export(work, best, folder)
    with torch.no_grad():
        batch = inputs(folder)
        expected = network(**batch)
        torch.testing.assert_close(load_network(folder, work.info)(**batch), expected, atol=1e-5, rtol=1e-4)
        if pooling == "native":
            plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            assert list(plain.config.id2label.values()) == list(work.info.labels)
            found = plain(**batch).logits
        else:
            hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            head = load_file(folder / "head.safetensors")
            found = (hidden * mask).sum(1) / mask.sum(1) @ head["weight"].T + head["bias"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert read_info(folder) == work.info
    assert (made.trainable < made.parameters) == (kind != "full")
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt")), "no pickle"
    assert (folder / "adapter").exists() == (kind in methods.MERGEABLE)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_language_model(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    work = tiny.work(
        tmp_path / "work", bases["gpt2"], tiny.table(12), objective="causal_lm", method={"kind": kind, "dropout": 0.0}
    )
    network, best = trained(work, tmp_path)
    folder = tmp_path / "model"
    export(work, best, folder)
    with torch.no_grad():
        batch = inputs(folder)
        found = AutoModelForCausalLM.from_pretrained(folder).eval()(**batch).logits
        torch.testing.assert_close(found, network(**batch), atol=1e-4, rtol=1e-3)


def test_the_adapter_alone_goes_on_the_base(bases: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel

    work = tiny.work(
        tmp_path / "work",
        bases["gpt2"],
        tiny.table(12),
        objective="causal_lm",
        method={"kind": "lora", "dropout": 0.0},
    )
    network, best = trained(work, tmp_path)
    export(work, best, tmp_path / "model")
    base = AutoModelForCausalLM.from_pretrained(bases["gpt2"])
    with torch.no_grad():
        batch = inputs(tmp_path / "model")
        found = PeftModel.from_pretrained(base, tmp_path / "model/adapter").eval()(**batch).logits
        torch.testing.assert_close(found, network(**batch), atol=1e-4, rtol=1e-3)


def test_a_night_writes_with_the_adapter_as_with_the_merged_model(bases: dict[str, Path], tmp_path: Path) -> None:
    method = {"kind": "lora", "dropout": 0.0}
    work = tiny.work(tmp_path / "work", bases["gpt2"], tiny.table(12), objective="causal_lm", method=method)
    work = replace(work, info=replace(work.info, base=f"path:{work.base}"))
    _, best = trained(work, tmp_path)
    export(work, best, tmp_path / "model")
    pin = resolve(f"path:{tmp_path / 'model/adapter'}", adapter=True)
    assert pin.on is not None and pin.on.folder.samefile(bases["gpt2"])
    merged = Generator.load(tmp_path / "model", "cpu", "float32")
    apart = Generator.load_adapter(pin.folder, pin.on.folder, pin.on.content_hash, "cpu", "float32")
    assert apart.max_tokens == merged.max_tokens == 32, "the window of the training"
    asked = [text for text, _ in tiny.texts(12, seed=3)]
    base = Generator.load(bases["gpt2"], "cpu", "float32")
    assert apart.generate(asked, 6).texts == merged.generate(asked, 6).texts != base.generate(asked, 6).texts


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_stand_beside_the_base_s_weights(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    work = tiny.work(
        tmp_path / "work", bases["gpt2"], tiny.table(12), objective="causal_lm", method={"kind": kind, "tokens": 4}
    )
    network, best = trained(work, tmp_path)
    folder = tmp_path / "model"
    made = export(work, best, folder)
    assert made.trainable < made.parameters and virtual_tokens.count(folder) == 4
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt")), "no pickle"
    base, plain = (AutoModelForCausalLM.from_pretrained(where).eval() for where in (bases["gpt2"], folder))
    with torch.no_grad():
        batch = inputs(folder)
        torch.testing.assert_close(plain(**batch).logits, base(**batch).logits)
        found = load_network(folder, work.info)(**batch)
        torch.testing.assert_close(found, network(**batch), atol=1e-4, rtol=1e-3)
        assert not torch.allclose(found, plain(**batch).logits, atol=1e-2)
