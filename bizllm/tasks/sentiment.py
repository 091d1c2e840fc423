"""Whether each text praises or blames, how much, and what it says of each thing that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from bizllm.methods.polarity import aspects, cues
from bizllm.methods.polarity.lexicon import Phrases
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _labels, _sentiment, _texts
from bizllm.tasks._labels import Examples
from bizllm.tasks._sentiment import Scale
from bizllm.tasks._texts import TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome, Reject

ASPECT = pa.struct(
    [
        ("aspect", pa.string()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("quote", pa.string()),
    ]
)
_SECONDS_PER_BYTE = 3e-6  # of the built-in model


class SentimentSettings(TextSettings):
    """What `task: sentiment` takes."""

    model: str | None = Field(
        default=None,
        description="A model that was fine-tuned for classification; with `examples` any text encoder. Without one, "
        "the built-in model of words and phrases, English and Chinese.",
    )
    examples: Examples | None = Field(
        default=None,
        description="A table of labelled texts of your domain. The built-in model keeps as much say as suits them.",
    )
    scale: Scale = Field(
        default={},
        description="What each label means, from -1 (bad) to 1 (good): `{angry: -1, calm: 0.2}`. Labels such as "
        "positive, neutral, negative, 好评 and 差评 are known, and numbers (stars) go from the lowest to the highest.",
    )
    neutral: bool = Field(
        default=True, description="Whether the built-in model may call a text neutral; else it takes the likelier side."
    )
    aspects: Literal["auto"] | dict[str, list[str]] = Field(
        default="auto",
        description="Things whose mention is judged by itself, each with the words for it: `{delivery: [delivery, "
        "快递]}`. `auto`: fourteen aspects of goods, meals and shops. `{}`: none.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> SentimentSettings:
        if not self.neutral and (self.examples or self.model):
            raise ValueError(
                "`neutral` is for the built-in model; here the labels are the examples' or the model's own"
            )
        if self.scale and not (self.examples or self.model):
            raise ValueError("`scale` is for the labels of `examples` or of a `model`, and there are none")
        if isinstance(self.aspects, dict):
            if blank := [name for name, words in self.aspects.items() if not all(w.strip() for w in [name, *words])]:
                raise ValueError(f"expected aspects with words: {blank[0]!r} has an empty one")
            try:
                self.terms()
            except ValueError as fault:
                raise ValueError(f"expected each word under one aspect: {fault}") from fault
        return self

    def terms(self) -> Phrases[str]:
        """The words of each aspect; the name of one that has no words is its word."""
        named = aspects.built_in() if self.aspects == "auto" else dict(self.aspects)
        return aspects.terms({name: words or [name.replace("_", " ")] for name, words in named.items()})


class Sentiment(TextTask):
    """The built-in model (`bizllm.methods.polarity`), alone or taught by examples, or a fine-tuned one."""

    name = "sentiment"
    version = 1
    Settings = SentimentSettings
    summary = "Whether each text praises or blames, how much, and what it says of each aspect that it names."
    takes = "A text in each row; maybe, in a table of its own, labelled texts to learn from, or a fine-tuned model."
    example = (
        "review_mood:\n  {task: sentiment, input: reviews, text: body, "
        "aspects: {delivery: [delivery, shipping, 快递], battery: [battery, 电池]}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "label": "string: the likeliest; positive, neutral or negative, or the labels of examples or model",
        "probability": "float in [0, 1]: how probable it is",
        "score": "float in [-1, 1]: the labels' scale, weighed by their probabilities",
        "aspects": "list of {aspect, label, score, start, end, quote}: what was said of each aspect, in characters of "
        "the text; quote is that part of it",
        "input_tokens": "int: length of the text, as the model counts; words and CJK characters where it is built in",
    }
    exhibits = "categories"
    category_column = "label"
    settings: SentimentSettings

    _labeller: _sentiment.Scaled | None = None
    _encoder: Any = None
    _terms: Phrases[str] | None = None

    def check(self) -> list[tuple[str, object, str, str]]:
        faults = super().check()
        if self.settings.examples is not None:
            faults += _labels.example_faults(self.settings.examples, self.others["examples"])
        return faults

    def columns(self) -> pa.Schema:
        return pa.schema(
            [
                ("label", pa.string()),
                ("probability", pa.float32()),
                ("score", pa.float32()),
                ("aspects", pa.list_(ASPECT)),
                ("input_tokens", pa.int32()),
            ]
        )

    def rules(self) -> dict[str, str]:
        return {
            "the label has a name": "trim(label) <> ''",
            "the probability lies in [0, 1]": "probability between 0 and 1",
            "the score lies in [-1, 1]": "score between -1 and 1",
            "aspects are judged, too": "len(list_filter(aspects, lambda a: not a.score between -1 and 1)) = 0",
            "aspects are quoted": 'len(list_filter(aspects, lambda a: a."end" - a.start <> length(a.quote))) = 0',
        }

    def models(self) -> dict[str, str]:
        if self.settings.model is None:
            return {}
        return {"encoder" if self.settings.examples else "classifier": self.settings.model}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        s = self.settings
        if s.examples is not None or s.model is None:
            return _texts.encoder_faults(self.name, s.model, infos.get("encoder"))
        info = infos["classifier"]
        faults = _texts.objective_faults(self.name, s.model, info, ["classification"])
        if info is None or faults:
            return faults
        if info.inputs == "numbers":
            return [("model", s.model, "the model reads histories of numbers, not texts", "")]
        return _sentiment.scale_faults(info.labels, s.scale)

    def caveat(self) -> str:
        if self.settings.model is None and self.settings.examples is None:
            return (
                "The built-in model gets 85 % of English and 80 to 88 % of Chinese reviews right; examples of "
                "yours help."
            )
        return ""

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        tokens, seconds = super().estimate(rows, text_bytes) if self.settings.model else (0, rows * 1e-4)
        return tokens, seconds + text_bytes * _SECONDS_PER_BYTE

    def open(self, models: Models) -> None:
        s = self.settings
        self._terms = s.terms() if s.aspects else None
        if s.examples is not None:
            self._encoder = models.encoder(s.model) if s.model is not None else None
            if self.learned is not None:
                self._labeller = _sentiment.taught(self.learned, self._encoder)
        elif s.model is not None:
            self._labeller = _sentiment.fine_tuned(models.classifier(s.model), s.scale)
        else:
            self._labeller = _sentiment.built_in(s.neutral)

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s = self.settings
        assert s.examples is not None
        return _sentiment.learn(tables["examples"], s.examples, s.scale, self._encoder, s.max_input_chars)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._labeller is not None, "opened before the first batch"
        given = _texts.read(batch, self.reads(), self.settings.max_input_chars)
        (texts,) = given.columns
        likely, tokens = self._labeller.probabilities(texts)
        finite = np.isfinite(likely).all(axis=1)
        rejects = [Reject(int(i), *_texts.NOT_FINITE) for i in given.positions[~finite]]
        read = 0 if self.settings.model is None else int(tokens.sum())
        columns = self._columns([texts[i] for i in np.flatnonzero(finite)], likely[finite], tokens[finite])
        return Outcome(given.positions[finite], columns, [*given.rejects, *rejects], read)

    def _columns(self, texts: list[str], likely: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> pa.Table:
        """likely: (texts, labels). tokens: (texts,)."""
        assert self._labeller is not None
        best = likely.argmax(axis=1)
        score = np.clip(likely.astype(np.float64) @ np.array(self._labeller.scale), -1, 1)
        return pa.table(
            [
                pa.array([self._labeller.names[i] for i in best], pa.string()),
                pa.array(likely[np.arange(len(best)), best], pa.float32()),
                pa.array(score, pa.float32()),
                pa.array([self._aspects(text) for text in texts], pa.list_(ASPECT)),
                pa.array(tokens, pa.int32()),
            ],
            schema=self.columns(),
        )

    def _aspects(self, text: str) -> list[dict[str, Any]]:
        if self._terms is None:
            return []
        return [
            {**vars(said), "quote": text[said.start : said.end]}
            for said in aspects.said(text, cues.clauses(text), self._terms)
        ]


TASK = Sentiment
