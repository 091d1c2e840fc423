"""The head of a model that is trained on: what it knew of its classes is carried over, new ones begin afresh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bizllm.models.saved import HEAD, ModelInfo, read_info

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = HEAD
FRESH_STD = 0.02


def earlier(folder: Path, info: ModelInfo) -> ModelInfo | None:
    """What the model in the folder answers, where the new one's head can go on from its head; else None."""
    before = read_info(folder)
    if before is None or (before.objective, before.pooling) != (info.objective, info.pooling):
        return None
    if info.labels:
        return before if set(before.labels) & set(info.labels) else None
    return before if (before.levels, before.horizon) == (info.levels, info.horizon) else None


def carry(head: nn.Linear, folder: Path, before: ModelInfo, info: ModelInfo) -> None:
    """Put the pooled head of the folder into a new one: the rows of classes that both have, or all numbers."""
    from safetensors.torch import load_file

    old = load_file(folder / FILE)
    _copy(head, old["weight"], old["bias"], before, info)


def grow(model: PreTrainedModel, before: ModelInfo, info: ModelInfo) -> None:
    """Give a classifier of transformers, loaded with its own classes, those of `info`; changed in place."""
    name, old = _output_layer(model, len(before.labels))
    new = nn.Linear(old.in_features, len(info.labels), bias=old.bias is not None)
    fresh(new)
    _copy(new, old.weight.detach(), None if old.bias is None else old.bias.detach(), before, info)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
    owner: Any = model
    owner.num_labels = len(info.labels)


def restart(model: PreTrainedModel, folder: Path, info: ModelInfo) -> None:
    """Begin the output layer afresh where the model in the folder was fine-tuned to answer something else."""
    if read_info(folder) is not None:
        fresh(_output_layer(model, info.outputs)[1])


def fresh(head: nn.Linear) -> None:
    """Small random weights."""
    nn.init.normal_(head.weight, std=FRESH_STD)
    if head.bias is not None:
        nn.init.zeros_(head.bias)


def _copy(head: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None, before: ModelInfo, info: ModelInfo) -> None:
    """weight: (outputs before, dim)."""
    if info.labels:
        known = [label for label in info.labels if label in before.labels]
        source, target = [before.labels.index(label) for label in known], [info.labels.index(label) for label in known]
    else:
        source = target = list(range(len(weight)))
    with torch.no_grad():
        head.weight[target] = weight[source].to(head.weight.dtype)
        if head.bias is not None and bias is not None:
            head.bias[target] = bias[source].to(head.bias.dtype)


def _output_layer(model: PreTrainedModel, outputs: int) -> tuple[str, nn.Linear]:
    """Name and module of the layer that gives the logits: the last linear one outside of the base model."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == outputs
        and not name.startswith(f"{model.base_model_prefix}.")
    ]
    assert found, "a classifier of transformers ends in a linear layer"
    return found[-1]
