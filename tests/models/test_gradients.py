"""Integrated gradients, held against the logits of plain transformers, and against sums in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from bizllm.models import gradients
from bizllm.models.classifier import Classifier
from bizllm.models.engines.remembering import Remembering, unremembered
from bizllm.models.engines.torch_engine import exact

Make = Callable[..., Path]
LABELS = ("refund", "delivery", "other")
TEXTS = ["the lamp is broken", "水壶漏了，the kettle is broken!", "ok", "the lamp is broken", " lamp\n\nkettle "]
TOWARDS = np.array([[1, -1, 0]] * len(TEXTS), np.float32)


def soft(name: str, values: torch.Tensor) -> torch.Tensor | None:
    """Weights as of a trained network, not saturated ones."""
    return 0.3 * values if "LayerNorm" not in name else None


def difference(folder: Path, text: str, native: bool, scale: float = 1.0) -> torch.Tensor:
    """logit 0 less logit 1 of one text whose word vectors lie on the way from padding (0) to the text (1), in place."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = AutoModelForSequenceClassification if native else AutoModel
    model = kind.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    empty = ids.clone()
    empty[:, 1:-1] = tokenizer.pad_token_id
    words = model.get_input_embeddings()
    there = (words(empty) + scale * (words(ids) - words(empty))).detach().requires_grad_()
    mask = torch.ones_like(ids)
    if native:
        logits = model(inputs_embeds=there, attention_mask=mask).logits[0]
    else:
        head = load_file(folder / "head.safetensors")
        pooled = model(inputs_embeds=there, attention_mask=mask).last_hidden_state[0].mean(0)
        logits = head["weight"] @ pooled + head["bias"]
    made = logits[0] - logits[1]
    (slope,) = torch.autograd.grad(made, there)
    made.slope = ((words(ids) - words(empty)) * slope).sum(-1)[0, 1:-1].detach()
    return made


@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_what_characters_add_is_the_difference_to_padding(fine_tuned: Make, pooling: str) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, pooling=pooling, weights=soft)
    found = Classifier.load(folder, exact).gradients.added(TEXTS, TOWARDS)
    for text, characters, gap in zip(TEXTS, found.characters, found.gaps, strict=True):
        whole, empty = (difference(folder, text, pooling == "native", scale) for scale in (1.0, 0.0))
        expected = (whole - empty).item()
        assert characters.shape == (len(text),) and abs(gap) <= 0.02 * (abs(expected) + 0.05)
        assert characters.sum() == pytest.approx(expected + gap, abs=1e-4)
        assert not characters[[c.isspace() for c in text]].any()
    assert found.tokens == gradients.PASSES * Classifier.load(folder, exact).logits(TEXTS)[1].sum()
    np.testing.assert_allclose(found.characters[0], found.characters[3], atol=1e-6)


def test_the_integral_is_that_of_plain_torch(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, weights=soft)
    text = "the lamp is broken"
    (characters,) = Classifier.load(folder, exact).gradients.added([text], TOWARDS[:1]).characters
    middles = (np.arange(200) + 0.5) / 200
    slopes = torch.stack([difference(folder, text, False, float(at)).slope for at in middles]).mean(0).numpy()
    words = [characters[start:end].sum() for start, end in ((0, 3), (4, 8), (9, 11), (12, 18))]
    np.testing.assert_allclose(words, slopes, atol=0.02 * np.abs(slopes).max())


def test_a_long_text_counts_its_windows_by_tokens(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, weights=soft)
    model = Classifier.load(folder, exact)
    text = "the lamp is broken. " * 30 + "水壶漏了。" * 20
    found = model.gradients.added([text, ""], TOWARDS[:2])
    assert len(found.characters[0]) == len(text) and len(found.characters[1]) == 0
    tokens = model.logits([text])[1][0]
    assert found.tokens == gradients.PASSES * (tokens + 2)
    whole = model.logits([text])[0][0]
    windows = model._windows([text])
    assert len(windows) > 3
    nothing = [difference(folder, " ".join(["the"] * (length - 2)), False, 0.0).item() for length in windows.lengths]
    expected = whole[0] - whole[1] - np.average(nothing, weights=windows.lengths)
    assert found.characters[0].sum() == pytest.approx(expected + found.gaps[0], abs=1e-3)


def test_neither_order_nor_company_changes_a_text(fine_tuned: Make) -> None:
    model = Classifier.load(fine_tuned(objective="classification", labels=LABELS, weights=soft), exact)
    alone = [model.gradients.added([text], TOWARDS[:1]).characters[0] for text in TEXTS]
    for of_text, expected in zip(model.gradients.added(TEXTS[::-1], TOWARDS).characters[::-1], alone, strict=True):
        np.testing.assert_allclose(of_text, expected, atol=1e-5)
    assert model.gradients.added([], TOWARDS[:0]).characters == []


@pytest.mark.parametrize("method", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_are_no_part_of_the_text(fine_tuned: Make, method: str) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, pooling="native", weights=soft)
    plain = Classifier.load(folder, exact).gradients.added(TEXTS[:1], TOWARDS[:1])
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    tuning = getattr(peft, method)(task_type="SEQ_CLS", num_virtual_tokens=3)
    peft.get_peft_model(base, tuning).save_pretrained(folder / "adapter")
    model = Classifier.load(folder, exact)
    found = model.gradients.added(TEXTS[:1], TOWARDS[:1])
    assert abs(found.gaps[0]) < 1e-3 and len(found.characters[0]) == len(TEXTS[0])
    assert not np.allclose(found.characters[0], plain.characters[0]), "they change what the words add"


def test_whatever_engine_answers_torch_explains(fine_tuned: Make) -> None:
    model = Classifier.load(fine_tuned(objective="classification", labels=LABELS, weights=soft), exact)
    elsewhere = replace(model, engine=cast(Any, None))
    expected = model.gradients.added(TEXTS, TOWARDS).characters
    for found, characters in zip(elsewhere.gradients.added(TEXTS, TOWARDS).characters, expected, strict=True):
        np.testing.assert_array_equal(found, characters)


def test_variants_are_not_remembered(fine_tuned: Make) -> None:
    class Nothing:
        added = 0

        def find(self, keys: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)

        def add(self, keys: list[bytes], outputs: np.ndarray) -> None:
            self.added += len(keys)

    memory = Nothing()
    model = Classifier.load(
        fine_tuned(objective="classification", labels=LABELS),
        lambda network: Remembering(lambda: exact(network), memory, False),
    )
    windows = model._windows(["ok"])
    list(unremembered(model.engine).outputs(windows))
    assert memory.added == 0
    list(model.engine.outputs(windows))
    assert memory.added == 1 and unremembered(exact(model.network)).name == "torch"
