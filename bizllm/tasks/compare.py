"""How brands are spoken of beside each other: share of voice, sentiment by aspect, strengths and weaknesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bizllm.errors import Fault, UserError
from bizllm.methods import documents
from bizllm.methods.polarity import aspects
from bizllm.methods.polarity.lexicon import Phrases
from bizllm.tasks import _compare, _knowledge, _trend
from bizllm.tasks._knowledge import Knowledge
from bizllm.tasks.base import Combined, Groups, Learned, Outcome, Shape, Task, TaskSettings

_BRAND = ("brand", "品牌")  # kinds of names that are brands
_OWN = (
    ("brand", pa.string()),
    ("aspect", pa.string()),
    ("mentions", pa.int64()),
    ("share", pa.float64()),
    ("share_low", pa.float64()),
    ("share_high", pa.float64()),
    ("positive", pa.float64()),
    ("negative", pa.float64()),
    ("score", pa.float64()),
    ("score_low", pa.float64()),
    ("score_high", pa.float64()),
    ("gap", pa.float64()),
    ("gap_p", pa.float64()),
    ("verdict", pa.string()),
    ("previous_mentions", pa.int64()),
    ("previous_share", pa.float64()),
    ("previous_score", pa.float64()),
    ("share_change", pa.float64()),
    ("share_change_p", pa.float64()),
    ("score_change", pa.float64()),
    ("score_change_p", pa.float64()),
    ("quotes", pa.list_(_compare.QUOTE)),
)


class CompareSettings(TaskSettings):
    """What `task: compare` takes."""

    per: list[str] = Field(
        min_length=1,
        description="Columns of the market in which brands are compared: category, country. For one market add a "
        "column in the source's `select`: `*, 'all' as market`.",
    )
    brand: str | None = Field(default=None, description="Column of the brand; else `brands` are looked for in `text`.")
    brands: dict[str, list[str]] = Field(
        default={},
        description="Other names of each brand: `{Aldermoor: [aldermoor home, 桤野]}`. With `brand` its values are put "
        "together; without it a text counts for every brand that it names, by the clauses about each.",
    )
    knowledge: Knowledge | None = Field(
        default=None,
        description="A table of further names of brands; with a `kind` column those of kind brand (品牌) alone.",
    )
    text: str | None = Field(
        default=None, description="Text column, judged by sentiment's built-in model; or use `score` and `aspects`."
    )
    score: str | None = Field(default=None, description="Column of numbers from -1 to 1: the `score` of sentiment.")
    aspects: str | None = Field(default=None, description="Column of what was said of aspects: that of sentiment.")
    document: str | None = Field(default=None, description="Column that quotes are found again by: a review's key.")
    time: str | None = Field(
        default=None,
        description="Date or timestamp column: the newest window counts, beside the one before it.",
    )
    window_days: PositiveInt = Field(default=28, description="Days of a window; the newest ends with the run date.")
    min_mentions: PositiveInt = Field(default=5, description="With fewer there is no verdict and no change.")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(
        default=0.95, description="Of intervals; a verdict's adjusted p-value is below one less this."
    )
    quotes: NonNegativeInt = Field(default=3, description="Quotes for each brand and aspect, at most.")
    max_input_chars: PositiveInt = Field(default=200_000, description="Longer texts are rejected as too_long.")

    @model_validator(mode="after")
    def _one_way(self) -> CompareSettings:
        if (self.text is None) == (self.score is None):
            raise ValueError("expected either `text`, or the `score` of a sentiment step")
        if self.aspects is not None and self.score is None:
            raise ValueError("`aspects` is a column of a sentiment step; expected its `score`, too")
        if self.brand is None and (not (self.brands or self.knowledge) or self.text is None):
            raise ValueError("expected a `brand` column, or `brands` (or `knowledge`) to look for in `text`")
        try:
            self.names()
        except ValueError as fault:
            raise ValueError(f"expected each name under one brand: {fault}") from fault
        return self

    def names(self, more: Mapping[str, Sequence[str]] | None = None) -> Phrases[str]:
        """Every name of each brand, its own included; more: further names of brands. Raises ValueError for a name of
        two brands."""
        known = {brand: [brand, *others] for brand, others in self.brands.items()}
        for brand, others in (more or {}).items():
            known.setdefault(brand, [brand]).extend(others)
        return aspects.terms(known)


class Compare(Task):
    """Rows of each market, brand and aspect; see `bizllm.methods.small_samples`."""

    name = "compare"
    version = 1
    Settings = CompareSettings
    summary = "Share of voice, sentiment by aspect, strengths and weaknesses of brands beside each other, with quotes."
    takes = "Texts about brands, or what a sentiment step said of them, with a column of the market."
    example = """\
