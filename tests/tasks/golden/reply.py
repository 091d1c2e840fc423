"""Two languages, by terms alone: a model's last digits depend on the CPU."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from bizllm.tasks.base import Outcome, StepInput
from bizllm.tasks.reply import TASK, ReplySettings

PAST = pa.table(
    {
        "message": [
            "the lamp does not work",
            "my lamp stopped working",
            "lamp is broken",
            "路由器连不上网",
            "路由器没有网",
        ],
        "reply": [
            "Please change the bulb, or we send a new lamp.",
            "We send you a new lamp where a new bulb does not help.",
            "Call sales.",
            "请先重启路由器，再试一次。",
            "麻烦重启一下路由器。",
        ],
        "talk": ["t1", "t2", "t3", "t4", "t5"],
    }
)


def outcome() -> Outcome:
    past = {"input": "past", "message": "message", "reply": "reply", "conversation": "talk"}
    settings = ReplySettings(task="reply", input="rows", text="text", past=past, conversation="talk")
    rows = pa.table({"text": ["lamp does not work", "路由器上不了网", " ", "qwxz"], "talk": ["t1", "t9", "t9", "t9"]})
    others = {"past": StepInput("past", PAST.schema)}
    source, night = StepInput("rows", rows.schema), date(2026, 3, 10)
    learned = TASK(settings, source, night, others).learn({"past": PAST})
    task = TASK(settings, source, night, others, learned=learned)
    task.open(None)  # type: ignore[arg-type]
    return task.answer(rows)
