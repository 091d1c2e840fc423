"""A vector for each text, for search, clustering and near duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from bizllm.models.saved import ModelInfo
from bizllm.tasks import _texts
from bizllm.tasks._texts import TextSettings, TextTask
from bizllm.tasks.base import Models, Outcome, Reject


class EmbedSettings(TextSettings):
    """What `task: embed` takes."""

    model: str = Field(description="Any text encoder, or a model that was fine-tuned for embedding.")


class Embed(TextTask):
    """Pooled token vectors of length 1; see `bizllm.models.encoder`."""

    name = "embed"
    version = 1
    Settings = EmbedSettings
    summary = "A vector for each text: texts of like meaning lie near each other."
    takes = "A text in each row: string, or a list of strings."
    example = "ticket_vector: {task: embed, input: tickets, text: body, model: encoder}"
    writes: ClassVar[dict[str, str]] = {
        "vector": "list of float: of length 1, so that the inner product of two is their cosine",
        "input_tokens": "int: length of the text, as the model counts",
    }
    settings: EmbedSettings

    _encoder: Any = None

    def columns(self) -> pa.Schema:
        return pa.schema([("vector", pa.list_(pa.float32())), ("input_tokens", pa.int32())])

    def rules(self) -> dict[str, str]:
        # A number that is not finite makes the product not finite, which is not near 1.
        return {"the vector is finite and of length 1": "abs(list_inner_product(vector, vector) - 1) < 1e-3"}

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        return _texts.encoder_faults(self.name, self.settings.model, infos["encoder"])

    def open(self, models: Models) -> None:
        self._encoder = models.encoder(self.settings.model)

    def answer(self, batch: pa.Table) -> Outcome:
        given = _texts.read(batch, self.reads(), self.settings.max_input_chars)
        (texts,) = given.columns
        vectors, tokens = self._encoder.encode_counted(texts)
        finite = np.isfinite(vectors).all(1)
        rejects = [Reject(int(i), *_texts.NOT_FINITE) for i in given.positions[~finite]]
        kept = vectors[finite]
        offsets = np.arange(len(kept) + 1, dtype=np.int32) * vectors.shape[1]
        columns = pa.table(
            [pa.ListArray.from_arrays(offsets, kept.reshape(-1)), pa.array(tokens[finite], pa.int32())],
            schema=self.columns(),
        )
        return Outcome(given.positions[finite], columns, [*given.rejects, *rejects], int(tokens.sum()))


TASK = Embed
