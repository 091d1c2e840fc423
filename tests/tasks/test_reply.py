from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import Learned, StepInput, task_class
from bizllm.tasks.reply import TASK, ReplySettings

EXCHANGES = [
    ("the lamp does not work", "Please change the bulb. If that does not help, we send a new lamp."),
    ("my lamp stopped working", "Please change the bulb first; if it does not help we send you a new lamp."),
    ("lamp is broken, does not work at all", "We send a new lamp if a new bulb does not help."),
    ("the lamp does not work!", "You want to talk to sales, dial two."),
    ("where is my parcel", "Your parcel is with the courier and arrives tomorrow."),
    ("my parcel has not come", "The courier has your parcel, it arrives tomorrow."),
    ("路由器连不上网", "请先重启路由器，再试一次。"),
    ("路由器上不了网", "请您重启路由器后再试一次。"),
    ("路由器连不上网了", "今天不上班。"),
    ("路由器没有网", "麻烦重启一下路由器再试。"),
]
SCHEMA = pa.schema([("body", pa.string()), ("before", pa.string()), ("talk", pa.string()), ("n", pa.int64())])
SOURCE = StepInput("asked", SCHEMA)
COLUMNS = {"input": "exchanges", "message": "message", "reply": "reply"}


def exchanges(rows: list[tuple[Any, ...]] = EXCHANGES, **more: Any) -> pa.Table:
    told = {"message": [row[0] for row in rows], "reply": [row[1] for row in rows]}
    table = pa.table({name: pa.array(column, pa.string()) for name, column in told.items()})
    for name, column in more.items():
        table = table.append_column(name, column if isinstance(column, pa.Array) else pa.array(column))
    return table


def make(known: pa.Table | None = None, learned: Learned | None = None, **settings: Any) -> TASK:
    given = {"task": "reply", "input": "asked", "text": "body", "past": COLUMNS, **settings}
    others = {"past": StepInput("exchanges", (known if known is not None else exchanges()).schema)}
    return TASK(ReplySettings(**given), SOURCE, date(2026, 1, 1), others, learned=learned)


def answer(asked: list[Any], known: pa.Table | None = None, **settings: Any) -> tuple[TASK, Any]:
    """A task that learned, on this side as on a worker's, and what it says. asked: messages, or rows."""
    known = known if known is not None else exchanges()
    task = make(known, **settings)
    assert task.check() == []
    task.open(ModelLoader())
    task = make(known, task.learn({"past": known}), **settings)
    task.open(ModelLoader())
    rows = [row if isinstance(row, dict) else {"body": row} for row in asked]
    outcome = task.answer(task.prepare(pa.Table.from_pylist(rows, schema=SCHEMA).select(task.reads())))
    assert outcome.columns.schema == task.columns()
    return task, outcome


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_the_typical_reply_wins_over_the_nearest_message(model: str | None, broken_rules: Any) -> None:
    task, outcome = answer(["the lamp does not work!", None, "路由器连不上网怎么办", "xyzzy"], model=model)
    assert task_class("reply") is TASK and outcome.subject.tolist() == [0, 2, 3]
    lamp, router, nothing = outcome.columns.to_pylist()
    assert "lamp" in lamp["reply"] and "bulb" in lamp["reply"]
    assert "重启" in router["reply"]
    assert lamp["source_message"] in [message for message, _ in EXCHANGES]
    replies = [lamp["reply"], *(other["reply"] for other in lamp["alternatives"])]
    assert len(set(replies)) == 3
    if model is None:
        assert nothing["reply"] is None and nothing["escalate"] and nothing["confidence"] == 0.0
    assert broken_rules(task, outcome.columns) == {}
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty")]


def test_a_reply_of_the_same_conversation_is_never_told() -> None:
    past = exchanges([("same words", "one"), ("same words", "two"), ("other", "three")], talk=["t1", "t2", "t3"])
    columns = {**COLUMNS, "conversation": "talk"}
    asked = [{"body": "same words", "talk": talk} for talk in ("t1", "t2", "t9", None)]
    _, outcome = answer(asked, past, past=columns, conversation="talk", alternatives=5)
    told = [{row["reply"], *(o["reply"] for o in row["alternatives"])} for row in outcome.columns.to_pylist()]
    assert told == [{"two"}, {"one"}, {"one", "two"}, {"one", "two"}]


def test_the_history_tells_what_a_short_message_means() -> None:
    rows = [("yes please", "We cancel the order."), ("yes please", "We send a new kettle.")]
    past = exchanges(rows, earlier=["shall we cancel your order", "shall we send a new kettle"])
    asked = [
        {"body": "yes", "before": "do you want to cancel the order"},
        {"body": "yes", "before": "a new kettle then"},
    ]
    _, outcome = answer(asked, past, past={**COLUMNS, "history": "earlier"}, history="before")
    told = outcome.columns.to_pylist()
    assert [row["reply"] for row in told] == ["We cancel the order.", "We send a new kettle."]
    assert told[0]["score"] > 0


