"""Against forgetting: a price on leaving the parameters that earlier training found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import torch
from torch import nn

from bizllm.train.optim import is_head

if TYPE_CHECKING:
    from bizllm.train.work import Work

FISHER_ROWS = 512  # of the earlier training's rows; more changes the estimate little
FISHER_BATCH = 8


@dataclass(frozen=True)
class Penalty:
    """Half of weight × Σ importance (θ − θ₀)², of the base's parameters; the head may have new classes.

    L2-SP: importance 1 (Li, Grandvalet & Davoine 2018). EWC: the Fisher information's diagonal, its mean scaled to 1
    (Kirkpatrick et al. 2017).
    """

    weight: float
    anchor: dict[str, torch.Tensor]
    importance: dict[str, torch.Tensor] | None

    @classmethod
    def of(cls, work: Work, network: nn.Module) -> Penalty | None:
        """The recipe's price, of the network before training; None where it asks for none."""
        asked = work.recipe.continual
        if not (asked.ewc or asked.l2_sp):
            return None
        named = {n: p for n, p in network.named_parameters() if p.requires_grad and not is_head(n)}
        anchor = {name: parameter.detach().clone() for name, parameter in named.items()}
        return cls(asked.ewc or asked.l2_sp, anchor, _fisher(work, network, named) if asked.ewc else None)

    def __call__(self, network: nn.Module) -> torch.Tensor:
        """The price now."""
        total = torch.zeros(())
        for name, parameter in network.named_parameters():
            if name in self.anchor:
                gap = (parameter - self.anchor[name].to(parameter.device, parameter.dtype)) ** 2
                if self.importance is not None:
                    gap = gap * self.importance[name].to(parameter.device, parameter.dtype)
                total = total.to(parameter.device) + gap.sum().float()
        return 0.5 * self.weight * total


def _fisher(work: Work, network: nn.Module, named: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """The mean squared gradient of the loss on rows of the earlier training (part `replay`), batch by batch."""
    examples = work.examples("replay").slice(0, FISHER_ROWS)
    found = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    network.eval()
    for start in range(0, len(examples), FISHER_BATCH):
        rows = pa.array(range(start, min(start + FISHER_BATCH, len(examples))))
        batch = work.objective.collate(examples.take(rows))
        network.zero_grad()
        cast(Any, work.objective.loss(network, batch)).backward()
        for name, parameter in named.items():
            if parameter.grad is not None:
                found[name] += parameter.grad.detach() ** 2
    network.zero_grad()
    network.train()
    mean = sum(float(value.sum()) for value in found.values()) / max(1, sum(value.numel() for value in found.values()))
    return {name: value / max(mean, 1e-30) for name, value in found.items()}
