"""Two languages, by terms alone: a model's last digits depend on the CPU."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.consult import TASK, ConsultSettings

LEAFLETS = pa.table(
    {
        "title": ["Fever", "Sprained ankle", "发烧"],
        "text": [
            "Drink plenty and rest. A fever of adults passes in three days.",
            "Cool the ankle and keep it up. Walk again when it does not hurt.",
            "多喝水，多休息。成人发烧一般三天内退烧。",
        ],
        "source": ["Leaflet 4", "Leaflet 7", "手册第4页"],
    }
)


def outcome() -> Outcome:
    columns = {"input": "leaflets", "title": "title", "text": "text", "source": "source"}
    settings = ConsultSettings(task="consult", input="rows", text="text", passages=columns)
    asked = ["when does the fever of an adult pass", "发烧，喘不过气", None, "no chest pain, my ankle hurts"]
    rows = pa.table({"text": asked})
    others = {"passages": StepInput("leaflets", LEAFLETS.schema)}
    source, night = StepInput("rows", rows.schema), date(2026, 3, 10)
    learned = TASK(settings, source, night, others).learn({"passages": LEAFLETS})
    task = TASK(settings, source, night, others, learned=learned)
    task.open(None)  # type: ignore[arg-type]
    return task.answer(rows)
