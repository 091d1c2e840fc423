"""Texts with personal data masked out: the same columns, and where something stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt, model_validator

from bizllm.errors import nearest
from bizllm.evaluate import tags
from bizllm.methods.pii.masker import BY_MODEL, VERSION, Masker
from bizllm.methods.pii.spans import Span
from bizllm.models.saved import ModelInfo
from bizllm.models.tagger import Tagger
from bizllm.tables.contract import CONTRACT
from bizllm.tables.mask_settings import ENTITIES, MaskRules
from bizllm.tasks import _texts
from bizllm.tasks.base import Models, Outcome, Reject, Shape, Task, TaskSettings

_ENTITY = pa.struct([("column", pa.string()), ("type", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
_COUNT = pa.struct([("type", pa.string()), ("count", pa.int32())])
_OWN = ("entities", "entity_count", "counts")
_SECONDS_PER_BYTE = 4e-6  # one core, English; Chinese takes less

# What models call what the rules call something else.
_TAGS = {
    "PER": "PERSON",
    "NAME": "PERSON",
    "LOC": "LOCATION",
    "GPE": "LOCATION",
    "ORG": "ORGANIZATION",
    "STREET_ADDRESS": "ADDRESS",
    "PHONE_NUMBER": "PHONE",
    "EMAIL_ADDRESS": "EMAIL",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "DOMAIN_NAME": "URL",
    "ZIP_CODE": "ADDRESS",
}


def entity_of(tag: str) -> str | None:
    """The entity that a model's tag stands for (PER, PER.NAM and PERSON alike); None where it is none."""
    name = tag.upper()
    for known in (name, name.split(".")[0]):
        if _TAGS.get(known, known) in ENTITIES:
            return _TAGS.get(known, known)
    return None


class MaskSettings(MaskRules, TaskSettings):
    """What `task: mask` takes."""

    text: str | None = Field(default=None, description="The text column.")
    columns: list[str] = Field(default=[], description="Several text columns instead.")
    model: str | None = Field(
        default=None,
        description="A model that was fine-tuned for token_classification; its PERSON, LOCATION, ORG and the like are "
        "masked too.",
    )
    max_input_chars: PositiveInt = Field(default=10_000_000, description="Longer texts are rejected as too_long.")

    @model_validator(mode="after")
    def _columns(self) -> MaskSettings:
        if (self.text is None) == (not self.columns):
            raise ValueError("expected either `text` or `columns`")
        return self