brand_rivals:
  task: compare
  input: review_mood
  per: [category]
  brand: brand
  score: score
  aspects: aspects
  document: review_id
  time: day"""
    shapes: ClassVar[tuple[Shape, ...]] = ("group",)
    writes: ClassVar[dict[str, str]] = {
        "brand": "string: the brand",
        "aspect": "string: what was judged; overall is the whole text",
        "mentions": "long: texts that speak of it, in the newest window",
        "share, share_low, share_high": "double: of all brands' mentions of the aspect, with its interval",
        "positive, negative": "double: shares of the mentions with a score above 0.25, below -0.25",
        "score, score_low, score_high": "double: mean, with its interval; null without mentions",
        "gap": "double: score less that of all other brands' mentions",
        "gap_p": "double: how often chance gives such a gap, adjusted for the market's overall rows, or its aspects",
        "verdict": "string: strength or weakness beside the others, where chance does not explain it; else null",
        "previous_mentions, previous_share, previous_score": "of the window before; null without `time`",
        "share_change, score_change": "double: since the window before",
        "share_change_p, score_change_p": "double: how often chance gives such a change, adjusted",
        "quotes": "list of {document, quote, score}: the best of a strength, the worst of a weakness",
    }
    exhibits = "samples"
    settings: CompareSettings

    @property
    def shape(self) -> Shape:
        return "group"

    def group_by(self) -> list[str]:
        return list(self.settings.per)

    def keys(self) -> list[str]:
        return [*self.settings.per, "brand", "aspect"]

    def reads(self) -> list[str]:
        s = self.settings
        named = [*s.per, s.brand, s.text, s.score, s.aspects, s.document, s.time]
        return list(dict.fromkeys(c for c in named if c is not None))

    def check(self) -> list[tuple[str, object, str, str]]:
        s, schema = self.settings, self.source.schema
        named = [*(("per", c) for c in s.per), ("document", s.document)]
        faults = [f for setting, c in named if c is not None for f in _trend.column_faults(setting, c, schema)]
        for setting, column in (("brand", s.brand), ("text", s.text)):
            if column is None or (missing := _trend.column_faults(setting, column, schema)):
                faults += missing if column is not None else []
            elif not documents.is_text(kind := schema.field(column).type):
                faults.append((setting, column, f"expected a string column, it is {kind}", ""))
        faults += _trend.number_faults("score", s.score, schema) if s.score is not None else []
        faults += _trend.time_faults("time", s.time, schema) if s.time is not None else []
        if s.aspects is not None:
            faults += _compare.aspect_faults(s.aspects, schema)
        if s.knowledge is not None:
            faults += _knowledge.faults("knowledge", s.knowledge, self.others["knowledge"])
        if s.brand in s.per or len({*s.per}) < len(s.per):
            faults.append(("per", s.per, "expected different columns, and not the brand", ""))
        own = {name for name, _ in _OWN}
        for column in s.per:
            if column.lower() in own - {s.brand}:
                expected = "expected a name that no output column has"
                faults.append(("per", column, expected, "rename it in the source's `select`"))
        return faults

    def columns(self) -> pa.Schema:
        return pa.schema(_OWN)

    def rules(self) -> dict[str, str]:
        s = self.settings
        return {
            "brand and aspect have names": "trim(brand) <> '' and trim(aspect) <> ''",
            "shares lie in their intervals": "share between share_low and share_high and share_high <= 1",
            "scores lie in their intervals": "mentions = 0 or score between score_low and score_high",
            "few mentions are no verdict": f"verdict is null or mentions >= {s.min_mentions}",
            "a verdict is more than chance": f"verdict is null or gap_p < {1 - s.confidence!r}",
            "a strength is above the others": "verdict is null or (verdict = 'strength') = (gap > 0)",
        }

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return 0, rows * 4e-5 + (text_bytes * 3e-6 if self.settings.text else 0.0)

    # -- the work -------------------------------------------------------------------------------------------------

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        knowledge = self.settings.knowledge
        assert knowledge is not None
        found = _knowledge.other_names(tables["knowledge"], knowledge, _BRAND)
        try:
            self.settings.names(found)
        except ValueError as fault:
            expected = "expected each name under one brand; there is one under two"
            raise UserError(Fault("knowledge", knowledge.input, expected)) from fault
        return {"brands": found}

    def combine(self, rows: pa.Table) -> Combined:
        if "__n" in rows.column_names:  # combined before
            return Combined(_compare.summed(rows, self.settings.per, self.settings.quotes))
        found, rejects = _compare.mentions(rows, self.settings, self._names, self._terms, self.run_date)
        return Combined(_compare.summed(found, self.settings.per, self.settings.quotes), rejects)

    def answer(self, batch: Groups) -> Outcome:
        keys = [column.cast(pa.string()).to_pylist() for column in batch.keys.columns]
        subjects, told, rejects, shown = [], [], [], []
        for group in range(len(batch)):
            first, end = int(batch.starts[group]), int(batch.starts[group + 1])
            rows = _compare.compared(batch.rows.slice(first, end - first), self.settings)
            if not rows:
                rejects.append(_compare.empty(group))
                continue
            subjects += [group] * len(rows)
            told += rows
            shown += _compare.shown(" · ".join(column[group] for column in keys), rows)
        columns = pa.Table.from_pylist(told, schema=self.columns())
        return Outcome(np.array(subjects, np.int64), columns, rejects, exhibit=_compare.exhibit(shown))

    @cached_property
    def _names(self) -> Phrases[str]:
        return self.settings.names(self.learned["brands"] if self.learned else None)

    @cached_property
    def _terms(self) -> Phrases[str]:
        return aspects.terms(aspects.built_in())


TASK = Compare
