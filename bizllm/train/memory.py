"""Memory of a worker by ZeRO stage, from a model's shape alone; nothing is loaded.

State: Rajbhandari et al. 2020, §3: weights, gradients, and Adam's two moments (with an fp32 copy where weights are
16-bit), each divided among the workers from a stage on. Activations: Korthikanti et al. 2022, §4, with an attention
that keeps no score matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bizllm.train import methods, zero

if TYPE_CHECKING:
    from bizllm.train.work import Work

PROCESS_MB = 900.0  # torch, transformers and DeepSpeed loaded, before any model, with room; measured: 610 to 680
# Of a trained parameter, on a CPU: gradients and weights under way to other workers, and copies of which best weights
# and checkpoints are written. Measured at 22M and 110M parameters.
PASSING_BYTES = 8
# What some hundred steps of all lengths leave behind on a CPU, kernels for each shape and gaps in the heap: of a
# trained parameter, and at most. Measured at 22M parameters.
LEFT_BYTES, LEFT_MB = 12, 250.0
# Stage 3 gathers and frees weights in each layer, which leaves more. Measured: 270 to 440 more than without it at 22M
# parameters, less than nothing at 110M in a shorter run.
GATHERING_MB = 300.0
ACTIVATION_BYTES = 34  # a token, layer and hidden unit, in 16 bits; twice that in 32
STEPS = 1_000_000  # that a method is set up for: no number depends on it


@dataclass(frozen=True)
class Shape:
    """parameters: of base and head; trainable: of those, what the method trains."""

    parameters: int
    trainable: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True)
class Estimate:
    """MB of one worker, at its peak."""

    stage: int
    offload: str
    mb: float
    chosen: bool


def shape_of(work: Work) -> Shape:
    """Count parameters on the meta device: no weights are read."""
    import torch

    from bizllm.models.network import empty_network

    with torch.device("meta"):
        network = methods.apply(empty_network(work.base, work.info), work.recipe, STEPS)
    config: Any = getattr(network, "model", None) or getattr(network, "backbone", None)
    config = config.config
    return Shape(
        sum(p.numel() for p in network.parameters()),
        sum(p.numel() for p in network.parameters() if p.requires_grad),
        int(getattr(config, "num_hidden_layers", 0) or 1),
        int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0) or 1),
        int(getattr(config, "vocab_size", 0) or 1),
    )


def estimates(
    work: Work, shape: Shape, workers: int, tokens: int, numbers: zero.Precision, device: str
) -> list[Estimate]:
    """One for each stage and offload. tokens: of a worker's micro-batch, padding included."""
    made = []
    for stage in (0, 1, 2, 3):
        for offload in ("none", "cpu") if device != "cpu" and stage else ("none",):
            asked = work.recipe.zero
            chosen = (stage, offload) == (asked.stage, asked.offload if asked.offload != "nvme" else "cpu")
            mb = PROCESS_MB + state_mb(shape, workers, stage, offload, numbers, device)
            mb += activations_mb(work, shape, tokens, numbers)
            if device == "cpu":
                mb += PASSING_BYTES * shape.trainable / 1e6 + min(LEFT_BYTES * shape.trainable / 1e6, LEFT_MB)
            if stage == 3:  # the other workers' parts of the weights that are in use
                gathered = min(shape.parameters, zero.LIVE) * (1 - 1 / workers)
                mb += _weight_bytes(numbers, device) * gathered / 1e6 + (GATHERING_MB if device == "cpu" else 0)
            made.append(Estimate(stage, offload, mb, chosen))
    return made


def state_mb(shape: Shape, workers: int, stage: int, offload: str, numbers: zero.Precision, device: str) -> float:
    """Weights, gradients and optimizer state of a worker; what is offloaded to the CPU doesn't count."""
    size = _weight_bytes(numbers, device)
    small = size == 2
    weights: float = size * shape.parameters
    gradients: float = size * shape.trainable
    optimizer: float = (12 if small else 8) * shape.trainable
    if stage >= 1:
        # On the CPU a flat copy of the trained weights, this worker's part of it, stands beside the weights.
        optimizer = (optimizer + (0 if small else 4 * shape.trainable)) / workers
    if stage >= 2:
        gradients /= workers
    if stage >= 3:
        weights = weights / workers
    if offload != "none":
        optimizer = 0
    return (weights + gradients + optimizer) / 1e6


def _weight_bytes(numbers: zero.Precision, device: str) -> int:
    """On a CPU weights stay fp32, and autocast does the rest."""
    return 2 if numbers != "fp32" and device != "cpu" else 4


def activations_mb(work: Work, shape: Shape, tokens: int, numbers: zero.Precision) -> float:
    """What the forward pass keeps for the backward pass, and the logits of a language model."""
    double = 2 if numbers == "fp32" else 1
    layers = 2 if work.recipe.optim.gradient_checkpointing else shape.layers
    kept = ACTIVATION_BYTES * double * tokens * shape.hidden * layers
    logits = (
        3 * 4 * tokens * shape.vocabulary if is_language(work.recipe.objective) else 0
    )  # logits, their softmax, its gradient
    return (kept + logits) / 1e6


def is_language(objective: str) -> bool:
    """Whether a model of that objective answers with one of all tokens."""
    return objective in ("causal_lm", "seq2seq", "masked_lm")