class Mask(Task):
    """Rules and checksums (`bizllm.methods.pii`), and what a tagger finds beside them."""

    name = "mask"
    version = VERSION
    Settings = MaskSettings
    summary = "The same texts with personal data masked out, or under pseudonyms that a key turns back."
    takes = "One or more texts in each row."
    example = "safe_tickets: {task: mask, input: tickets, text: body}"
    shapes = ("row",)
    writes: ClassVar[dict[str, str]] = {
        "<column>": "string: the text, masked, under its own name; null stays null",
        "entities": "list of {column, type, start, end}: in order; characters [start, end) of the input text, "
        "never the text itself",
        "entity_count": "int: how many there are",
        "counts": "list of {type, count}: how many of each type, by name",
    }
    settings: MaskSettings

    _tagger: Tagger | None = None

    @property
    def shape(self) -> Shape:
        return "row"

    def reads(self) -> list[str]:
        return [self.settings.text] if self.settings.text is not None else list(self.settings.columns)

    def check(self) -> list[tuple[str, object, str, str]]:
        single = self.settings.text is not None
        faults = _texts.column_faults(
            self.source.schema,
            {("text" if single else f"columns.{i}"): name for i, name in enumerate(self.reads())},
        )
        for i, name in enumerate(self.reads()):
            setting = "text" if single else f"columns.{i}"
            if name in self.source.key:
                faults.append((setting, name, "is a key, and keys are published as they are", "mask it in the source"))
            elif name.lower() in (*_OWN, *CONTRACT.names):
                faults.append(
                    (setting, name, "the table has another column of that name", "use `rename` on the source")
                )
        if len(set(self.reads())) < len(self.reads()):
            faults.append(("columns", self.reads(), "expected different columns", ""))
        for i, kind in enumerate(self.settings.entities or ()):
            if kind in BY_MODEL and self.settings.model is None:
                faults.append(
                    (f"entities.{i}", kind, "no rule finds these; they need a `model`", nearest(kind, ["model"]))
                )
        return faults

    def columns(self) -> pa.Schema:
        return pa.schema(
            [
                *((name, pa.string()) for name in self.reads()),
                ("entities", pa.list_(_ENTITY)),
                ("entity_count", pa.int32()),
                ("counts", pa.list_(_COUNT)),
            ]
        )

    def rules(self) -> dict[str, str]:
        return {
            "every entity has characters": "not list_contains([e['start'] < 0 or e['start'] >= e['end'] "
            "for e in entities], true)",
            "entities are counted": "entity_count = len(entities) and "
            "coalesce(list_sum([c['count'] for c in counts]), 0) = entity_count",
        }

    def models(self) -> dict[str, str]:
        return {"tagger": self.settings.model} if self.settings.model else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        if not self.settings.model:
            return []
        info = infos["tagger"]
        faults = _texts.objective_faults(self.name, self.settings.model, info, ("token_classification",))
        if info is not None and not faults and not any(entity_of(label.partition("-")[2]) for label in info.labels):
            kinds = sorted({label.partition("-")[2] for label in info.labels} - {""})
            faults.append(
                ("model", self.settings.model, f"none of what it tags is personal data: {', '.join(kinds)}", "")
            )
        return faults

    def depends_on_date(self) -> bool:
        return False

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        tokens, seconds = _texts.model_cost(rows, text_bytes) if self.settings.model else (0, 0.0)
        return tokens, seconds + rows * 2e-4 + text_bytes * _SECONDS_PER_BYTE

    def open(self, models: Models) -> None:
        if self.settings.model:
            self._tagger = models.tagger(self.settings.model)

    def answer(self, batch: pa.Table) -> Outcome:
        """Rows where one of the columns has a text; another may be null or blank there."""
        given, rejects = _read(batch, self.reads(), self.settings.max_input_chars)
        masker, tokens = Masker(self.settings), 0
        rows: list[dict[str, Any]] = [{"entities": []} for _ in given]
        for column in self.reads():
            texts = [row[column] for row in given.values()]
            more, read = self._tagged([text or "" for text in texts])
            tokens += read
            for row, text, tagged in zip(rows, texts, more, strict=True):
                spans = masker.spans(text, tagged) if text else []
                row[column] = masker.masked(text, spans) if text else text
                row["entities"] += [{"column": column, "type": s.type, "start": s.start, "end": s.end} for s in spans]
        for row in rows:
            row["entity_count"] = len(row["entities"])
            counts = Counter(entity["type"] for entity in row["entities"])
            row["counts"] = [{"type": kind, "count": counts[kind]} for kind in sorted(counts)]
        columns = pa.Table.from_pylist(rows, schema=self.columns())
        return Outcome(np.array(list(given), np.int64), columns, rejects, tokens)

    def _tagged(self, texts: list[str]) -> tuple[list[list[Span]], int]:
        """(what the model finds in each text, tokens that it read)."""
        if self._tagger is None:
            assert not self.settings.model, "opened before the first batch"
            return [[] for _ in texts], 0
        tagged, tokens = self._tagger.tags(texts)
        found = []
        for words in tagged:
            spans = []
            for first, stop, tag in tags.spans([word.tag for word in words]):
                score = float(np.mean([word.probability for word in words[first:stop]]))
                if (kind := entity_of(tag)) is not None and not np.isnan(score):
                    spans.append(Span(words[first].start, words[stop - 1].end, kind, score))
            found.append(spans)
        return found, int(tokens.sum())


def _read(batch: pa.Table, columns: list[str], max_chars: int) -> tuple[dict[int, dict[str, str | None]], list[Reject]]:
    """(the texts of each row that can be read, by column; the other rows)."""
    from bizllm.methods import documents

    given: dict[int, dict[str, str | None]] = {i: dict.fromkeys(columns) for i in range(batch.num_rows)}
    rejected: dict[int, Reject] = {}
    blank: Counter[int] = Counter()
    for column in columns:
        texts, unusable = documents.read(batch[column], max_chars)
        for i, text in enumerate(texts):
            given[i][column] = text[0] if text else None
        for i, code, message in unusable:
            if code == "empty":
                blank[i] += 1
                given[i][column] = "" if batch[column][i].is_valid else None
            else:
                rejected.setdefault(i, Reject(i, code, message))
    for i, count in blank.items():
        if count == len(columns):
            rejected.setdefault(i, Reject(i, "empty", "every text is null or blank"))
    kept = {i: row for i, row in given.items() if i not in rejected}
    return kept, [rejected[i] for i in sorted(rejected)]


TASK = Mask