def test_only_good_replies_of_the_past_are_learned_from() -> None:
    rows = [("late parcel", f"reply {i}") for i in range(5)]
    days = [date(2025, 12, 31), date(2026, 1, 1), date(2026, 1, 2), None, date(2025, 1, 1)]
    past = exchanges(rows, stars=[5, 4, 5, 5, None], on=pa.array(days, pa.date32()))
    columns = {**COLUMNS, "rating": "stars", "when": "on"}
    _, outcome = answer(["late parcel"], past, past=columns, min_rating=4, alternatives=9)
    row = outcome.columns.to_pylist()[0]
    assert {row["reply"], *(o["reply"] for o in row["alternatives"])} == {"reply 0", "reply 1"}
    stamps = pa.array(
        [datetime(2026, 1, 1, 23, 59), datetime(2026, 1, 2)] + [datetime(2027, 1, 1)] * 3, pa.timestamp("us")
    )
    _, outcome = answer(["late parcel"], exchanges(rows, on=stamps), past={**COLUMNS, "when": "on"}, alternatives=9)
    assert outcome.columns["reply"].to_pylist() == ["reply 0"] and not outcome.columns["alternatives"][0].as_py()
    with pytest.raises(UserError, match="0 may be used"):
        answer(["x"], past, past=columns, min_rating=9)
    with pytest.raises(UserError, match="none has both texts"):
        answer(["x"], exchanges([("a", None), (None, "b")]))


def test_confidence_is_learned_from_the_past_itself() -> None:
    """Routine messages get one reply in many words; odd ones get each another: the first are sure, the others not."""
    routine = [(f"password forgotten by user {i}", "Click forgot password, then follow the mail.") for i in range(40)]
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(400)])
    odd = [(f"strange noise in the attic {i}", " ".join(rng.choice(words, 8))) for i in range(40)]
    task, outcome = answer(["password forgotten by user", "strange noise in the attic"], exchanges(routine + odd))
    assert task.learned is not None and len(task.learned["weights"]) == 3
    sure, unsure = outcome.columns["confidence"].to_pylist()
    assert sure > 0.8 and unsure < 0.2
    assert outcome.columns["escalate"].to_pylist() == [False, True]


def test_order_company_and_duplicates_decide_nothing() -> None:
    asked: list[Any] = ["lamp is broken", "路由器", "where is it", "parcel"]
    _, whole = answer(asked)
    _, turned = answer(asked[::-1], exchanges(EXCHANGES[::-1]))
    assert whole.columns.to_pylist() == turned.columns.to_pylist()[::-1]
    _, twice = answer(asked, exchanges(EXCHANGES + EXCHANGES))
    assert twice.columns.equals(whole.columns), "an exchange that a table holds twice is one"
    assert answer(asked[:1])[1].columns.to_pylist() == whole.columns.to_pylist()[:1]


def test_one_exchange_and_none() -> None:
    _, outcome = answer(["hello", "!"], exchanges([("hello", "Hi.")]))
    assert outcome.columns["reply"].to_pylist() == ["Hi.", None]
    assert len(answer([])[1].columns) == 0
    with pytest.raises(UserError):
        answer(["hello"], exchanges([]))


def test_settings_are_checked() -> None:
    assert make(text="bdy").check()[0][3] == "did you mean 'body'?"
    past = {**COLUMNS, "rating": "message", "when": "reply", "id": "half"}
    faults = make(exchanges(half=[0.5] * 10), past=past, min_rating=1).check()
    assert [fault[0] for fault in faults] == ["past.id", "past.rating", "past.when"]
    with_talk = {**COLUMNS, "conversation": "message"}
    assert make(past=with_talk, conversation="tlk").check()[0][:2] == ("conversation", "tlk")
    assert make(past=with_talk, conversation="n").check() == [], "whole numbers name a conversation, too"
    halves = make(exchanges(half=[0.5] * 10), past={**COLUMNS, "conversation": "half"}, conversation="talk").check()
    assert [fault[0] for fault in halves] == ["past.conversation"]
    for bad in (
        {"history": "before"},
        {"conversation": "talk"},
        {"min_rating": 3},
        {"past": {**COLUMNS, "rating": "n"}},
        {"multilingual": True},
        {"alternatives": -1},
        {"past": {"input": "exchanges", "message": "message"}},
    ):
        with pytest.raises(ValidationError):
            make(**bad)


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make()
    good = {
        "reply": "a",
        "source_id": "e",
        "source_message": "m",
        "score": 0.5,
        "agreement": 0.5,
        "confidence": 0.7,
        "escalate": False,
        "alternatives": [{"source_id": "f", "reply": "b"}],
        "input_tokens": 3,
    }
    nothing = {**good, "reply": None, "source_id": None, "source_message": None, "escalate": True, "alternatives": []}
    assert broken_rules(task, pa.Table.from_pylist([good, nothing], schema=task.columns())) == {}
    changes: list[dict[str, Any]] = [
        {"source_id": None},
        {"confidence": 1.5},
        {"alternatives": [{"source_id": "f", "reply": "a"}]},
        {"reply": None, "source_id": None},
    ]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}
