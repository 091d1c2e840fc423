"""What each character of a text adds to a fine-tuned model's logits: integrated gradients, by Captum.

The gradient of the logits by the word embeddings, integrated on the way from a text of padding to the text
(Sundararajan, Taly & Yan, ICML 2017): what the tokens add is the difference of the two texts' logits, but for the steps
of the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import CPU_BUDGET, GPU_BUDGET, Network

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

STEPS = 16
PASSES = 3 * STEPS  # forward, and backward at about twice its cost, a step


@dataclass(frozen=True)
class Added:
    """characters: of each text (characters,) what each adds. gaps: (texts,) what is missing to the difference that they
    should add up to. tokens: of all passes."""

    characters: list[Array]
    gaps: Array
    tokens: int


@dataclass(frozen=True)
class Gradients:
    """The network once more, in torch and float32, whatever engine gives its answers.

    head: (outputs, dim) on the vectors that the network gives; None where it gives logits.
    """

    network: Network
    tokenizer: Any
    max_tokens: int
    head: Floats | None

    def added(self, texts: Sequence[str], towards: Floats) -> Added:
        """What each text's characters add to its logits (outputs,) times `towards` (texts, outputs).

        As in the model's answers, a long text's windows count by their tokens.
        """
        if not texts:
            return Added([], np.zeros(0), 0)
        windows = batches.text_windows(self.tokenizer, list(texts), self.max_tokens)
        places = batches.token_places(self.tokenizer, list(texts))
        before, after = map(len, batches.special_tokens(self.tokenizer, 1))
        directions = towards if self.head is None else towards @ self.head  # (texts, dim)
        share = windows.lengths / windows.tokens_read(len(texts))[windows.owner]
        of_tokens: list[Array] = [np.zeros(0)] * len(windows)
        gaps = np.zeros(len(texts))
        budget = CPU_BUDGET if self._device == "cpu" else GPU_BUDGET // 4  # what backward needs is kept meanwhile
        for batch in batches.by_budget(windows.lengths, budget):
            for rows, (found, gap) in batches.within_memory(
                lambda rows: self._integrated(windows, rows, directions, before, after), batch
            ):
                np.add.at(gaps, windows.owner[rows], gap * share[rows])
                for row, values in zip(rows.tolist(), found, strict=True):
                    of_tokens[row] = share[row] * values[before : windows.lengths[row] - after]
        characters = []
        for i, text in enumerate(texts):
            own = np.concatenate([np.zeros(0), *(of_tokens[w] for w in np.flatnonzero(windows.owner == i))])
            characters.append(_on_characters(text, places[i], own))
        return Added(characters, gaps, int(windows.lengths.sum()) * PASSES)

    def _integrated(
        self, windows: Windows, rows: Whole, directions: Floats, before: int, after: int
    ) -> tuple[Array, Array]:
        """((rows, tokens) what each token adds, (rows,) what is missing)."""
        import torch

        batch = batches.padded(windows, rows, self.network.pad)
        nothing = batch["input_ids"].copy()  # special tokens stay
        for row, length in zip(nothing, windows.lengths[rows].tolist(), strict=True):
            row[before : length - after] = self.network.pad
        device = self._device
        ids, mask, empty = (
            torch.from_numpy(array).to(device) for array in (batch["input_ids"], batch["attention_mask"], nothing)
        )
        towards = torch.from_numpy(directions[windows.owner[rows]].astype(np.float32)).to(device)
        found, gap = self._method.attribute(
            ids,
            empty,
            additional_forward_args=(mask, towards),
            n_steps=STEPS,
            internal_batch_size=len(ids),  # one step of all rows at a time
            return_convergence_delta=True,
        )
        return found.sum(-1).double().cpu().numpy(), gap.double().cpu().numpy()

    @cached_property
    def _device(self) -> str:
        return batches.placement(None, None)[0]

    @cached_property
    def _method(self) -> Any:
        from captum.attr import LayerIntegratedGradients

        module = self.network.build().to(self._device).requires_grad_(False)
        inner = module.model if hasattr(module, "model") else module.backbone

        def logits(ids: torch.Tensor, mask: torch.Tensor, towards: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = module(input_ids=ids, attention_mask=mask)
            return (made * towards).sum(1)

        return LayerIntegratedGradients(logits, inner.get_input_embeddings())


def _on_characters(text: str, places: Sequence[tuple[int, int]], values: Array) -> Array:
    """(characters,) of (tokens,): in equal parts on a token's characters that are no white space."""
    assert len(places) == len(values), "each token stands in one window"
    visible = [i for i, character in enumerate(text) if not character.isspace()]
    found = np.zeros(len(text))
    for (start, end), value in zip(places, values.tolist(), strict=True):
        low, high = bisect_left(visible, start), bisect_left(visible, end)
        # A token of a blank alone goes to the character behind it.
        on = visible[low:high] or visible[low : low + 1] or visible[-1:]
        found[on] += value / max(1, len(on))
    return found
