"""Answers of a writer that is a rule: a right one, one that is repaired, one that is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.models.writer import Generations
from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.complete import Complete, CompleteSettings

ROWS = pa.table({"body": ["The lid leaks.", "盖子漏水。", "nonsense", None], "stars": [1, 2, 3, None]})


def _count(texts: Sequence[str]) -> Any:
    return np.array([len(text) for text in texts], np.int64)


def _generate(prompts: Sequence[str], most: int, *, schema: Any) -> Generations:
    texts = []
    for prompt in prompts:
        right = {"product": "盖子" if "盖子" in prompt else "lid", "urgency": 4}
        wrong = "nonsense" in prompt or ("盖子" in prompt and "Answer again" not in prompt)
        texts.append(json.dumps(right | ({"urgency": 9} if wrong else {})))
    return Generations(texts, _count(prompts), _count(texts), np.ones(len(texts), bool))


def outcome() -> Outcome:
    """Both languages; tokens are the characters of the prompts, so that a changed template shows."""
    writer = SimpleNamespace(count=_count, max_input_tokens=lambda most: 5_000, generate=_generate)
    settings = CompleteSettings(
        task="complete",
        input="rows",
        columns=["body", "stars"],
        generator="m",
        ask="What is this ticket about?",
        fields={"product": "the product's name", "urgency": {"type": "integer", "least": 1, "most": 5}},
    )
    task = Complete(settings, StepInput("rows", ROWS.schema), date(2026, 3, 10))
    task.open(SimpleNamespace(generator=lambda uri: writer))  # type: ignore[arg-type]
    return task.answer(task.prepare(ROWS))
