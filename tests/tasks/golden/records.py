"""A note of each language, with personal data and all that is told of a note."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.records import Records, RecordsSettings

NOTES = [
    "Dr. Jane Okonkwo saw Mr. John Smith, 212-555-0142.\nCHIEF COMPLAINT: Chest pain, no fever.\n"
    "FAMILY HISTORY: Mother with breast cancer.\n"
    "MEDICATIONS: Lisinopril 10 mg p.o. daily, aspirin.\nLABS: WBC 12.3; hemoglobin 10.2 g/dL.\n"
    "ASSESSMENT: 1. Possible pneumonia,2. Asthma.",
    "患者张伟，手机138-1234-5678。主诉：咳嗽3天。现病史：伴发热，体温38.5℃，无咯血，否认糖尿病。诊断：肺炎可能。"
    "医嘱：阿奇霉素片0.5g 口服 每日一次。",
    None,
]


def outcome() -> Outcome:
    """By rules alone."""
    rows = pa.table({"text": NOTES})
    settings = RecordsSettings(task="records", input="rows", text="text")
    return Records(settings, StepInput("rows", rows.schema), date(2026, 3, 10)).answer(rows)
