"""The label of each text, or of each pair of texts, by a fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt

from bizllm.models.classifier import CLASSES, Classifier
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _texts
from bizllm.tasks._texts import TextSettings, TextTask
from bizllm.tasks.base import Models, Outcome, Reject

_LIKELY = pa.struct([("label", pa.string()), ("probability", pa.float32())])


class ClassifySettings(TextSettings):
    """What `task: classify` takes."""

    pair: str | None = Field(default=None, description="The second text's column, for a model of pairs.")
    model: str = Field(description="A model that was fine-tuned for classification, multi_label or pair.")
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None,
        description="Under this highest probability a row is out of scope; of a multi_label model the probability from "
        "which a label is given. By default the model's own, fitted on its validation rows.",
    )
    alternatives: NonNegativeInt = Field(default=3, description="The most other labels that are told, likeliest first.")


class Classify(TextTask):
    """Calibrated probabilities of a model's labels; see `bizllm.models.classifier`."""

    name = "classify"
    version = 1
    Settings = ClassifySettings
    summary = "The label of each text or pair of texts, by a model that was fine-tuned for it."
    writes: ClassVar[dict[str, str]] = {
        "label": "string: the most probable label, out of scope or not",
        "probability": "float in [0, 1]: how probable it is",
        "labels": "list of string: every label given, the most probable first; none where out of scope",
        "alternatives": "list of {label, probability}: the next labels, at most `alternatives`",
        "out_of_scope": "boolean: no label reaches the threshold; false where neither model nor step has one",
        "input_tokens": "int: length of the text or pair, as the model counts",
    }
    exhibits = "categories"
    category_column = "label"
    settings: ClassifySettings

    _classifier: Classifier | None = None

    def reads(self) -> list[str]:
        return [self.settings.text, *([self.settings.pair] if self.settings.pair else [])]

    def check(self) -> list[tuple[str, object, str, str]]:
        named = {"text": self.settings.text} | ({"pair": self.settings.pair} if self.settings.pair else {})
        faults = _texts.column_faults(self.source.schema, named)
        if self.settings.pair == self.settings.text:
            faults.append(("pair", self.settings.pair, "expected another column than the text", ""))
        return faults

    def columns(self) -> pa.Schema:
        return pa.schema(
            [
                ("label", pa.string()),
                ("probability", pa.float32()),
                ("labels", pa.list_(pa.string())),
                ("alternatives", pa.list_(_LIKELY)),
                ("out_of_scope", pa.bool_()),
                ("input_tokens", pa.int32()),
            ]
        )

    def rules(self) -> dict[str, str]:
        return {
            "the label has a name": "trim(label) <> ''",
            "the probability lies in [0, 1]": "probability between 0 and 1",
            "no alternative is likelier": "len(alternatives) = 0 or alternatives[1].probability <= probability",
            "a label is given, or the row is out of scope": "out_of_scope = (len(labels) = 0)",
        }

    def models(self) -> dict[str, str]:
        return {"classifier": self.settings.model}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        info = infos["classifier"]
        faults = _texts.objective_faults(self.name, self.settings.model, info, CLASSES)
        if faults or info is None:
            return faults
        if info.inputs == "numbers":
            return [("model", self.settings.model, "the model reads histories of numbers, not texts", "")]
        if info.inputs == "pair" and not self.settings.pair:
            return [("pair", None, "the model reads pairs of texts; name the second text's column", "")]
        if info.inputs != "pair" and self.settings.pair:
            return [("pair", self.settings.pair, "the model reads single texts", "leave `pair` out")]
        return []

    def open(self, models: Models) -> None:
        self._classifier = models.classifier(self.settings.model)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._classifier is not None, "opened before the first batch"
        given = _texts.read(batch, self.reads(), self.settings.max_input_chars)
        probabilities, tokens = self._classifier.probabilities(*given.columns)
        finite = np.isfinite(probabilities).all(1)
        rejects = [Reject(int(i), *_texts.NOT_FINITE) for i in given.positions[~finite]]
        info = self._classifier.info
        threshold = self._classifier.threshold if self.settings.threshold is None else self.settings.threshold
        several = info.objective == "multi_label"
        rows = []
        for likely, count in zip(probabilities[finite], tokens[finite], strict=True):
            order = np.argsort(-likely, kind="stable")
            reached = [info.labels[i] for i in order if threshold is None or likely[i] >= threshold]
            told = order[1 : 1 + self.settings.alternatives]
            rows.append(
                {
                    "label": info.labels[order[0]],
                    "probability": likely[order[0]],
                    "labels": reached if several else reached[:1],
                    "alternatives": [{"label": info.labels[i], "probability": likely[i]} for i in told],
                    "out_of_scope": not reached,
                    "input_tokens": count,
                }
            )
        columns = pa.Table.from_pylist(rows, schema=self.columns())
        return Outcome(given.positions[finite], columns, [*given.rejects, *rejects], int(tokens.sum()))


TASK = Classify
