"""A head that knows its classes before training: linear probing, then fine-tuning (Kumar et al., ICLR 2022).

From a random head the first steps pull a pretrained model's vectors out of shape; from a fitted one they do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bizllm.train import zero
from bizllm.train.vectors import vectors
from bizllm.train.work import take

if TYPE_CHECKING:
    import pyarrow as pa

    from bizllm.models.network import PooledModel
    from bizllm.train.objectives.classification import Classification

ROWS = 20_000  # of train at most: more of them hardly move a linear head
C = 10.0  # of the penalty, as in scikit-learn's LogisticRegression, on vectors of length 1
ITERATIONS = 200


def fit(network: PooledModel, objective: Classification, examples: pa.Table) -> None:
    """Fit the head to the examples' vectors by the objective's own loss and an L2 penalty (L-BFGS); in place.

    The same on every worker: it follows from the examples and the recipe's seed.
    """
    assert network.head is not None, "a classifier has a head"
    order = np.random.default_rng(objective.recipe.seed).permutation(len(examples))[:ROWS]
    some = take(examples, np.sort(order))
    home, device = network.head.weight.device, torch.device(zero.device_name())
    seen = torch.from_numpy(vectors(objective, network.to(device), some)).to(device)
    network.to(home)
    batch = {name: value.to(device) for name, value in objective.collate(some).items()}
    target, units = objective.soft_targets(batch), batch["units"]
    scale = seen.norm(dim=1).mean().clamp(min=1e-12)
    seen = seen / scale
    terms = len(network.head.weight) if objective.name == "multi_label" else 1  # of which a row's loss is the mean
    weight = torch.zeros(network.head.weight.shape, device=device, requires_grad=True)
    bias = torch.zeros(len(weight), device=device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        rows = objective.per_row(seen @ weight.T + bias, target) * units
        made = rows.mean() + weight.square().sum() / (2 * C * len(seen) * terms)
        made.backward()  # type: ignore[no-untyped-call]
        return made

    solver.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        network.head.weight.copy_(weight / scale)
        network.head.bias.copy_(bias)
