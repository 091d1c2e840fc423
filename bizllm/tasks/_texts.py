"""What the tasks share that read a text column with one model: its checks, and the rows that can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, PositiveInt

from bizllm.errors import nearest
from bizllm.methods import documents
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import Reject, Shape, Task, TaskSettings

Faults = list[tuple[str, object, str, str]]

NOT_FINITE = ("not_finite", "the model gave no finite number")  # code and message of such a reject

# One core, bfloat16 (AVX512-BF16), MiniLM; float32 takes about 2.2 times as long.
_BYTES_PER_TOKEN = 3.6
_SECONDS_PER_TOKEN = 1 / 4_200

# Which task asks a model of an objective, for a hint.
_TASKS = {
    "classification": "classify",
    "multi_label": "classify",
    "pair": "classify",
    "embedding": "embed",
    "token_classification": "tag",
    "causal_lm": "summarize",
    "seq2seq": "summarize",
    "regression": "forecast",
    "quantile": "forecast",
}


class TextSettings(TaskSettings):
    """What every task takes that reads a text column with one model."""

    text: str = Field(description="The text column.")
    max_input_chars: PositiveInt = Field(default=200_000, description="Longer texts are rejected as too_long.")


class TextTask(Task):
    """One answer a row, by one small model that reads a text column; nothing depends on the date."""

    shapes = ("row",)
    settings: TextSettings

    @property
    def shape(self) -> Shape:
        return "row"

    def reads(self) -> list[str]:
        return [self.settings.text]

    def check(self) -> Faults:
        return column_faults(self.source.schema, {"text": self.settings.text})

    def depends_on_date(self) -> bool:
        return False

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return model_cost(rows, text_bytes)


@dataclass(frozen=True)
class Texts:
    """The usable rows of a batch.

    positions: (usable,) where they stand in the batch. columns: the texts of each column asked for, (usable,) each.
    rejects: the other rows.
    """

    positions: npt.NDArray[np.int64]
    columns: list[list[str]]
    rejects: list[Reject]


def read(rows: pa.Table, columns: Sequence[str], max_chars: int) -> Texts:
    """The rows in which every one of the string columns has a usable text."""
    rejected: dict[int, Reject] = {}
    texts: list[list[list[str] | None]] = []
    for column in columns:
        found, unusable = documents.read(rows[column], max_chars)
        texts.append(found)
        rejected = {position: Reject(position, code, message) for position, code, message in unusable} | rejected
    positions = [i for i in range(rows.num_rows) if i not in rejected]
    usable = [[found[i] or [] for i in positions] for found in texts]
    return Texts(
        np.array(positions, np.int64),
        [[text for (text,) in column] for column in usable],
        [rejected[i] for i in sorted(rejected)],
    )


def column_faults(schema: pa.Schema, columns: Mapping[str, str]) -> Faults:
    """Faults of settings that name string columns: setting → column."""
    faults: Faults = []
    for setting, column in columns.items():
        if column not in schema.names:
            known = f"no such column; there are {', '.join(schema.names)}"
            faults.append((setting, column, known, nearest(column, schema.names)))
        elif not documents.is_text(schema.field(column).type):
            faults.append((setting, column, f"expected a string column, it is {schema.field(column).type}", ""))
    return faults


def objective_faults(task: str, uri: str, info: ModelInfo | None, objectives: Sequence[str]) -> Faults:
    """The fault of a model that was trained for something else than the task asks; info: None where it was not trained
    here."""
    if info is not None and info.objective in objectives:
        return []
    *most, last = objectives
    wanted = f"{', '.join(most)} or {last}" if most else last
    said = f"is {info.objective}" if info else "was not fine-tuned with bizllm"
    other = _TASKS.get(info.objective) if info else None
    hint = f"task {other} reads such models" if other else ""
    return [("model", uri, f"task {task} needs a model of objective {wanted}; this one {said}", hint)]


def encoder_faults(task: str, uri: str | None, info: ModelInfo | None) -> Faults:
    """The fault of a model that was fine-tuned for something else than vectors; info: None where it was not fine-tuned
    here, or there is no model."""
    if info is None or uri is None:
        return []
    return objective_faults(task, uri, info, ("embedding", "masked_lm"))


def generator_faults(uri: str, info: ModelInfo | None) -> Faults:
    """The fault of a model that was fine-tuned for something else than writing."""
    if info is None or info.objective in ("causal_lm", "seq2seq"):
        return []
    return [("generator", uri, f"expected a model of objective causal_lm or seq2seq; this one is {info.objective}", "")]


def model_cost(rows: int, text_bytes: int) -> tuple[int, float]:
    """(tokens, CPU seconds) of so much text through a small encoder, for `Task.estimate`."""
    tokens = int(text_bytes / _BYTES_PER_TOKEN)
    return tokens, rows * 1e-4 + tokens * _SECONDS_PER_TOKEN
