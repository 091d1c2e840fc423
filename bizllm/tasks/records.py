"""What stands in each medical note, masked first: sections, problems, medicines, tests, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from bizllm.methods import sentences
from bizllm.methods.few_shot import FewShot
from bizllm.methods.pii import masker
from bizllm.models.saved import ModelInfo
from bizllm.tables.mask_settings import MaskRules
from bizllm.tasks import _labels, _notes, _texts
from bizllm.tasks._labels import Examples, FewShotLabels
from bizllm.tasks._texts import Faults, TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome

_PLACE = [("start", pa.int32()), ("end", pa.int32())]
_SECTION = pa.struct([("section", pa.string()), ("heading", pa.string()), *_PLACE])
_SAID = [("status", pa.string()), ("section", pa.string()), *_PLACE]
_PROBLEM = pa.struct([("problem", pa.string()), *_SAID])
_MEDICINE = pa.struct([(name, pa.string()) for name in ("medicine", "dose", "route", "frequency")] + _SAID)
_TEST = pa.struct([("test", pa.string()), ("value", pa.string()), ("unit", pa.string()), *_SAID[1:]])


class RecordsSettings(TextSettings):
    """What `task: records` takes."""

    mask: MaskRules = Field(
        default=MaskRules(), description="How personal data is masked before the note is read, as in `task: mask`."
    )
    examples: Examples | None = Field(
        default=None, description="A table of notes with their specialty, to learn `specialty` from."
    )
    model: str | None = Field(
        default=None, description="With `examples`: an encoder that reads the notes' language; words alone without one."
    )
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None,
        description="Under this probability `specialty` is null; by default what suits the examples. 0: always told.",
    )

    @model_validator(mode="after")
    def _learned(self) -> RecordsSettings:
        if self.examples is None and (self.model is not None or self.threshold is not None):
            raise ValueError("`model` and `threshold` are for `examples`, and there are none")
        return self


class Records(TextTask):
    """Rules and dictionaries (`bizllm.methods.clinical`) on the masked note; a specialty by examples."""

    name = "records"
    version = masker.VERSION * 100 + 1  # what is masked moves every place
    Settings = RecordsSettings
    summary = "What stands in a medical note, masked first: sections, problems, medicines, tests, what is denied."
    takes = "A medical note in each row, English or Chinese; maybe, in a table of its own, notes with their specialty."
    example = (
        "note_records: {task: records, input: notes, text: body, examples: {input: labelled_notes, text: body, "
        "label: specialty}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "note": "string: the note, personal data masked out; every start and end counts its characters",
        "sections": "list of {section, heading, start, end}: in order, without the heading; `other` for an unknown one",
        "problems": "list of {problem, status, section, start, end}: symptoms and diseases; status present, absent, "
        "possible or family",
        "medicines": "list of {medicine, dose, route, frequency, status, section, start, end}: as written, null where "
        "nothing is",
        "tests": "list of {test, value, unit, section, start, end}: as written, null where nothing is",
        "specialty": "string: by the examples; null without them, and where nothing is likely enough",
        "specialty_probability": "float in [0, 1]: of the likeliest specialty, told or not; null without examples",
        "input_tokens": "int: length of the masked note, as the model counts; words where no model read it",
    }
    exhibits = "categories"
    category_column = "specialty"
    settings: RecordsSettings

    _encoder: Any = None
    _labeller: FewShotLabels | None = None

    def check(self) -> Faults:
        faults = super().check()
        if self.settings.examples is not None:
            faults += _labels.single_label_faults(self.settings.examples, self.others["examples"])
        return faults

    def columns(self) -> pa.Schema:
        return pa.schema(
            [
                ("note", pa.string()),
                ("sections", pa.list_(_SECTION)),
                ("problems", pa.list_(_PROBLEM)),
                ("medicines", pa.list_(_MEDICINE)),
                ("tests", pa.list_(_TEST)),
                ("specialty", pa.string()),
                ("specialty_probability", pa.float32()),
                ("input_tokens", pa.int32()),
            ]
        )

    def rules(self) -> dict[str, str]:
        def inside(column: str) -> str:
            return f"not list_contains([p['start'] < 0 or p['end'] > length(note) for p in {column}], true)"

        words = ", ".join(f"'{word}'" for word in ("present", "absent", "possible", "family"))
        return {
            "every place lies in the note": " and ".join(
                inside(column) for column in ("sections", "problems", "medicines", "tests")
            ),
            "every problem has a status": f"not list_contains([p['status'] not in ({words}) for p in problems], true)",
            "the probability lies in [0, 1]": "coalesce(specialty_probability, 0) between 0 and 1",
        }

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model} if self.settings.model else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))

    def caveat(self) -> str:
        return (
            "Problems, medicines and tests were never held against a labelled set. Of English notes 91 % of "
            "the headings are known; a specialty learned of 120 notes is right for 55 %."
        )

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        tokens, seconds = _texts.model_cost(rows, text_bytes) if self.settings.model else (0, 0.0)
        return tokens, seconds + text_bytes * _notes.SECONDS_PER_BYTE

    def open(self, models: Models) -> None:
        self._encoder = models.encoder(self.settings.model) if self.settings.model else None
        if self.learned is not None:
            self._labeller = FewShotLabels(FewShot.of(self.learned), self._encoder)

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s = self.settings
        assert s.examples is not None
        rows = _notes.masked(tables["examples"], s.examples.text, s.max_input_chars, s.mask)
        return _labels.learn(rows, s.examples, {}, self._encoder, s.max_input_chars)

    def answer(self, batch: pa.Table) -> Outcome:
        s = self.settings
        notes = _notes.read(batch, s.text, s.max_input_chars, s.mask)
        rows = [_row(text) for text in notes.texts]
        tokens = self._specialties(notes.texts, rows)
        return Outcome(notes.positions, pa.Table.from_pylist(rows, schema=self.columns()), notes.rejects, tokens)

    def _specialties(self, texts: list[str], rows: list[dict[str, Any]]) -> int:
        """Add them to the rows, and the length of each note; the tokens that a model read."""
        if self._labeller is None:
            assert self.settings.examples is None, "learned before the first batch"
            for text, row in zip(texts, rows, strict=True):
                row["input_tokens"] = sentences.count_words(text)
            return 0
        likely, tokens = self._labeller.probabilities([texts])
        least = self.settings.threshold if self.settings.threshold is not None else self._labeller.threshold
        for row, of_note, count in zip(rows, likely, tokens, strict=True):
            best = int(np.argmax(of_note))
            row |= {"specialty_probability": float(of_note[best]), "input_tokens": int(count)}
            row["specialty"] = self._labeller.names[best] if of_note[best] >= (least or 0.0) else None
        return int(tokens.sum()) if self._encoder is not None else 0


def _row(text: str) -> dict[str, Any]:
    from bizllm.methods.clinical import note  # many long patterns

    found = note.read(text)
    parts = [{"section": p.name, "heading": p.heading, "start": p.start, "end": p.end} for p in found.sections]
    row: dict[str, Any] = {"note": text, "sections": parts}
    for column, kind in (("problems", "problem"), ("medicines", "medicine"), ("tests", "test")):
        row[column] = [
            {kind: said.what.name, "status": said.status, "section": said.section, **vars(said.what)}
            for said in getattr(found, column)
        ]
    return row


TASK = Records
