"""Typed columns that a model fills in: a question about each row, answered as JSON by a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from bizllm.methods import map_reduce, structured
from bizllm.models.saved import ModelInfo
from bizllm.tables.contract import CONTRACT
from bizllm.tasks import _facts, _prompts, _texts
from bizllm.tasks._facts import Facts
from bizllm.tasks.base import Models, Outcome, Reject, Shape, Task, TaskSettings

PROMPT, CONDENSE = "complete", "summarize"
_OWN = {"condensed": pa.bool_(), "repaired": pa.bool_(), "input_tokens": pa.int32(), "output_tokens": pa.int32()}
_ARROW = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "texts": pa.list_(pa.string()),
}
_JSON = {"text": "string", "texts": "string"}
_SAMPLE = {
    "ask": "What is it?",
    "facts": [{"name": "body", "value": "a lid"}],
    "fields": [{"name": "what", "says": "text"}],
    "schema": "{}",
}
_CONDENSED_TOKENS = 256
_SECONDS_PER_READ, _SECONDS_PER_WRITTEN = 1 / 1_000, 1 / 100  # of a core, a generator of 0.1 billion parameters


class OutputField(BaseModel):
    """A column that the model fills in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text", "number", "integer", "boolean", "texts"] = Field(
        default="text", description="What it holds; `texts` is a list of texts."
    )
    meaning: str = Field(default="", description="What it says, for the model.")
    values: list[str] = Field(default=[], description="Of `text` and `texts`: the only ones that may be.")
    least: float | None = Field(default=None, description="Of a number: the smallest.")
    most: float | None = Field(default=None, description="Of a number: the largest.")
    optional: bool = Field(default=False, description="Whether it may be null.")

    @model_validator(mode="after")
    def _of_its_type(self) -> OutputField:
        if self.values and self.type not in _JSON:
            raise ValueError(f"`values` are for text and texts, not for {self.type}")
        if (self.least, self.most) != (None, None) and self.type not in ("number", "integer"):
            raise ValueError(f"`least` and `most` are for numbers, not for {self.type}")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"`least` {self.least:g} is more than `most` {self.most:g}")
        return self

    def as_json(self) -> dict[str, Any]:
        """As JSON Schema."""
        one: dict[str, Any] = {"type": _JSON.get(self.type, self.type)}
        one |= {"enum": list(self.values)} if self.values else {}
        one |= {"minimum": self.least} if self.least is not None else {}
        one |= {"maximum": self.most} if self.most is not None else {}
        if self.type == "texts":
            one = {"type": "array", "items": one}
        if self.optional:
            one["type"] = [one["type"], "null"]
            one |= {"enum": [*one["enum"], None]} if "enum" in one else {}
        return one | ({"description": self.meaning} if self.meaning else {})

    def says(self) -> str:
        """For the model, in words."""
        kind = "list of text" if self.type == "texts" else self.type
        values = ", ".join(json.dumps(value, ensure_ascii=False) for value in self.values)
        told = [kind, self.meaning, f"one of {values}" if values else ""]
        told += [f"at least {self.least:g}" if self.least is not None else ""]
        told += [f"at most {self.most:g}" if self.most is not None else "", "or null" if self.optional else ""]
        return "; ".join(part for part in told if part)

    def rule(self, name: str) -> str | None:
        """What the audit asks of the column."""
        column = f'"{name}"'
        values = ", ".join("'" + value.replace("'", "''") + "'" for value in self.values)
        asked = [] if self.optional else [f"{column} IS NOT NULL"]
        if values:
            asked.append(f"list_has_all([{values}], {column})" if self.type == "texts" else f"{column} IN ({values})")
        asked += [] if self.least is None else [f"{column} >= {self.least!r}"]
        asked += [] if self.most is None else [f"{column} <= {self.most!r}"]
        whole = " AND ".join(asked)
        return f"{column} IS NULL OR ({whole})" if self.optional and whole else whole or None


