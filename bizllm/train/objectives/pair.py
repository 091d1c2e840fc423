"""One class for two texts: they entail, answer, duplicate each other, or do not."""

from __future__ import annotations

from typing import ClassVar

from bizllm.train.objectives.classification import Classification


class Pair(Classification):
    """As classification, of `text` and `pair` in one sequence."""

    name = "pair"
    summary = "One of several classes for two texts."
    needs: ClassVar[tuple[str, ...]] = ("text", "pair", "label")


OBJECTIVE = Pair
