"""The label of each text: by a fine-tuned model, by a few labelled examples, or by what the labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, NonNegativeInt, field_validator, model_validator

from bizllm.methods.few_shot import FewShot
from bizllm.models.classifier import CLASSES
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _explain, _knowledge, _labels, _texts
from bizllm.tasks._explain import ExplainedText
from bizllm.tasks._knowledge import Knowledge
from bizllm.tasks._labels import Examples, FewShotLabels, FineTunedLabels, Labeller
from bizllm.tasks._texts import TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome, Reject

_LIKELY = pa.struct([("label", pa.string()), ("probability", pa.float32())])


class ClassifySettings(ExplainedText, TextSettings):
    """What `task: classify` takes."""

    pair: str | None = Field(default=None, description="The second text's column, for a model of pairs.")
    model: str | None = Field(
        default=None,
        description="A model that was fine-tuned for classification, multi_label or pair. With `examples` or `labels` "
        "any text encoder; examples are learned from without one, too, by their words and n-grams alone.",
    )
    examples: Examples | None = Field(
        default=None, description="A table of labelled texts to learn from: one of each label, better ten."
    )
    labels: dict[str, str] = Field(
        default={},
        description="What each label means, in a few words; with `examples` one more text of it. Alone, a text gets "
        "the label whose meaning is nearest to it: better than nothing, and not calibrated.",
    )
    knowledge: Knowledge | None = Field(
        default=None,
        description="A table of a company's own words, for `examples` and `labels`: texts that call one thing by "
        "different names are read alike.",
    )
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None,
        description="Under this highest probability a row is out of scope; of a multi_label model the probability from "
        "which a label is given. By default the model's own, fitted on its validation rows.",
    )
    alternatives: NonNegativeInt = Field(default=3, description="The most other labels that are told, likeliest first.")

    @field_validator("labels", mode="before", json_schema_input_type=dict[str, str | None] | list[str])
    @classmethod
    def _named(cls, labels: Any) -> Any:
        """A list of names is their own description, and so is a name without one."""
        if isinstance(labels, list) and all(isinstance(name, str) for name in labels):
            labels = dict.fromkeys(labels)
        if isinstance(labels, dict):
            return {name: str(name).replace("_", " ") if said is None else said for name, said in labels.items()}
        return labels

    @model_validator(mode="after")
    def _one_way(self) -> ClassifySettings:
        if self.examples is None and self.labels and len(self.labels) < 2:
            raise ValueError("expected two `labels` at least")
        if self.model is None and self.examples is None:
            what = "an encoder as `model`" if self.labels else "a fine-tuned `model`, or `examples`"
            raise ValueError(f"expected {what}")
        if self.pair is not None and self.learns:
            raise ValueError("`pair` is for a fine-tuned model")
        if self.knowledge is not None and not self.learns:
            raise ValueError("`knowledge` is for `examples` or `labels`; a fine-tuned model reads texts as they are")
        if self.pair is not None and self.explain:
            raise ValueError("`explain` is for single texts, not for a `pair`")
        return self

    @property
    def learns(self) -> bool:
        """Whether the labels are learned here, not those of a fine-tuned model."""
        return self.examples is not None or bool(self.labels)


class Classify(TextTask):
    """Probabilities of labels: calibrated ones of a model (`bizllm.models.classifier`) or of examples
    (`bizllm.methods.few_shot`), or likenesses to what the labels mean."""

    name = "classify"
    version = 1
    Settings = ClassifySettings
    summary = "The label of each text: by a model that was fine-tuned for it, by a few examples, or by its meaning."
    takes = (
        "A text in each row, and, in a table of its own, labelled texts to learn from; or a fine-tuned "
        "model instead of these."
    )
    example = (
        "ticket_kind: {task: classify, input: tickets, text: body, model: encoder, examples: {input: "
        "labelled, text: body, label: kind}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "label": "string: the most probable label, out of scope or not",
        "probability": "float in [0, 1]: how probable it is",
        "labels": "list of string: every label given, the most probable first; none where out of scope",
        "alternatives": "list of {label, probability}: the next labels, at most `alternatives`",
        "out_of_scope": "boolean: no label reaches the threshold; false where neither model nor step has one",
        "input_tokens": "int: length of the text or pair, as the model counts",
        **_explain.WRITES,
    }
    exhibits = "categories"
    category_column = "label"
    settings: ClassifySettings

    _labeller: Labeller | None = None
    _encoder: Any = None

    def reads(self) -> list[str]:
        return [self.settings.text, *([self.settings.pair] if self.settings.pair else [])]

    def check(self) -> list[tuple[str, object, str, str]]:
        named = {"text": self.settings.text} | ({"pair": self.settings.pair} if self.settings.pair else {})
        faults = _texts.column_faults(self.source.schema, named)
        if self.settings.pair == self.settings.text:
            faults.append(("pair", self.settings.pair, "expected another column than the text", ""))
        if self.settings.examples is not None:
            faults += _labels.example_faults(self.settings.examples, self.others["examples"])
        if self.settings.knowledge is not None:
            faults += _knowledge.faults("knowledge", self.settings.knowledge, self.others["knowledge"])
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
                *([_explain.WHY] if self.settings.explain else []),
            ]
        )

    def rules(self) -> dict[str, str]:
        return {
            "the label has a name": "trim(label) <> ''",
            "the probability lies in [0, 1]": "probability between 0 and 1",
            "no alternative is likelier": "len(alternatives) = 0 or alternatives[1].probability <= probability",
            "a label is given, or the row is out of scope": "out_of_scope = (len(labels) = 0)",
            **(_explain.RULES if self.settings.explain else {}),
        }

    def models(self) -> dict[str, str]:
        if self.settings.model is None:
            return {}
        return {"encoder" if self.settings.learns else "classifier": self.settings.model}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        if self.settings.learns:
            return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))
        info = infos["classifier"]
        assert self.settings.model is not None
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

    def caveat(self) -> str:
        if self.settings.learns and self.settings.examples is None:
            return (
                "Labels go by what they mean: of Banking77's 77 intents that gets 62 % right; ten examples of "
                "each get 86 %."
            )
        return ""

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        plain = super().estimate(rows, text_bytes)
        if not self.settings.explain:
            return plain
        if self.settings.model is None:
            return plain[0], plain[1] + text_bytes * _explain.NGRAM_SECONDS_PER_BYTE
        return _explain.cost(rows, text_bytes, plain, fine_tuned=not self.settings.learns)

    def open(self, models: Models) -> None:
        s = self.settings
        if not s.learns:
            assert s.model is not None
            self._labeller = FineTunedLabels(models.classifier(s.model))
            return
        self._encoder = models.encoder(s.model) if s.model is not None else None
        if self.learned is None and s.tables():
            return  # to learn
        terms = _knowledge.terms(self.learned)
        if s.examples is None:
            few = _labels.described(s.labels, self._encoder, terms)
        else:
            assert self.learned is not None
            few = FewShot.of(self.learned)
        self._labeller = FewShotLabels(few, self._encoder, terms)

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s = self.settings
        known = _knowledge.learn(tables["knowledge"], s.knowledge) if s.knowledge is not None else {}
        if s.examples is None:
            return known
        rows, terms = tables["examples"], _knowledge.terms(known)
        return known | _labels.learn(rows, s.examples, s.labels, self._encoder, s.max_input_chars, terms)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._labeller is not None, "opened before the first batch"
        given = _texts.read(batch, self.reads(), self.settings.max_input_chars)
        probabilities, tokens = self._labeller.probabilities(given.columns)
        finite = np.isfinite(probabilities).all(1)
        rejects = [Reject(int(i), *_texts.NOT_FINITE) for i in given.positions[~finite]]
        columns = self._columns(self._labeller, probabilities[finite], tokens[finite])
        read, exhibit = int(tokens.sum()), None
        if self.settings.explain:
            texts = [given.columns[0][i] for i in np.flatnonzero(finite)]
            why, more = _explain.why(self._labeller, texts, probabilities[finite])
            columns, read = columns.append_column(_explain.WHY, why), read + more
            exhibit = _explain.exhibit(texts, columns)
        return Outcome(given.positions[finite], columns, [*given.rejects, *rejects], read, exhibit)

    def _columns(self, labeller: Labeller, likely: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> pa.Table:
        """All columns but `why`. likely: (rows, labels). tokens: (rows,)."""
        threshold = labeller.threshold if self.settings.threshold is None else self.settings.threshold
        order = np.argsort(-likely, axis=1, kind="stable")
        likely = np.take_along_axis(likely, order, axis=1)
        reached = np.full(likely.shape, True) if threshold is None else likely >= threshold
        given = reached if labeller.several else reached & (np.arange(likely.shape[1]) == 0)
        names = pa.array(labeller.names, pa.string())
        told = slice(1, 1 + self.settings.alternatives)
        others = pa.StructArray.from_arrays(
            [names.take(pa.array(order[:, told].ravel())), pa.array(likely[:, told].ravel(), pa.float32())],
            fields=list(_LIKELY),
        )
        return pa.table(
            {
                "label": names.take(pa.array(order[:, 0])),
                "probability": pa.array(likely[:, 0], pa.float32()),
                "labels": _lists(given.sum(axis=1), names.take(pa.array(order[given]))),
                "alternatives": _lists(np.full(len(likely), likely[:, told].shape[1]), others),
                "out_of_scope": pa.array(~reached.any(axis=1)),
                "input_tokens": pa.array(tokens, pa.int32()),
            }
        )


def _lists(lengths: npt.NDArray[np.integer[Any]], values: pa.Array) -> pa.ListArray:
    """Lists of so many of the values each, in their order."""
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), values)


TASK = Classify
