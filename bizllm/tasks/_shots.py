"""Examples to show a generator: those of a table whose facts are nearest to the row's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from bizllm.errors import Fault, UserError
from bizllm.methods.text_features import TextFeatures
from bizllm.tasks import _facts
from bizllm.tasks._facts import Facts
from bizllm.tasks._texts import Faults
from bizllm.tasks.base import Learned, StepInput, TableRead


class ShotExamples(TableRead):
    """Rows with a text that people wrote or approved."""

    facts: list[str] = Field(min_length=1, description="Its columns of facts.")
    text: str = Field(description="The column of texts.")

    def columns(self) -> dict[str, str]:
        return {"text": self.text, **{f"facts.{i}": column for i, column in enumerate(self.facts)}}


def faults(examples: ShotExamples, given: StepInput) -> Faults:
    """Columns of types that can't be shown; those that are missing are told by the engine."""
    known = set(given.schema.names)
    named = {f"examples.{setting}": column for setting, column in examples.columns().items() if column in known}
    return _facts.column_faults(given.schema, named)


def learn(rows: pa.Table, examples: ShotExamples, encoder: Any, max_chars: int) -> Learned:
    """What is shown of a table, and what its rows are found by. Raises UserError where no row has facts and a text."""
    facts, unusable = _facts.read(rows, examples.facts, max_chars)
    texts, _ = _facts.read(rows, [examples.text], max_chars)
    kept = [i for i in range(rows.num_rows) if i not in unusable and texts[i]]
    if not kept:
        said = f"{rows.num_rows:,} rows, none with facts and a text"
        raise UserError(Fault("examples", examples.input, f"expected examples; it has {said}"))
    shown = pa.table(
        {
            "facts": [json.dumps(facts[i], ensure_ascii=False) for i in kept],
            "text": [texts[i][examples.text] for i in kept],
        }
    )
    asked = [_line(facts[i]) for i in kept]
    if encoder is not None:
        return {"shown": shown, "vectors": np.asarray(encoder.encode(asked)[0], np.float32)}
    return {"shown": shown, "features": TextFeatures(asked).state()}


class Shots:
    """Finds the examples that are nearest to a row's facts: by an encoder's vectors, or by words and n-grams."""

    def __init__(self, learned: Learned, encoder: Any) -> None:
        self._facts: list[Facts] = [json.loads(said) for said in learned["shown"]["facts"].to_pylist()]
        self._texts: list[str] = learned["shown"]["text"].to_pylist()
        self._encoder, self._vectors = encoder, learned.get("vectors", np.zeros((0, 0), np.float32))
        if encoder is None:
            self._features = TextFeatures.of(learned["features"])
            self._matrix = self._features.matrix(list(map(_line, self._facts)))

    def nearest(self, rows: Sequence[Facts], count: int) -> tuple[list[list[dict[str, Any]]], int]:
        """(`count` examples for each row, the nearest last, beside what is asked; tokens that an encoder read)."""
        if not rows:
            return [], 0
        asked, tokens = [_line(facts) for facts in rows], 0
        if self._encoder is not None:
            vectors, counts = self._encoder.encode_counted(asked)
            similar, tokens = vectors @ self._vectors.T, int(counts.sum())
        else:
            similar = (self._features.matrix(asked) @ self._matrix.T).toarray()
        # Rounded, so that a last digit of a sum, which other rows of the batch may move, decides no tie.
        order = np.argsort(-np.round(similar, 4), axis=1, kind="stable")[:, :count]
        return [[self._told(int(i)) for i in reversed(row)] for row in order], tokens

    def _told(self, i: int) -> dict[str, Any]:
        return {"facts": _facts.listed(self._facts[i]), "text": self._texts[i]}


def _line(facts: Facts) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts.items())
