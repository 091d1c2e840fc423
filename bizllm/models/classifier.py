"""Fine-tuned models that answer once a text or a pair of texts: classes with calibrated probabilities, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import summed
from bizllm.models.fine_tuned import FineTuned, Head
from bizllm.models.gradients import Gradients

CLASSES = ("classification", "multi_label", "pair")
NUMBERS = ("regression", "quantile")


@dataclass(frozen=True)
class Classifier(FineTuned):
    """Logits (rows, outputs): of classes, or numbers."""

    objectives: ClassVar[tuple[str, ...]] = (*CLASSES, *NUMBERS)

    @property
    def threshold(self) -> float | None:
        """The probability that the model asks of a label; 0.5 where several may hold and it says nothing."""
        several = self.info.objective == "multi_label"
        return 0.5 if several and self.info.threshold is None else self.info.threshold

    def probabilities(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> tuple[Floats, Whole]:
        """(probabilities float32 (texts, labels), tokens of each text (texts,)): of each label alone for multi_label,
        of one label among all else. Calibrated: logits are divided by the model's temperature.

        pairs: the second text of each, for a model of pairs.
        """
        logits, tokens = self.logits(texts, pairs)
        if self.info.objective == "multi_label":
            # The logistic function by way of tanh, which can't overflow.
            return (0.5 + 0.5 * np.tanh(logits / (2 * self.info.temperature))).astype(np.float32), tokens
        return softmax(logits, self.info.temperature), tokens

    def numbers(self, texts: Sequence[str]) -> Floats:
        """(texts, outputs) float32: what a regression or quantile model says."""
        return self.logits(texts)[0]

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> tuple[Floats, Whole]:
        """(logits float32 (texts, outputs), tokens that the model read of each text (texts,)).

        A text longer than the model's window is cut into windows of equal length, and their logits are averaged by
        token count. Equal texts are read once. The order of the texts changes nothing, not even the batches.
        """
        if not texts:
            return np.zeros((0, self.info.outputs), np.float32), np.zeros(0, np.int64)
        if pairs is None:
            unique, places = batches.distinct(texts)
            parts = batches.in_parts(self._windows, unique, ahead=self.engine.on_gpu)
        else:
            couples, places = batches.distinct(list(zip(texts, pairs, strict=True)))
            parts = batches.in_parts(self._pair_windows, couples, ahead=self.engine.on_gpu)
        logits, tokens = summed(self.engine, self.network, parts)
        mean: Floats = logits / tokens.astype(np.float32)[:, None]
        return mean[places], tokens[places]

    @cached_property
    def gradients(self) -> Gradients:
        """What tells how much each character of a text adds to its logits."""
        finish = self.network.finish
        head = finish.weight if isinstance(finish, Head) else None
        return Gradients(self.network, self.tokenizer, self.info.max_tokens, head)

    def _windows(self, texts: list[str]) -> Windows:
        return batches.text_windows(self.tokenizer, texts, self.info.max_tokens)

    def _pair_windows(self, pairs: list[tuple[str, str]]) -> Windows:
        return batches.pair_windows(self.tokenizer, pairs, self.info.max_tokens)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """(rows, outputs) probabilities of logits (rows, outputs) that are divided by the temperature first."""
    scaled = logits / np.float32(temperature)
    powers: Floats = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities: Floats = powers / powers.sum(1, keepdims=True)
    return probabilities
