"""What vetted passages say to a patient's question, for a clinician to check; red flags go to people at once."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from bizllm.methods import sentences
from bizllm.methods.red_flags import RedFlags, is_phrase
from bizllm.tasks._passages import Passages
from bizllm.tasks._retrieve import Found, PassageTable, RetrieveSettings, RetrieveTask
from bizllm.tasks.base import Models

NOTICE = {
    "en": "For a clinician to check. This is neither a diagnosis nor advice to a patient.",
    "zh": "供临床医生核对。不构成诊断，也不是给患者的建议。",
}


class Vetted(PassageTable):
    """Passages that clinicians vetted."""

    source: str = Field(description="The column of where a passage is from; a passage without one is left out.")


class ConsultSettings(RetrieveSettings):
    """What `task: consult` takes."""

    passages: Vetted = Field(description="The table of vetted passages to answer from.")
    red_flags: dict[str, list[str]] = Field(
        default={},
        description="Phrases that are red flags, too, by the name of the flag: `{chest_pain: [band around my ribs]}`. "
        "`(a|b)` in a phrase is either.",
    )
    notice: str | None = Field(
        default=None, description="What the column `notice` says instead of the built-in English or Chinese."
    )

    @field_validator("red_flags")
    @classmethod
    def _phrases(cls, flags: dict[str, list[str]]) -> dict[str, list[str]]:
        for flag, phrases in flags.items():
            wrong = next((phrase for phrase in phrases if not is_phrase(phrase)), None)
            if wrong is not None or not flag.strip():
                raise ValueError(f"expected phrases of a letter at least, brackets in pairs; not {wrong or flag!r}")
        return flags

    @field_validator("notice")
    @classmethod
    def _said(cls, notice: str | None) -> str | None:
        if notice is not None and not notice.strip():
            raise ValueError("expected a notice that says something; every row carries one")
        return notice


class Consult(RetrieveTask):
    """The best vetted passage, its source, and the red flags of the question (`bizllm.methods.red_flags`)."""

    name = "consult"
    version = 1
    Settings = ConsultSettings
    summary = "What vetted passages say to a patient's question, for a clinician; red flags are urgent. No diagnosis."
    takes = "A patient's question in each row, and, in a table of its own, vetted passages with their sources."
    example = (
        "patient_question: {task: consult, input: questions, text: asked, model: encoder, passages: {input: "
        "leaflets, title: title, text: body, source: publisher}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "urgent": "boolean: the question names a red-flag symptom; a person must look at once",
        "red_flags": "list of string: which",
        "source": "string: where the passage is from; null where nothing was found",
        **RetrieveTask.shared_writes,
        "notice": "string: that it is for clinicians, and no diagnosis",
    }
    settings: ConsultSettings

    _flags: RedFlags | None = None

    def columns(self) -> pa.Schema:
        kinds = {"urgent": pa.bool_(), "red_flags": pa.list_(pa.string())}
        return pa.schema([pa.field(f.name, kinds.get(f.name, f.type)) for f in super().columns()])

    def rules(self) -> dict[str, str]:
        return super().rules() | {
            "red flags are urgent": "urgent = (len(red_flags) > 0)",
            "what is urgent is for people": "escalate or not urgent",
            "an answer tells its source": "(answer is null) = (source is null)",
            "every row carries the notice": "trim(notice) <> ''",
        }

    def caveat(self) -> str:
        return (
            "For clinicians. No clinician has approved the list of red flags, and nobody knows how many it "
            "misses. Of English medical questions 62 % cite the right passage first."
        )

    def open(self, models: Models) -> None:
        super().open(models)
        self._flags = RedFlags(self.settings.red_flags)

    def _row(self, passages: Passages, found: Found, at: int, question: str) -> dict[str, Any]:
        row = super()._row(passages, found, at, question)
        assert self._flags is not None, "opened before the first batch"
        flags = self._flags.find(question)
        notice = self.settings.notice or NOTICE["zh" if sentences.is_cjk(question) else "en"]
        row |= {"urgent": bool(flags), "red_flags": flags, "notice": notice}
        return row | {"escalate": row["escalate"] or bool(flags)}


TASK = Consult
