"""consult: medquad's questions answered from passages of nine American health sites, and alarms that were false.

Each passage is the answer to one question; its title is the illness. `BM25` and `vectors` are as of answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import bench
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.methods.red_flags import RedFlags
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import StepInput
from bizllm.tasks.consult import Consult, ConsultSettings
from measured import Line
from measured.answer import bm25, compared, medquad, ranks_of, share

ENCODER = "builtin:minilm"
MODELS = ModelLoader()
REMARKS = """The same choices as of answer, on the same parts. medquad's questions name an illness and ask one
thing of it; patients write otherwise, and no set of their letters was at hand. So nothing here tells how many
red flags are missed: only tests of made-up sentences do. False alarms are counted on questions that ask for
knowledge."""


def lines(data: Path) -> list[Line]:
    """Which passage, whose answer, how many alarms."""
    asked = medquad(data, lambda key: share(key, 48) == 1)
    knowledge = pa.table(
        {
            "id": [f"{i:06d}" for i in range(len(asked.texts))],
            "title": asked.titles,
            "text": asked.texts,
            "site": ["medquad"] * len(asked.texts),
        }
    )
    columns = {"input": "passages", "id": "id", "title": "title", "text": "text", "source": "site"}
    settings = ConsultSettings(
        task="consult", input="asked", text="text", passages=columns, model=ENCODER, candidates=10
    )
    others = {"passages": StepInput("passages", knowledge.schema)}
    step = StepInput("asked", pa.schema([("text", pa.string())]))
    task = Consult(settings, step, date(2026, 1, 1), others)
    task.open(MODELS)
    task = Consult(settings, step, date(2026, 1, 1), others, learned=task.learn({"passages": knowledge}))
    task.open(MODELS)
    rows: list[dict[str, Any]] = task.answer(pa.table({"text": asked.questions})).columns.to_pylist()
    found = compared("medquad, a 48th", ranks_of(rows, asked), bm25(asked), "consult")
    told = np.array([not row["escalate"] for row in rows])
    right = np.array([row["passage_id"] == f"{i:06d}" for i, row in enumerate(rows)])
    found.append(
        Line(
            "consult",
            "medquad, a 48th",
            "right where not escalated",
            float(right[told].mean()),
            float(right.mean()),
            "answering all",
            note=f"{told.mean():.0%} answered",
        )
    )
    questions = sorted(set(pq.read_table(data / "medquad/qa.parquet")["question"].to_pylist()))
    flags = RedFlags({})
    alarms = float(np.mean([bool(flags.find(question)) for question in questions]))
    note = f"{len(questions):,} questions for knowledge, none of them a patient's"
    found.append(
        Line("consult", "medquad, all", "false alarms", alarms, 1.0, "always urgent", note=note, less_is_better=True)
    )
    return found


def bars(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """It finds more than BM25 alone."""
    (line,) = (line for line in lines if line.metric == "recall@5")
    return [bench.bar(f"consult, {line.data}: recall@5 above BM25 alone", line.ours, line.baseline)]
