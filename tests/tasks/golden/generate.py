"""Texts of a writer that is a rule, so that no model's digits decide; examples by words and n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.models.writer import Generations
from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.generate import Generate, GenerateSettings

ROWS = pa.table(
    {
        "name": ["Brook kettle", "青溪水壶", "Oak lamp", None],
        "litres": [1.7, 1.5, None, None],
        "colour": ["blue", "白色", "brown", None],
    }
)
APPROVED = pa.table({"name": ["Hill kettle", "青山水壶"], "ad": ["Tea on the Hill kettle.", "青山水壶，好水好茶。"]})


def _count(texts: Sequence[str]) -> Any:
    return np.array([len(text) for text in texts], np.int64)


def _generate(prompts: Sequence[str], most: int, *, temperature: float, seed: int) -> Generations:
    """The facts of a prompt, one more with each try; the first says a number too many."""
    texts = []
    for prompt in prompts:
        inside = prompt[prompt.rindex("\n<data>\n") + 8 : prompt.rindex("\n</data>")]
        values = [line.partition(": ")[2] for line in inside.splitlines()]
        texts.append("Only 99 today" if not seed else ", ".join(values[:seed]))
    return Generations(texts, _count(prompts), _count(texts), np.ones(len(texts), bool))


def outcome() -> Outcome:
    """Two texts a row, in both languages, and a row without facts."""
    writer = SimpleNamespace(count=_count, max_input_tokens=lambda most: 5_000, generate=_generate)
    settings = GenerateSettings(
        task="generate",
        input="rows",
        facts=["name", "litres", "colour"],
        generator="m",
        examples={"input": "approved", "facts": ["name"], "text": "ad"},
        must_have=["name"],
        max_chars=40,
        n=2,
    )
    others = {"examples": StepInput("approved", APPROVED.schema)}
    task = Generate(settings, StepInput("rows", ROWS.schema), date(2026, 3, 10), others)
    task = Generate(settings, task.source, task.run_date, others, learned=task.learn({"examples": APPROVED}))
    task.open(SimpleNamespace(generator=lambda uri: writer))  # type: ignore[arg-type]
    return task.answer(task.prepare(ROWS))