class CompleteSettings(TaskSettings):
    """What `task: complete` takes."""

    columns: list[str] = Field(min_length=1, description="The columns that the model reads: text, numbers, dates.")
    ask: str = Field(min_length=1, description="What it is asked about them.")
    fields: dict[str, OutputField] = Field(
        min_length=1, description="The columns that it fills in, by name; a text alone is the meaning of a text."
    )
    generator: str = Field(description="The model that answers: causal_lm, seq2seq, or an endpoint.")
    prompt: str | None = Field(
        default=None,
        description="A Jinja template instead of the task's own. It may ask for ask, facts (name, value), fields "
        "(name, says) and schema, the JSON Schema.",
    )
    max_new_tokens: PositiveInt = Field(default=256, description="The longest answer, in tokens.")
    max_input_chars: PositiveInt = Field(default=200_000, description="Longer texts are rejected as too_long.")

    @field_validator("fields", mode="before", json_schema_input_type=dict[str, OutputField | str])
    @classmethod
    def _meanings(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: {"meaning": said} if isinstance(said, str) else said for name, said in fields.items()}


class Complete(Task):
    """One JSON object a row, held to its schema where the engine can do that, and held against it in any case; a misfit
    is asked for once more (`bizllm.methods.structured`). Long texts are condensed first."""

    name = "complete"
    version = 1
    Settings = CompleteSettings
    summary = "Typed columns that a model fills in, by a question about each row."
    takes = "Texts, numbers or dates in each row."
    example = (
        'ticket_facts: {task: complete, input: tickets, columns: [body], generator: writer, ask: "What is this ticket '
        'about?", fields: {product: the product, urgency: {type: integer, least: 1, most: 5}}}'
    )
    shapes = ("row",)
    writes: ClassVar[dict[str, str]] = {
        "each of `fields`": "of its type: string, double, bigint, boolean, list of string",
        "condensed": "boolean: whether the longest text was summarized first, because the row did not fit the window",
        "repaired": "boolean: whether the first answer did not fit the schema, and the second did",
        "input_tokens": "int: what the generator read for the row",
        "output_tokens": "int: what it wrote",
    }
    exhibits = "samples"
    prompts = (PROMPT, CONDENSE)
    settings: CompleteSettings

    _generator: Any = None

    @property
    def shape(self) -> Shape:
        return "row"

    def reads(self) -> list[str]:
        return list(dict.fromkeys(self.settings.columns))

    def check(self) -> list[tuple[str, object, str, str]]:
        s = self.settings
        faults = _facts.column_faults(self.source.schema, {f"columns.{i}": name for i, name in enumerate(s.columns)})
        taken = {name.lower() for name in (*CONTRACT.names, *_OWN, *self.source.key)}
        for name in s.fields:
            if not re.fullmatch(r"[A-Za-z]\w{0,62}", name, re.ASCII):
                faults.append((f"fields.{name}", None, "expected a name of letters, digits and _", ""))
            elif name.lower() in taken:
                faults.append((f"fields.{name}", None, "is the name of another column of the table", "rename it"))
        if len({name.lower() for name in s.fields}) < len(s.fields):
            faults.append(("fields", None, "expected names that differ in more than their case", ""))
        return faults + _prompts.faults(PROMPT, s.prompt, _SAMPLE)

    def columns(self) -> pa.Schema:
        own = [(name, _ARROW[field.type]) for name, field in self.settings.fields.items()]
        return pa.schema([*own, *_OWN.items()])

    def rules(self) -> dict[str, str]:
        asked = {name: field.rule(name) for name, field in self.settings.fields.items()}
        return {f"{name} is as was asked": rule for name, rule in asked.items() if rule}

    def models(self) -> dict[str, str]:
        return {"generator": self.settings.generator}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        return _texts.generator_faults(self.settings.generator, infos.get("generator"))

    def depends_on_date(self) -> bool:
        return False

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        read = text_bytes // 3 + rows * (60 + 20 * len(self.settings.fields))
        written = self.written(rows)
        return read + written, read * _SECONDS_PER_READ + written * _SECONDS_PER_WRITTEN

    def written(self, rows: int) -> int:
        return rows * min(self.settings.max_new_tokens, 15 * len(self.settings.fields))

    def open(self, models: Models) -> None:
        self._generator = models.generator(self.settings.generator)
        self._generator.max_input_tokens(self.settings.max_new_tokens)  # raises where the window has no room

    @cached_property
    def _schema(self) -> dict[str, Any]:
        fields = self.settings.fields
        return {
            "type": "object",
            "properties": {name: field.as_json() for name, field in fields.items()},
            "required": list(fields),
            "additionalProperties": False,
        }

    def answer(self, batch: pa.Table) -> Outcome:
        s, writer = self.settings, self._generator
        facts, rejects = _facts.read(batch, self.reads(), s.max_input_chars)
        usable = [row for row in range(len(facts)) if row not in rejects]
        condensed, spent = self._condense(facts, usable, rejects)
        usable = [row for row in usable if row not in rejects]
        limit = writer.max_input_tokens(s.max_new_tokens)
        answers = structured.ask(
            [self._prompt(facts[row]) for row in usable],
            self._schema,
            limit,
            writer.count,
            lambda prompts: writer.generate(prompts, s.max_new_tokens, schema=self._schema),
        )
        rows, positions, tokens = [], [], sum(map(sum, spent.values()))
        for row, answer in zip(usable, answers, strict=True):
            tokens += answer.input_tokens + answer.output_tokens
            value = None if answer.failed else _typed(answer.value, s.fields)
            if value is None:
                rejects[row] = answer.failed or ("invalid_answer", "a number of the answer is out of every range")
                continue
            read, written = spent.get(row, (0, 0))
            told = {"condensed": row in condensed, "repaired": answer.repaired}
            counts = {"input_tokens": read + answer.input_tokens, "output_tokens": written + answer.output_tokens}
            rows.append({**value, **told, **counts})
            positions.append(row)
        return Outcome(
            np.array(positions, np.int64),
            pa.Table.from_pylist(rows, schema=self.columns()),
            [Reject(row, *rejects[row]) for row in sorted(rejects)],
            tokens,
            _facts.exhibit(
                [facts[row] for row in positions],
                [
                    (
                        f"{row['input_tokens']} tokens",
                        json.dumps({f: row[f] for f in s.fields}, ensure_ascii=False),
                        None,
                    )
                    for row in rows
                ],
            ),
        )

    def _prompt(self, facts: Facts) -> str:
        s = self.settings
        return _prompts.template(PROMPT, s.prompt).render(
            ask=s.ask,
            facts=_facts.listed(facts),
            fields=[{"name": name, "says": field.says()} for name, field in s.fields.items()],
            schema=json.dumps(self._schema, ensure_ascii=False),
        )

    def _condense(
        self, facts: list[Facts], rows: list[int], rejects: dict[int, tuple[str, str]]
    ) -> tuple[set[int], dict[int, tuple[int, int]]]:
        """Summarize the longest text of the rows that do not fit the window, part by part where it must be
        (`methods/map_reduce.py`). (Those rows; tokens that each read and wrote)."""
        s, writer = self.settings, self._generator
        limit = writer.max_input_tokens(s.max_new_tokens)

        def longer(some: list[int]) -> list[int]:
            sizes = writer.count([self._prompt(facts[row]) for row in some]) if some else []
            return [row for row, size in zip(some, sizes, strict=True) if size > limit]

        todo = longer(rows)
        if not todo:
            return set(), {}
        longest = {row: max(facts[row], key=lambda name: len(facts[row][name])) for row in todo}
        most = min(_CONDENSED_TOKENS, s.max_new_tokens)
        try:
            made = map_reduce.summarize(
                [facts[row][longest[row]] for row in todo],
                lambda text: _prompts.template(CONDENSE).render(text=text),
                writer.max_input_tokens(most),
                writer.count,
                lambda prompts: writer.generate(prompts, most),
            )
        except ValueError:  # not even a prompt about one character fits
            made = [map_reduce.Summary() for _ in todo]
        for row, summary in zip(todo, made, strict=True):
            if summary.text:
                facts[row][longest[row]] = " ".join(summary.text.split())
            elif summary.failed:
                rejects[row] = summary.failed
        for row in longer([row for row in todo if row not in rejects]):
            rejects[row] = ("too_long", "the row is longer than the window, and its summary, too")
        return set(todo), {
            row: (summary.input_tokens, summary.output_tokens) for row, summary in zip(todo, made, strict=True)
        }


def _typed(value: dict[str, Any], fields: Mapping[str, OutputField]) -> dict[str, Any] | None:
    """As Arrow takes it; None where a number fits no column: 1e999 is JSON, and infinite."""
    typed = dict(value)
    for name, field in fields.items():
        given = value[name]
        if given is None or field.type not in ("number", "integer"):
            continue
        if not abs(given) < (1 << 63 if field.type == "integer" else 1e308):
            return None
        typed[name] = int(given) if field.type == "integer" else float(given)
    return typed


TASK = Complete
