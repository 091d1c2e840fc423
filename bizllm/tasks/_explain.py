"""`explain: true`: what an answer rests on, for the tasks that can say it. A task takes what it needs of this:

* one that gives a text a label takes `ExplainedText` into its settings, `WHY` into its columns and rules, and `why` for
  the column;
* one that reads numbers takes `Explained`, and a column `drivers` of its own, `EFFECTS` where these add up to `mean`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from bizllm.methods import attribution
from bizllm.models.gradients import PASSES
from bizllm.tasks._labels import Labeller
from bizllm.tasks.base import TaskSettings

MOST_SHOWN = 8  # spans of a text
WHY = pa.field("why", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("weight", pa.float32())])))
WRITES = {
    "why": "list of {start, end, weight}, with `explain`: the words that carried the label, characters [start, end) "
    f"of the text, weightiest first, at most {MOST_SHOWN}; what each adds to the log-odds of the label"
}
RULES = {
    "what carried the label stands in the text": "not list_contains([w['start'] < 0 or w['start'] >= w['end'] or "
    "not w['weight'] > 0 for w in why], true)"
}
EXHIBIT = pa.schema(
    [("title", pa.string()), ("source", pa.string()), ("result", pa.string()), ("score", pa.float64()), WHY]
)
EFFECTS = pa.field("drivers", pa.list_(pa.struct([("driver", pa.string()), ("effect", pa.float64())])))
EFFECT_RULES = {
    "drivers add up to the mean": "abs(list_sum([d['effect'] for d in drivers]) - mean) <= "
    "1e-9 * list_sum([abs(d['effect']) for d in drivers])"
}
NGRAM_SECONDS_PER_BYTE = 1e-5
_TOGETHER = 256  # texts that are explained at once: what is held of a text grows with its length
_SAMPLES, _SAMPLE_CHARS = 6, 1_500
_BYTES_PER_WORD = 6.0
_FLOAT32 = 2.2  # times the seconds of bfloat16


class Explained(TaskSettings):
    """What a task takes that can tell what drove its numbers."""

    explain: bool = Field(default=False, description="Also write what drove the answer: the column `drivers`.")


class ExplainedText(TaskSettings):
    """What a task takes that can tell which words of a text carried its label."""

    explain: bool = Field(
        default=False,
        description="Also write which words carried the label: the column `why`. Costs the model's time several times.",
    )


def why(labeller: Labeller, texts: Sequence[str], likely: npt.NDArray[Any]) -> tuple[pa.Array, int]:
    """(the column `why` of the texts, tokens read for it). likely: (texts, labels) probabilities."""
    rows: list[list[dict[str, float]]] = []
    tokens = 0
    for first in range(0, len(texts), _TOGETHER):
        some = texts[first : first + _TOGETHER]
        weighed, read = labeller.weighed(some, likely[first : first + _TOGETHER])
        tokens += read
        for text, found in zip(some, weighed, strict=True):
            strongest = found.strongest(text, MOST_SHOWN)
            rows.append([{"start": start, "end": end, "weight": weight} for start, end, weight in strongest])
    return pa.array(rows, WHY.type), tokens


def exhibit(texts: Sequence[str], answers: pa.Table) -> pa.Table:
    """A few texts with what carried their labels, for the night's report: of each label one, the surest first.

    answers: (texts,) with the columns label, probability and why.
    """
    labels, sure = answers["label"].to_pylist(), answers["probability"].to_numpy()
    picks: dict[str, int] = {}
    for i in np.argsort(-sure, kind="stable").tolist():
        picks.setdefault(labels[i], i)
    shown = list(picks.values())[:_SAMPLES]
    spans = answers["why"].take(pa.array(shown, pa.int64())).to_pylist()
    rows = [
        {
            "title": f"text, {len(texts[i]):,} characters",
            "source": texts[i][:_SAMPLE_CHARS],
            "result": labels[i],
            "score": float(sure[i]),
            "why": [span for span in of if span["end"] <= _SAMPLE_CHARS],
        }
        for i, of in zip(shown, spans, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=EXHIBIT)


def effects(of: Mapping[str, npt.NDArray[np.float64]]) -> list[list[dict[str, Any]]]:
    """The items of `EFFECTS` for each record, largest first. of: (records,) of each driver."""
    table = np.stack(list(of.values()), axis=1)
    order = np.argsort(-np.abs(table), axis=1, kind="stable")
    names = list(of)
    return [
        [{"driver": names[i], "effect": effect[i]} for i in largest]
        for largest, effect in zip(order.tolist(), table.tolist(), strict=True)
    ]


def cost(rows: int, text_bytes: int, plain: tuple[int, float], fine_tuned: bool) -> tuple[int, float]:
    """(tokens, CPU seconds) with explanations of what takes `plain` without, for `Task.estimate`."""
    words = min(attribution.MOST_PIECES, text_bytes / max(1, rows) / _BYTES_PER_WORD)
    passes, slower = (PASSES, _FLOAT32) if fine_tuned else (words, 1.0)
    tokens, seconds = plain
    return int(tokens * (1 + passes)), seconds * (1 + slower * passes)
