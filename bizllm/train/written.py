"""What a language model writes for rows' prompts, held against the rows' answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import texts
from bizllm.train.objectives.base import STRING, is_kind
from bizllm.train.objectives.causal_lm import is_chat

MOST = 500  # rows that a model answers: writing is some hundred times slower than reading
METRICS = ("rougeL", "rouge1", "rouge2", "exact_match")

Scores = dict[str, npt.NDArray[np.float64]]


def asked(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Positions of the rows that are answered: all, or MOST of them at even distances."""
    return np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST)).round().astype(np.int64))


def writes(objective: str, schema: pa.Schema) -> bool:
    """Whether rows of that kind ask for a text: a prompt with an answer."""
    if objective not in ("causal_lm", "seq2seq") or "label" not in schema.names:
        return False
    return is_kind(schema.field("text").type, STRING) and not is_chat(schema.field("text").type)


def scores(rows: pa.Table, answers: Sequence[str]) -> Scores:
    """(answered rows,) of each metric, 0 … 100. answers: to the rows of `asked`."""
    truth = rows["label"].take(pa.array(asked(rows))).to_pylist()
    same = [texts.exact_match([one], [other]) for one, other in zip(truth, answers, strict=True)]
    return {**texts.rouge_rows(truth, answers), "exact_match": np.array(same)}


def means(found: Scores) -> dict[str, float]:
    """The metrics of all answered rows."""
    return {name: float(found[name].mean()) for name in METRICS if name in found}


def answer(folder: Path, rows: pa.Table, max_new_tokens: int) -> list[str]:
    """The model's greedy answers to the rows of `asked`. A prompt that its window can't hold gets an empty one."""
    from bizllm.models.generator import Generator

    generator = Generator.load(folder)
    # A small window is shared by prompt and answer.
    room = max_new_tokens if max_new_tokens < generator.max_tokens else max(1, generator.max_tokens // 2)
    prompts = rows["text"].take(pa.array(asked(rows))).to_pylist()
    fits = np.flatnonzero(generator.count(prompts) <= generator.max_input_tokens(room))
    written = generator.generate([prompts[i] for i in fits], room).texts if len(fits) else []
    made = [""] * len(prompts)
    for place, text in zip(fits, written, strict=True):
        made[place] = text
    return made
