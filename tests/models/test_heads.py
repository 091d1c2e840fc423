"""Training on from a fine-tuned model: what it knew of its classes is there before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bizllm.models.network import load_network, new_network
from bizllm.models.saved import ModelInfo, read_info

Make = Callable[..., Path]
TEXTS = ["the lamp is broken", "kettle the the", "broken lamp"]


def logits(network: torch.nn.Module, folder: Path) -> torch.Tensor:
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        made: torch.Tensor = network.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return made


def info_of(folder: Path, **changes: object) -> ModelInfo:
    info = read_info(folder)
    assert info is not None
    return replace(info, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "pooling"),
    [("classification", "mean"), ("classification", "native"), ("token_classification", "native")],
)
def test_known_classes_go_on_and_new_ones_begin_afresh(fine_tuned: Make, objective: str, pooling: str) -> None:
    folder = fine_tuned(objective=objective, labels=("a", "b", "c"), pooling=pooling)
    before = logits(load_network(folder, info_of(folder)), folder)
    more = info_of(folder, labels=("a", "b", "c", "d", "e"))
    after = logits(new_network(folder, more), folder)
    torch.testing.assert_close(after[..., :3], before)
    assert after.shape[-1] == 5 and after[..., 3:].abs().max() > 0
    assert not torch.allclose(after[..., 3], after[..., 4])
    # Another order, and a class fewer: by name, not by place.
    other = logits(new_network(folder, info_of(folder, labels=("c", "x", "a"))), folder)
    torch.testing.assert_close(other[..., [0, 2]], before[..., [2, 0]])


def test_the_grown_model_is_one_of_plain_transformers(fine_tuned: Make, tmp_path: Path) -> None:
    folder = fine_tuned(objective="classification", labels=("a", "b"), pooling="native")
    network = new_network(folder, info_of(folder, labels=("a", "b", "new")))
    network.model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.id2label == {0: "a", 1: "b", 2: "new"} and plain.num_labels == 3
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**batch).logits, logits(network, folder))


@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_a_head_for_other_answers_is_fresh(fine_tuned: Make, pooling: str) -> None:
    """Of other classes alone, another objective, another pooling: nothing of the old head would be right."""
    folder = fine_tuned(objective="classification", labels=("a", "b", "c"), pooling=pooling)
    before = logits(load_network(folder, info_of(folder)), folder)
    for changes in ({"labels": ("x", "y")}, {"objective": "regression", "labels": (), "horizon": 2}):
        network = new_network(folder, info_of(folder, **changes))
        after = logits(network, folder)
        assert after.shape == (3, 2) and not torch.allclose(after, before[:, :2], atol=1e-3)
    with pytest.raises(AssertionError, match="holds that model"):
        load_network(folder, info_of(folder, labels=("x", "y")))


@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_numbers_go_on_where_they_mean_the_same(fine_tuned: Make, pooling: str) -> None:
    folder = fine_tuned(objective="quantile", levels=(0.1, 0.5), horizon=2, pooling=pooling)
    before = logits(load_network(folder, info_of(folder)), folder)
    torch.testing.assert_close(logits(new_network(folder, info_of(folder, name="next")), folder), before)
    other = logits(new_network(folder, info_of(folder, levels=(0.5, 0.9))), folder)
    assert other.shape == before.shape and not torch.allclose(other, before, atol=1e-3)
