"""Typed fields of each text: what a job asks for by name, with where it stood and how sure it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, StringConstraints, field_validator, model_validator

from bizllm.errors import nearest
from bizllm.evaluate import tags
from bizllm.methods import fields
from bizllm.methods.fields import FieldRule, FieldType
from bizllm.methods.pii.folding import folded
from bizllm.methods.terms import Terms
from bizllm.methods.values.found import Found
from bizllm.models.saved import ModelInfo
from bizllm.models.tagger import Tagger
from bizllm.tables.settings import Closed
from bizllm.tasks import _knowledge, _texts
from bizllm.tasks._knowledge import Knowledge
from bizllm.tasks._texts import TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome

FieldName = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,62}$")]
_SPAN = pa.struct(
    [
        ("field", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("text", pa.string()),
        ("confidence", pa.float32()),
    ]
)
_OWN = ("spans", "missing", "complete")
_NUMBERS = {"number": pa.float64(), "amount": pa.float64(), "percent": pa.float64(), "duration": pa.float64()}
_TYPES: dict[str, pa.DataType] = {**_NUMBERS, "integer": pa.int64(), "date": pa.date32()}
_MAX_PATTERN = 500


class ExtractField(Closed):
    """What one field holds, and how it is found."""

    type: FieldType = Field(
        description="What it is. `amount` has a column `<field>_currency` beside it, `duration` is in days, `code` an "
        "article or order number, `term` a name of `knowledge`, `choice` one of `choices`; `text` needs `pattern` or "
        "`near`, and is then the rest of the line."
    )
    pattern: str | None = Field(
        default=None,
        max_length=_MAX_PATTERN,
        description="A regular expression of what to look at; its first group, where it has one.",
    )
    near: list[str] = Field(
        default=[],
        description="Words that stand near it, best before it: of several amounts the one beside `total`. With none "
        "of them near, a value is hardly ever sure enough.",
    )
    choices: dict[str, list[str]] = Field(default={}, description="Of a choice: its values, and the words for each.")
    kind: str | None = Field(default=None, description="Of a term: only names of this kind.")
    tag: str | None = Field(default=None, description="Of a text: what the `model` marks so.")
    required: bool = Field(default=False, description="Rows without it are listed as not complete.")
    many: bool = Field(default=False, description="Every value, as a list in the order of the text.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as fault:
            raise ValueError(f"is no regular expression: {fault}") from None
        return pattern

    @model_validator(mode="after")
    def _found_somehow(self) -> ExtractField:
        if (self.type == "choice") != bool(self.choices):
            raise ValueError("expected `choices` with `type: choice`, and only there")
        if self.kind is not None and self.type != "term":
            raise ValueError("`kind` is for `type: term`")
        if self.tag is not None and (self.type != "text" or self.pattern):
            raise ValueError("`tag` is for `type: text` without a `pattern`")
        if self.type == "text" and not (self.pattern or self.near or self.tag):
            raise ValueError("expected `pattern`, `near` or `tag` with `type: text`")
        return self


class ExtractSettings(TextSettings):
    """What `task: extract` takes."""

    fields: dict[FieldName, ExtractField] = Field(min_length=1, description="What to look for, by column.")
    time: str | None = Field(
        default=None,
        description="When the text was written, a date or timestamp (UTC where it has a timezone): `next Friday` is "
        "told from it, by default from the run date.",
    )
    day_first: bool = Field(default=True, description="03/07 is the third of July; false: the seventh of March.")
    min_confidence: float = Field(default=0.3, ge=0.0, le=1.0, description="Less sure values are left out.")
    knowledge: Knowledge | None = Field(default=None, description="The names that fields of `type: term` hold.")
    model: str | None = Field(
        default=None, description="A model that was fine-tuned for token_classification, for fields with a `tag`."
    )


class Extract(TextTask):
    """Readers of values (`bizllm.methods.values`), a company's own names, or a tagger; cue words choose."""

    name = "extract"
    version = 1
    Settings = ExtractSettings
    summary = "Typed fields of each text: amounts, dates, order numbers, names, with where they stood."
    takes = "A text in each row, maybe with the time at which it was written; maybe a table of names."
    example = (
        "order_facts: {task: extract, input: order_mails, text: body, time: received_at, fields: "
        "{deliver_by: {type: date, near: [deliver, before, 交货]}, total: {type: amount, near: [total, 合计]}}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "<field>": "each of `fields`: double, int64, date or string; a list of it with `many`; null where not found",
        "<field>_currency": "string: the ISO code of an amount; null where the text names none",
        "spans": "list of {field, start, end, text, confidence}: where each value stood, in order; characters "
        "[start, end) of the text",
        "missing": "list of string: required fields that were not found",
        "complete": "boolean: none is missing",
    }
    settings: ExtractSettings

    _tagger: Tagger | None = None
    _rules: dict[str, FieldRule] | None = None

    def reads(self) -> list[str]:
        return [self.settings.text, *([self.settings.time] if self.settings.time else [])]

    def check(self) -> list[tuple[str, object, str, str]]:
        s, schema = self.settings, self.source.schema
        faults = _texts.column_faults(schema, {"text": s.text})
        if s.time is not None and s.time not in schema.names:
            known = f"no such column; there are {', '.join(schema.names)}"
            faults.append(("time", s.time, known, nearest(s.time, schema.names)))
        elif s.time is not None and not _is_time(schema.field(s.time).type):
            expected = f"expected a date or timestamp column, it is {schema.field(s.time).type}"
            faults.append(("time", s.time, expected, ""))
        own = {*_OWN, *(f"{name}_currency" for name, field in s.fields.items() if field.type == "amount")}
        for name, field in s.fields.items():
            if name in own:
                faults.append((f"fields.{name}", name, "the table has another column of that name", ""))
            if field.type == "term" and s.knowledge is None:
                faults.append((f"fields.{name}.type", "term", "needs `knowledge`, a table of the names", ""))
            if field.tag is not None and s.model is None:
                faults.append((f"fields.{name}.tag", field.tag, "needs a `model` that tags", ""))
        if s.knowledge is not None and "knowledge" in self.others:
            faults += _knowledge.faults("knowledge", s.knowledge, self.others["knowledge"])
        return faults

    def columns(self) -> pa.Schema:
        columns = []
        for name, field in self.settings.fields.items():
            kind = _TYPES.get(field.type, pa.string())
            columns.append((name, pa.list_(kind) if field.many else kind))
            if field.type == "amount":
                columns.append((f"{name}_currency", pa.list_(pa.string()) if field.many else pa.string()))
        own = [("spans", pa.list_(_SPAN)), ("missing", pa.list_(pa.string())), ("complete", pa.bool_())]
        return pa.schema([*columns, *own])

    def rules(self) -> dict[str, str]:
        return {
            "a span holds its text": "not list_contains([length(s['text']) <> s['end'] - s['start'] or "
            "s['text'] = '' for s in spans], true)",
            "a span's confidence lies in [0, 1]": "not list_contains([s['confidence'] not between 0 and 1 "
            "for s in spans], true)",
            "a row is complete where nothing is missing": "complete = (len(missing) = 0)",
        }

    def models(self) -> dict[str, str]:
        return {"tagger": self.settings.model} if self.settings.model else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        if not self.settings.model:
            return []
        info = infos["tagger"]
        faults = _texts.objective_faults(self.name, self.settings.model, info, ("token_classification",))
        if faults or info is None:
            return faults
        known = sorted({label.partition("-")[2] for label in info.labels} - {""})
        return [
            (f"fields.{name}.tag", field.tag, f"the model tags {', '.join(known)}", nearest(field.tag, known))
            for name, field in self.settings.fields.items()
            if field.tag is not None and field.tag not in known
        ]

    def depends_on_date(self) -> bool:
        """Where no column says when a text was written, "tomorrow" is told from the run date."""
        return self.settings.time is None and any(field.type == "date" for field in self.settings.fields.values())

    def caveat(self) -> str:
        return "On made order mails dates are found for 79 % and totals for 66 %; a real mailbox has other words."

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        tokens, seconds = _texts.model_cost(rows, text_bytes) if self.settings.model else (0, 0.0)
        return tokens, seconds + rows * 1e-4 + text_bytes * 2e-6 * len(self.settings.fields)

    def open(self, models: Models) -> None:
        if self.settings.model:
            self._tagger = models.tagger(self.settings.model)
        if self.settings.knowledge is None or self.learned is not None:
            terms = _knowledge.terms(self.learned)
            self._rules = {name: _rule(field, terms) for name, field in self.settings.fields.items()}

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        assert self.settings.knowledge is not None
        return _knowledge.learn(tables["knowledge"], self.settings.knowledge)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._rules is not None, "opened before the first batch"
        s = self.settings
        given = _texts.read(batch, [s.text], s.max_input_chars)
        (texts,) = given.columns
        times = batch[s.time].to_pylist() if s.time else [self.run_date] * batch.num_rows
        tagged, tokens = self._tagged(texts)
        rows = [
            self._row(text, _day(times[at]), marked)
            for text, at, marked in zip(texts, given.positions.tolist(), tagged, strict=True)
        ]
        return Outcome(given.positions, pa.Table.from_pylist(rows, schema=self.columns()), given.rejects, tokens)

    def _row(self, text: str, anchor: date | None, tagged: list[tuple[str, Found]]) -> dict[str, Any]:
        assert self._rules is not None
        s, flat = self.settings, folded(text)
        row: dict[str, Any] = {}
        spans, missing = [], []
        for name, rule in self._rules.items():
            field = s.fields[name]
            marked = None if field.tag is None else [found for tag, found in tagged if tag == field.tag]
            values = [f for f in fields.read(flat, rule, anchor, s.day_first, marked) if f.score >= s.min_confidence]
            told = [text[f.start : f.end] if field.type == "text" else f.value for f in values]
            units = [f.unit for f in values]
            row[name] = told if field.many else told[0] if told else None
            if field.type == "amount":
                row[f"{name}_currency"] = units if field.many else units[0] if units else None
            missing += [name] if field.required and not values else []
            spans += [
                {"field": name, "start": f.start, "end": f.end, "text": text[f.start : f.end], "confidence": f.score}
                for f in values
            ]
        spans.sort(key=lambda span: (span["start"], span["end"], span["field"]))
        return row | {"spans": spans, "missing": missing, "complete": not missing}

    def _tagged(self, texts: list[str]) -> tuple[list[list[tuple[str, Found]]], int]:
        """(the spans with their tags that the model marks in each text, tokens that it read)."""
        if self._tagger is None:
            return [[] for _ in texts], 0
        words, tokens = self._tagger.tags(texts)
        marked = []
        for text, of in zip(texts, words, strict=True):
            found = []
            for first, stop, tag in tags.spans([word.tag for word in of]):
                start, end = of[first].start, of[stop - 1].end
                sure = sum(word.probability for word in of[first:stop]) / (stop - first)
                if sure == sure:  # a model that overflows says nothing
                    found.append((tag, Found(start, end, text[start:end], float(sure))))
            marked.append(found)
        return marked, int(tokens.sum())


def _rule(field: ExtractField, terms: Terms | None) -> FieldRule:
    if field.type == "choice":
        names = [(word, value, None) for value, words in field.choices.items() for word in words]
        names += [(value.replace("_", " "), value, None) for value in field.choices]
        terms = Terms.learn(names)
    pattern = re.compile(field.pattern) if field.pattern else None
    return FieldRule(field.type, pattern, fields.cue_words(field.near), terms, field.kind, field.many)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _day(moment: date | datetime | None) -> date | None:
    if isinstance(moment, datetime):
        return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    return moment


TASK = Extract
