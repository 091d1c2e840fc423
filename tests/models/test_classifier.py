"""Answers of fine-tuned heads, held against transformers' plain forward of one unpadded text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit, softmax
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from bizllm.errors import UserError
from bizllm.models.classifier import Classifier
from bizllm.models.engines.torch_engine import TorchEngine, exact

Make = Callable[..., Path]
LABELS = ("refund", "delivery", "other")
TEXTS = ["the lamp is broken", "ok", "水壶漏了，the kettle is broken!", "", "ok", "a b c d e f g h i j k l"]
LONG = "the lamp is broken. " * 30 + "水壶漏了。" * 20


def plain_pooled(folder: Path, text: str, pair: str | None = None, pooling: str = "mean") -> np.ndarray:
    """Logits of one text by the backbone that AutoModel loads and the head's matrix."""
    tokenizer, backbone = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    head = load_file(folder / "head.safetensors")
    with torch.no_grad():
        hidden = backbone(**tokenizer(text, pair, return_tensors="pt")).last_hidden_state[0]
    vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    return (head["weight"] @ vector + head["bias"]).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_padded_equals_unpadded(fine_tuned: Make, pooling: str) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, pooling=pooling)
    logits, tokens = Classifier.load(folder, exact).logits(TEXTS)
    expected = [plain_pooled(folder, text, pooling=pooling) for text in TEXTS]
    assert logits.dtype == np.float32 and np.ptp(logits, axis=0).min() > 0.1  # the texts differ
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert tokens.tolist() == [len(ids) for ids in AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]]


def test_transformers_own_head(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, pooling="native")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in TEXTS]
    np.testing.assert_allclose(Classifier.load(folder, exact).logits(TEXTS)[0], expected, atol=1e-5)
    assert tuple(model.config.id2label.values()) == LABELS


def test_probabilities_are_calibrated(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS, temperature=2.5)
    model = Classifier.load(folder, exact)
    expected = softmax([plain_pooled(folder, text) / 2.5 for text in TEXTS], axis=1)
    found, _ = model.probabilities(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32 and model.threshold is None

    several = fine_tuned(objective="multi_label", labels=LABELS, temperature=0.5)
    model = Classifier.load(several, exact)
    expected = expit([plain_pooled(several, text) / 0.5 for text in TEXTS])
    np.testing.assert_allclose(model.probabilities(TEXTS)[0], expected, atol=1e-6)
    assert model.threshold == 0.5


def test_a_long_text_is_the_mean_of_its_windows_by_tokens(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="classification", labels=LABELS)
    model = Classifier.load(folder, exact)
    tokenizer, backbone = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    head = load_file(folder / "head.safetensors")
    ids = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    parts = np.array_split(ids, -(-len(ids) // 30))
    assert len({len(part) for part in parts}) == 2  # so that weighing them matters
    answers = []
    for part in parts:
        with torch.no_grad():
            hidden = backbone(torch.tensor([[2, *part, 3]])).last_hidden_state[0]
        answers.append((head["weight"] @ hidden.mean(0) + head["bias"]).numpy())
    logits, tokens = model.logits(["ok", LONG])
    np.testing.assert_allclose(logits[1], np.average(answers, axis=0, weights=[len(p) + 2 for p in parts]), atol=1e-5)
    assert tokens[1] == len(ids) + 2 * len(parts)


def test_pairs(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="pair", labels=("no", "yes"), inputs="pair")
    model = Classifier.load(folder, exact)
    seconds = ["the kettle", "水壶", "ok", "no", "no", "lamp"]
    logits, _ = model.logits(TEXTS, seconds)
    expected = [plain_pooled(folder, a, b) for a, b in zip(TEXTS, seconds, strict=True)]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(model.logits(seconds, TEXTS)[0] - logits).max() > 1e-3  # which is first matters
    assert model.probabilities([LONG, "a"], ["b", LONG])[0].shape == (2, 2)


def test_order_changes_nothing(fine_tuned: Make) -> None:
    model = Classifier.load(fine_tuned(objective="classification", labels=LABELS), exact)
    texts = [*TEXTS, LONG, *(f"lamp {i} " * (i % 9) for i in range(200))]
    there, tokens = model.probabilities(texts)
    back, tokens_back = model.probabilities(texts[::-1])
    np.testing.assert_array_equal(there, back[::-1])
    np.testing.assert_array_equal(tokens, tokens_back[::-1])
    assert model.probabilities([])[0].shape == (0, 3)


@pytest.mark.parametrize(("objective", "levels", "outputs"), [("regression", (), 2), ("quantile", (0.1, 0.5, 0.9), 6)])
def test_numbers(fine_tuned: Make, objective: str, levels: tuple[float, ...], outputs: int) -> None:
    folder = fine_tuned(objective=objective, levels=levels, horizon=2)
    found = Classifier.load(folder, exact).numbers(TEXTS)
    assert found.shape == (len(TEXTS), outputs)
    np.testing.assert_allclose(found, [plain_pooled(folder, text) for text in TEXTS], atol=1e-5)


def test_other_models_are_refused(fine_tuned: Make, tmp_path: Path) -> None:
    tags = fine_tuned(objective="token_classification", labels=("O", "B-X"), pooling="native")
    with pytest.raises(UserError, match="'token_classification': expected a model that was fine-tuned for one of"):
        Classifier.load(tags)
    with pytest.raises(UserError, match="expected a model that was fine-tuned"):
        Classifier.load(tags.parent / "base")


def test_bfloat16_is_near(fine_tuned: Make) -> None:
    folder: Any = fine_tuned(objective="classification", labels=LABELS)
    half = Classifier.load(folder, lambda network: TorchEngine(network, "cpu", "bfloat16")).probabilities(TEXTS)[0]
    np.testing.assert_allclose(half, Classifier.load(folder, exact).probabilities(TEXTS)[0], atol=0.03)
