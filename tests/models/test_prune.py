"""Smaller networks made of larger ones: what stays is what was there, and what goes did least."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bizllm.errors import UserError
from bizllm.models import batches
from bizllm.models.batches import Windows
from bizllm.models.classifier import Classifier
from bizllm.models.network import load_network, new_network, save_network
from bizllm.models.prune import layer_count, pruned
from bizllm.models.saved import ModelInfo, read_info, write_info

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import tiny
import trainings

TEXTS = [text for text, _ in tiny.texts(40)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers of 48 units."""
    rows = trainings.table(60, 1)
    return trainings.classifier(tmp_path_factory.mktemp("teacher"), rows, num_hidden_layers=4)


def info_of(folder: Path) -> ModelInfo:
    info = read_info(folder)
    assert info is not None
    return info


def windows_of(folder: Path) -> Windows:
    return batches.text_windows(batches.load_tokenizer(folder), TEXTS, 32)


def smaller(folder: Path, target: Path, layers: int | None, feed_forward: float = 1.0) -> Path:
    pruned(folder, info_of(folder), target, layers, feed_forward, windows_of(folder), "prune")
    return target


def logits(folder: Path) -> np.ndarray:
    return Classifier.load(folder).logits(TEXTS)[0]


@pytest.mark.parametrize(("count", "kept"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])])
def test_layers_stay_as_they_are_the_first_and_the_last_among_them(
    teacher: Path, tmp_path: Path, count: int, kept: list[int]
) -> None:
    made = smaller(teacher, tmp_path / "made", count)
    assert layer_count(made) == count and info_of(made) == info_of(teacher)
    whole: Any = load_network(teacher, info_of(teacher))
    part: Any = load_network(made, info_of(made))
    for place, layer in enumerate(kept):
        theirs, ours = whole.backbone.encoder.layer[layer].state_dict(), part.backbone.encoder.layer[place].state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert torch.equal(whole.head.weight, part.head.weight)
    assert (np.abs(logits(made) - logits(teacher)).max() < 1e-2) == (count == 4)


def test_units_that_do_nothing_are_the_ones_that_go(teacher: Path, tmp_path: Path) -> None:
    """A third of the units carry nothing on, another third never stir: without both all answers are the same."""
    network: Any = load_network(teacher, info_of(teacher))
    with torch.no_grad():
        for number, layer in enumerate(network.backbone.encoder.layer):
            idle = (torch.arange(32) + 5 * number) % 48
            layer.output.dense.weight[:, idle[:16]] = 0
            layer.intermediate.dense.weight[idle[16:]] = 0
            layer.intermediate.dense.bias[idle[16:]] = -100.0  # GELU gives 0
    idle_folder = tmp_path / "idle"
    save_network(network, idle_folder)
    batches.load_tokenizer(teacher).save_pretrained(idle_folder)
    write_info(idle_folder, info_of(teacher))
    made = smaller(idle_folder, tmp_path / "made", None, 1 / 3)
    part: Any = load_network(made, info_of(made))
    assert {layer.intermediate.dense.out_features for layer in part.backbone.encoder.layer} == {16}
    with torch.no_grad():
        batch = batches.load_tokenizer(made)(TEXTS, padding=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        assert torch.allclose(part(**inputs), network(**inputs), atol=1e-5)


@pytest.mark.parametrize("kind", ["native", "gpt2", "llama"])
def test_other_kinds_of_networks(tmp_path: Path, kind: str) -> None:
    """transformers' own head; decoders, one of which names its feed-forward part otherwise."""
    folder = tmp_path / "base"
    (tiny.bert if kind == "native" else tiny.BASES[kind])(folder)
    pooling = "native" if kind == "native" else "last"
    info = ModelInfo("m", "classification", ("a", "b"), pooling=pooling, max_tokens=32)  # type: ignore[arg-type]
    save_network(new_network(folder, info, 0.0), folder)
    write_info(folder, info)
    made = smaller(folder, tmp_path / "made", 1)
    assert layer_count(made) == 1 and np.isfinite(logits(made)).all()
    if kind == "gpt2":
        with pytest.raises(UserError, match=r"prune.feed_forward: 0.5: is not known of models of the type gpt2"):
            smaller(folder, tmp_path / "other", None, 0.5)
    else:
        assert np.isfinite(logits(smaller(folder, tmp_path / "other", None, 0.5))).all()


def test_more_layers_than_there_are(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prune.layers: 5: the model has 4 layers"):
        smaller(teacher, tmp_path / "made", 5)
