"""The spans of each text that a fine-tuned token classifier marks: names, products, dates, whatever it was taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from bizllm.evaluate import tags
from bizllm.models.saved import ModelInfo
from bizllm.models.tagger import Tagger, Word
from bizllm.tasks import _texts
from bizllm.tasks._texts import TextSettings, TextTask
from bizllm.tasks.base import Models, Outcome, Reject

_SPAN = pa.struct(
    [
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("type", pa.string()),
        ("text", pa.string()),
        ("probability", pa.float32()),
    ]
)


class TagSettings(TextSettings):
    """What `task: tag` takes."""

    model: str = Field(description="A model that was fine-tuned for token_classification.")


class Tag(TextTask):
    """Words with tags (`bizllm.models.tagger`), joined to spans (`bizllm.evaluate.tags`)."""

    name = "tag"
    version = 1
    Settings = TagSettings
    summary = "The spans of each text that a model was taught to mark: names, products, dates."
    takes = "A text in each row."
    example = 'ticket_names: {task: tag, input: tickets, text: body, model: "registry:ticket_names@champion"}'
    writes: ClassVar[dict[str, str]] = {
        "spans": "list of {start, end, type, text, probability}: in order; characters [start, end) of the text; "
        "the mean probability of its words' tags",
        "input_tokens": "int: tokens that the model read, overlaps of a long text's windows included",
    }
    settings: TagSettings

    _tagger: Tagger | None = None

    def columns(self) -> pa.Schema:
        return pa.schema([("spans", pa.list_(_SPAN)), ("input_tokens", pa.int32())])

    def rules(self) -> dict[str, str]:
        return {
            "a span holds its text": "not list_contains([length(s['text']) <> s['end'] - s['start'] or "
            "s['text'] = '' for s in spans], true)",
            "a span's probability lies in [0, 1]": "not list_contains([s['probability'] not between 0 and 1 "
            "for s in spans], true)",
        }

    def models(self) -> dict[str, str]:
        return {"tagger": self.settings.model}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        return _texts.objective_faults(self.name, self.settings.model, infos["tagger"], ("token_classification",))

    def open(self, models: Models) -> None:
        self._tagger = models.tagger(self.settings.model)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._tagger is not None, "opened before the first batch"
        given = _texts.read(batch, self.reads(), self.settings.max_input_chars)
        (texts,) = given.columns
        tagged, tokens = self._tagger.tags(texts)
        finite = np.array([all(np.isfinite(word.probability) for word in words) for words in tagged], bool)
        rejects = [Reject(int(i), *_texts.NOT_FINITE) for i in given.positions[~finite]]
        rows = [
            {"spans": _spans(text, words), "input_tokens": count}
            for text, words, count, good in zip(texts, tagged, tokens, finite, strict=True)
            if good
        ]
        columns = pa.Table.from_pylist(rows, schema=self.columns())
        return Outcome(given.positions[finite], columns, [*given.rejects, *rejects], int(tokens.sum()))


def _spans(text: str, words: Sequence[Word]) -> list[dict[str, Any]]:
    found = []
    for first, stop, kind in tags.spans([word.tag for word in words]):
        start, end = words[first].start, words[stop - 1].end
        probability = float(np.mean([word.probability for word in words[first:stop]]))
        found.append({"start": start, "end": end, "type": kind, "text": text[start:end], "probability": probability})
    return found


TASK = Tag
