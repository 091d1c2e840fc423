"""Notes of both languages by examples of both, by words alone."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.models.load import ModelLoader
from bizllm.tasks._labels import Examples
from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.diagnose import Diagnose, DiagnoseSettings

KNOWN = {
    "pneumonia": ["cough with sputum and fever", "crackles of the left lung", "咳嗽咳痰伴发热", "左肺湿啰音"],
    "fracture": ["fell on the wrist", "a break of the radius", "摔倒后手腕肿胀", "桡骨骨折"],
}
NOTES = [
    "Mr. John Smith has a cough. Fever since Monday.",
    "患者张伟，手机138-1234-5678。摔倒后手腕肿胀。",
    "zebra",
    None,
]


def outcome() -> Outcome:
    """Two suggestions at most; the strange note gets none."""
    rows = pa.table({"text": NOTES})
    known = pa.table(
        {"said": [text for texts in KNOWN.values() for text in texts], "is": [kind for kind in KNOWN for _ in range(4)]}
    )
    settings = DiagnoseSettings(
        task="diagnose",
        input="rows",
        text="text",
        examples=Examples(input="known", text="said", label="is"),
        suggestions=2,
        threshold=0.6,
    )
    others = {"examples": StepInput("known", known.schema)}
    step = StepInput("rows", rows.schema)
    learned = Diagnose(settings, step, date(2026, 3, 10), others).learn({"examples": known})
    task = Diagnose(settings, step, date(2026, 3, 10), others, learned=learned)
    task.open(ModelLoader())
    return task.answer(rows)
