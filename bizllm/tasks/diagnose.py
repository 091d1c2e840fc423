"""What a medical note may be about, for clinicians, with the sentences that speak for it. This is no diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bizllm.methods import sentences
from bizllm.methods.few_shot import FewShot
from bizllm.methods.pii import masker
from bizllm.models.saved import ModelInfo
from bizllm.tables.mask_settings import MaskRules
from bizllm.tasks import _labels, _notes, _texts
from bizllm.tasks._labels import Examples, FewShotLabels, FineTunedLabels, Labeller
from bizllm.tasks._texts import Faults, TextSettings, TextTask
from bizllm.tasks.base import Learned, Models, Outcome, Reject

NOTICES = {
    "en": "For clinicians. A suggestion from similar notes, not a diagnosis.",
    "zh": "仅供临床医生参考：根据相似病历给出的提示，不是诊断。",
}
_MOST_SENTENCES = 60  # of a note that are asked for evidence, the first ones; each is one more text to read
_EVIDENCE = pa.struct([("start", pa.int32()), ("end", pa.int32())])
_SUGGESTION = pa.struct([("label", pa.string()), ("probability", pa.float32()), ("evidence", pa.list_(_EVIDENCE))])


class DiagnoseSettings(TextSettings):
    """What `task: diagnose` takes."""

    examples: Examples | None = Field(
        default=None, description="A table of notes with what clinicians called them, to learn from."
    )
    model: str | None = Field(
        default=None,
        description="With `examples` an encoder that reads the notes' language; words alone without one. Without "
        "`examples` a model that was fine-tuned for classification.",
    )
    suggestions: PositiveInt = Field(default=3, description="The most that are told, likeliest first.")
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None,
        description="A note whose likeliest label is less probable gets no suggestion. By default the model's own, or "
        "the one that calls the least sure twentieth of rightly labelled examples too unsure. 0: never abstain.",
    )
    evidence: NonNegativeInt = Field(default=2, description="The most sentences that are told for a suggestion.")
    mask: MaskRules = Field(
        default=MaskRules(), description="How personal data is masked before the note is read, as in `task: mask`."
    )

    @model_validator(mode="after")
    def _one_way(self) -> DiagnoseSettings:
        if self.examples is None and self.model is None:
            raise ValueError("expected `examples`, or a fine-tuned `model`")
        return self


class Diagnose(TextTask):
    """Calibrated probabilities of examples or a model on the masked note, and of each of its sentences alone."""

    name = "diagnose"
    version = masker.VERSION * 100 + 1  # what is masked moves every place
    Settings = DiagnoseSettings
    summary = "What a medical note may be about, ranked, with its evidence, for clinicians; silent where unsure."
    takes = "A medical note in each row, and, in a table of its own, labelled notes; or a fine-tuned model instead."
    example = (
        "note_suggestions: {task: diagnose, input: notes, text: body, examples: {input: labelled_notes, text: body, "
        "label: diagnosis}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "note": "string: the note, personal data masked out; every start and end counts its characters",
        "suggestions": "list of {label, probability, evidence: list of {start, end}}: likeliest first; evidence is the "
        "sentences that speak most for it; none where it abstained",
        "abstained": "boolean: no label is likely enough",
        "probability": "float in [0, 1]: of the likeliest label, told or not",
        "notice": "string: that it is for clinicians and no diagnosis, in the note's language",
        "input_tokens": "int: length of the masked note, as the model counts; words where no model read it",
    }
    settings: DiagnoseSettings

    _labeller: Labeller | None = None
    _encoder: Any = None

    def check(self) -> Faults:
        faults = super().check()
        if self.settings.examples is not None:
            faults += _labels.single_label_faults(self.settings.examples, self.others["examples"])
        return faults

    def columns(self) -> pa.Schema:
        return pa.schema(
            [
                ("note", pa.string()),
                ("suggestions", pa.list_(_SUGGESTION)),
                ("abstained", pa.bool_()),
                ("probability", pa.float32()),
                ("notice", pa.string()),
                ("input_tokens", pa.int32()),
            ]
        )

    def rules(self) -> dict[str, str]:
        said = ", ".join(f"'{notice}'" for notice in NOTICES.values())
        return {
            "it suggests, or it abstained": "abstained = (len(suggestions) = 0)",
            "the likeliest comes first": "len(suggestions) = 0 or suggestions[1].probability = probability",
            "the probability lies in [0, 1]": "probability between 0 and 1",
            "evidence lies in the note": "not list_contains([e['start'] < 0 or e['end'] > length(note) "
            "for e in flatten([s['evidence'] for s in suggestions])], true)",
            "every row says that it is no diagnosis": f"notice in ({said})",
        }

    def models(self) -> dict[str, str]:
        if self.settings.model is None:
            return {}
        return {"encoder" if self.settings.examples is not None else "classifier": self.settings.model}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        s = self.settings
        if s.examples is not None:
            return _texts.encoder_faults(self.name, s.model, infos.get("encoder"))
        assert s.model is not None
        info = infos["classifier"]
        faults = _texts.objective_faults(self.name, s.model, info, ("classification",))
        if not faults and info is not None and info.inputs == "numbers":
            faults.append(("model", s.model, "the model reads histories of numbers, not texts", ""))
        return faults

    def caveat(self) -> str:
        return (
            "For clinicians, no diagnosis. Of four kinds of English notes 55 % are right at first place, and "
            "probabilities are off by 0.14. Negation is not read."
        )

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        tokens, seconds = _texts.model_cost(rows, 2 * text_bytes) if self.settings.model else (0, text_bytes * 4e-6)
        return tokens, seconds + text_bytes * _notes.SECONDS_PER_BYTE

    def open(self, models: Models) -> None:
        s = self.settings
        if s.examples is None:
            assert s.model is not None
            self._labeller = FineTunedLabels(models.classifier(s.model))
            return
        self._encoder = models.encoder(s.model) if s.model is not None else None
        if self.learned is not None:
            self._labeller = FewShotLabels(FewShot.of(self.learned), self._encoder)

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        s = self.settings
        assert s.examples is not None
        rows = _notes.masked(tables["examples"], s.examples.text, s.max_input_chars, s.mask)
        return _labels.learn(rows, s.examples, {}, self._encoder, s.max_input_chars)

    def answer(self, batch: pa.Table) -> Outcome:
        assert self._labeller is not None, "opened before the first batch"
        s = self.settings
        notes = _notes.read(batch, s.text, s.max_input_chars, s.mask)
        likely, counts = self._labeller.probabilities([notes.texts])
        finite = np.isfinite(likely).all(axis=1)
        rejects = [Reject(int(i), *_texts.NOT_FINITE) for i in notes.positions[~finite]]
        least = (self._labeller.threshold if s.threshold is None else s.threshold) or 0.0
        rows, tokens = [], int(counts.sum())
        for at in np.flatnonzero(finite):
            text, of_note = notes.texts[at], likely[at]
            order = np.argsort(-of_note, kind="stable")[: s.suggestions]
            row: dict[str, Any] = {"note": text, "probability": float(of_note[order[0]]), "suggestions": []}
            row |= {"abstained": row["probability"] < least, "input_tokens": int(counts[at])}
            row["notice"] = NOTICES["zh" if sentences.is_cjk(text) else "en"]
            if not row["abstained"]:
                places, read = self._evidence(text, order.tolist())
                tokens += read
                row["suggestions"] = [
                    {"label": self._labeller.names[i], "probability": float(of_note[i]), "evidence": told}
                    for i, told in zip(order, places, strict=True)
                ]
            rows.append(row)
        columns = pa.Table.from_pylist(rows, schema=self.columns())
        total = tokens if self.models() else 0
        return Outcome(notes.positions[finite], columns, [*notes.rejects, *rejects], total)

    def _evidence(self, text: str, labels: list[int]) -> tuple[list[list[dict[str, int]]], int]:
        """(for each label the sentences that alone speak most for it, in the note's order; tokens that were read)."""
        spans = sentences.split(text)[:_MOST_SENTENCES] if self.settings.evidence else []
        if not spans:
            return [[] for _ in labels], 0
        assert self._labeller is not None
        alone, counts = self._labeller.probabilities([[text[start:end] for start, end in spans]])
        told = []
        for label in labels:
            best = np.argsort(-alone[:, label], kind="stable")[: self.settings.evidence]
            # A sentence that speaks no more for a label than for all of them alike is no evidence.
            speaks = sorted(int(i) for i in best if alone[i, label] > 1 / alone.shape[1])
            told.append([{"start": spans[i][0], "end": spans[i][1]} for i in speaks])
        return told, int(counts.sum())


TASK = Diagnose
