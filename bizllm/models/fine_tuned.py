"""What the models that were fine-tuned here have in common: a network that gives logits, loaded from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from bizllm.errors import Fault, UserError
from bizllm.models import batches
from bizllm.models.saved import ModelInfo, read_info


@dataclass(frozen=True)
class FineTuned:
    """A network with its tokenizer, and what its outputs mean. Never truncates.

    network: gives logits for input_ids and attention_mask. tokenizer: a fast one of transformers.
    """

    objectives: ClassVar[tuple[str, ...]]

    network: Any
    tokenizer: Any
    info: ModelInfo
    device: str
    dtype: str

    @classmethod
    def load(cls, folder: Path, device: str | None = None, dtype: str | None = None) -> Self:
        """Load from a fine-tuned model's folder. Raises UserError where it is of another kind.

        device: default cuda where there is one, else cpu. dtype: default the fastest that the device computes natively.
        """
        from bizllm.models.network import load_network

        info = read_info(folder)
        if info is None or info.objective not in cls.objectives:
            one_of = "one of " if len(cls.objectives) > 1 else ""
            expected = f"expected a model that was fine-tuned for {one_of}{', '.join(cls.objectives)}"
            raise UserError(Fault(str(folder), info and info.objective, expected))
        tokenizer = batches.load_tokenizer(folder)
        device, dtype = batches.placement(device, dtype)
        return cls(load_network(folder, info).to(device), tokenizer, info, device, dtype)
