"""What the models that were fine-tuned here have in common: a network that gives logits, loaded from its folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from bizllm.errors import Fault, UserError
from bizllm.models import batches
from bizllm.models.batches import Floats
from bizllm.models.engines.base import Engine, Kind, Network
from bizllm.models.engines.torch_engine import TorchEngine
from bizllm.models.saved import HEAD, ModelInfo, read_info


@dataclass(frozen=True)
class FineTuned:
    """A network with its tokenizer, and what its outputs mean. Never truncates.

    engine: computes the network's outputs. network: what it computes, and how they become logits. tokenizer: a fast one
    of transformers.
    """

    objectives: ClassVar[tuple[str, ...]]

    engine: Engine
    network: Network
    tokenizer: Any
    info: ModelInfo

    @classmethod
    def load(cls, folder: Path, engine: Callable[[Network], Engine] = TorchEngine) -> Self:
        """Load from a fine-tuned model's folder. Raises UserError where it is of another kind.

        engine: what computes; by default torch, where and as is fastest.
        """
        info = read_info(folder)
        if info is None or info.objective not in cls.objectives:
            one_of = "one of " if len(cls.objectives) > 1 else ""
            expected = f"expected a model that was fine-tuned for {one_of}{', '.join(cls.objectives)}"
            raise UserError(Fault(str(folder), info and info.objective, expected))
        tokenizer = batches.load_tokenizer(folder)
        pairs = info.inputs == "pair" and "token_type_ids" in tokenizer.model_input_names
        inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if pairs else ()))
        network = Network(
            lambda: _module(folder, info),
            inputs,
            tokenizer.pad_token_id or 0,
            _KINDS.get(info.objective, "numbers"),
            _cut(info),
            None if info.pooling == "native" else _head(folder),
        )
        return cls(engine(network), network, tokenizer, info)


def _module(folder: Path, info: ModelInfo) -> Any:
    from bizllm.models.network import load_network, load_pooled  # torch, which not every engine needs

    return load_network(folder, info) if info.pooling == "native" else load_pooled(folder, info.pooling)


@dataclass(frozen=True)
class Head:
    """Pooled vectors (rows, dim) → logits (rows, outputs). weight: (outputs, dim)."""

    weight: Floats
    bias: Floats

    def __call__(self, pooled: Floats) -> Floats:
        logits: Floats = (pooled @ self.weight.T + self.bias).astype(np.float32)
        return logits


def _head(folder: Path) -> Head:
    from safetensors.numpy import load_file

    saved = load_file(folder / HEAD)
    return Head(saved["weight"], saved["bias"])


def _cut(info: ModelInfo) -> float:
    """The logit of the probability from which a label is given."""
    threshold = 0.5 if info.threshold is None else min(max(info.threshold, 1e-9), 1 - 1e-9)
    return info.temperature * math.log(threshold / (1 - threshold))


_KINDS: dict[str, Kind] = {
    "classification": "classes",
    "pair": "classes",
    "multi_label": "labels",
    "token_classification": "tags",
}
