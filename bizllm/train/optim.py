"""Which parameter learns how fast, and how the rate changes while training goes on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import OptimSettings

HEAD_RATE = 10.0  # times the base's rate, where the recipe names none: the head begins at random
_LAYER = re.compile(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.")
# Fresh heads. A language model's output layer (lm_head, cls) was trained before: it is part of the base.
_HEAD = re.compile(r"^(head|model\.(pre_classifier|classifier|classification_head|score))\.")
_WRAPPED = re.compile(r"base_model\.(model\.)?|base_layer\.|modules_to_save\.\w+\.")  # by PEFT
_PLAIN = re.compile(r"(bias|norm\d?|ln_\w+|layer_?norm)(\.weight|\.bias)?$", re.I)  # never decayed


@dataclass(frozen=True)
class Rate:
    """learning rate and weight decay of a group of parameters."""

    lr: float
    weight_decay: float


def groups(named: Iterable[tuple[str, torch.nn.Parameter]], optim: OptimSettings) -> list[dict[str, Any]]:
    """Parameter groups of a network's trainable parameters for a torch optimizer.

    The head has a rate of its own; with `layer_decay` each layer below the topmost learns by that factor slower, and
    the embeddings slowest. The base's biases and norms do not decay; the head's bias does: in a group of its own it
    would be so small that some workers had no part of it, and DeepSpeed then can't load a universal checkpoint.
    """
    named = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    top = max((depth for name, _ in named if (depth := _depth(name)) is not None), default=0)
    made: dict[Rate, list[torch.nn.Parameter]] = {}
    for name, parameter in named:
        decay = optim.weight_decay
        if is_head(name):
            lr = optim.head_lr or HEAD_RATE * optim.lr
        else:
            decay = 0.0 if _PLAIN.search(name) else decay
            depth = _depth(name)
            lr = optim.lr * optim.layer_decay ** (top - (top if depth is None else depth))
        made.setdefault(Rate(lr, decay), []).append(parameter)
    return [{"params": some, "lr": r.lr, "weight_decay": r.weight_decay} for r, some in made.items()]


def is_head(name: str) -> bool:
    """Whether a parameter of that name belongs to the head of a network."""
    return bool(_HEAD.search(_WRAPPED.sub("", name)))


def _depth(name: str) -> int | None:
    """0 for embeddings, 1 for the first layer, and so on; None for what lies above the layers."""
    found = _LAYER.search(name)
    if found:
        return int(found[1]) + 1
    return 0 if re.search(r"embed|wte|wpe|shared", name) else None


def factor(step: int, steps: int, optim: OptimSettings) -> float:
    """What the peak rate is multiplied by at a step (from 0): a linear rise, then the schedule. Falls of
    reduce_on_plateau come on top."""
    rise = round(optim.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    if optim.schedule == "linear":
        return max(0.0, 1.0 - done)
    if optim.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return 1.0


@dataclass
class Watch:
    """Early stopping and reduce-on-plateau: what the validations said so far. Travels with the checkpoint."""

    higher_is_better: bool
    best: float | None = None
    best_step: int = 0
    since_best: int = 0  # validations
    since_fall: int = 0
    falls: int = 0

    def see(self, value: float, step: int, optim: OptimSettings) -> bool:
        """Note a validation; whether it is the best so far. Not a number never is."""
        better = math.isfinite(value) and (
            self.best is None or (value > self.best if self.higher_is_better else value < self.best)
        )
        if better:
            self.best, self.best_step, self.since_best, self.since_fall = value, step, 0, 0
            return True
        self.since_best += 1
        self.since_fall += 1
        if optim.schedule == "reduce_on_plateau" and self.since_fall >= optim.patience:
            self.falls, self.since_fall = self.falls + 1, 0
        return False

    def tired(self, patience: int | None) -> bool:
        """Whether it is time to stop."""
        return patience is not None and self.since_best >= patience
