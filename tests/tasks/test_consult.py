from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.models.load import ModelLoader
from bizllm.tasks.base import Learned, StepInput, task_class
from bizllm.tasks.consult import NOTICE, TASK, ConsultSettings

LEAFLETS = [
    ("Fever", "Drink plenty and rest. A fever of adults passes in three days.", "Clinic leaflet 4"),
    ("Sprained ankle", "Cool the ankle and keep it up. Walk again when it does not hurt.", "Clinic leaflet 7"),
    ("发烧", "多喝水，多休息。成人发烧一般三天内退烧。", "门诊手册第4页"),
    ("扭伤", "冷敷并抬高脚踝。不痛了再走路。", "门诊手册第7页"),
    ("Unvetted", "Drink bleach against fever.", None),
    ("Unvetted", "Fever is cured by wishing.", " "),
]
SOURCE = StepInput("asked", pa.schema([("body", pa.string())]))
COLUMNS = {"input": "leaflets", "title": "title", "text": "text", "source": "source"}


def make(learned: Learned | None = None, **settings: Any) -> TASK:
    given = {"task": "consult", "input": "asked", "text": "body", "passages": COLUMNS, **settings}
    return TASK(
        ConsultSettings(**given),
        SOURCE,
        date(2026, 1, 1),
        {"passages": StepInput("leaflets", leaflets().schema)},
        learned=learned,
    )


def leaflets() -> pa.Table:
    titles, texts, sources = zip(*LEAFLETS, strict=True)
    return pa.table({"title": titles, "text": texts, "source": pa.array(sources, pa.string())})


def answer(asked: list[str | None], **settings: Any) -> tuple[TASK, Any]:
    task = make(**settings)
    assert task.check() == []
    task.open(ModelLoader())
    task = make(task.learn({"passages": leaflets()}), **settings)
    task.open(ModelLoader())
    outcome = task.answer(pa.table({"body": pa.array(asked, pa.string())}))
    assert outcome.columns.schema == task.columns()
    return task, outcome


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_vetted_passages_answer_with_their_source(model: str | None, broken_rules: Any) -> None:
    task, outcome = answer(["What helps against a sprained ankle?", "成人发烧几天退烧？", None], model=model)
    assert task_class("consult") is TASK
    ankle, fever = outcome.columns.to_pylist()
    assert ankle["source"] == "Clinic leaflet 7" and ankle["answer"] in LEAFLETS[1][1]
    assert fever["source"] == "门诊手册第4页" and fever["answer"] == "成人发烧一般三天内退烧。"
    assert [row["notice"] for row in (ankle, fever)] == [NOTICE["en"], NOTICE["zh"]]
    assert not ankle["urgent"] and ankle["red_flags"] == [] and not fever["urgent"]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(2, "empty")]
    assert broken_rules(task, outcome.columns) == {}


def test_a_passage_without_a_source_is_not_told() -> None:
    task, outcome = answer(["Does bleach help against fever, or wishing?"], candidates=9)
    assert task.learned is not None and len(task.learned["passages"]) == 4
    assert "bleach" not in outcome.columns["passage"][0].as_py()


def test_red_flags_are_urgent_whatever_is_known(broken_rules: Any) -> None:
    asked = [
        "A fever, and I can't breathe",
        "发烧三天，今天胸口痛",
        "I want to die",
        "A fever of adults, no chest pain",
    ]
    task, outcome = answer(asked, threshold=0.0)
    rows = outcome.columns.to_pylist()
    assert [row["red_flags"] for row in rows] == [["breathing"], ["chest_pain"], ["suicide_or_self_harm"], []]
    assert [row["urgent"] for row in rows] == [True, True, True, False] == [row["escalate"] for row in rows]
    assert rows[0]["answer"] is not None and rows[0]["source"] == "Clinic leaflet 4"
    assert broken_rules(task, outcome.columns) == {}


def test_ones_own_flags_and_notice() -> None:
    own = {"dialysis": ["(shunt|fistula) is (hot|red)", "透析管发红"]}
    _, outcome = answer(["My fistula is hot, fever", "透析管发红", "fever"], red_flags=own, notice="For Dr. only.")
    assert outcome.columns["red_flags"].to_pylist() == [["dialysis"], ["dialysis"], []]
    assert set(outcome.columns["notice"].to_pylist()) == {"For Dr. only."}


def test_nothing_known_is_for_people_and_carries_the_notice(broken_rules: Any) -> None:
    task, outcome = answer(["qwxz vbnm"])
    row = outcome.columns.to_pylist()[0]
    assert row["answer"] is None and row["source"] is None and row["escalate"] and row["notice"] == NOTICE["en"]
    assert broken_rules(task, outcome.columns) == {}


def test_settings_are_checked() -> None:
    for bad in (
        {"passages": {"input": "leaflets", "text": "text"}},
        {"red_flags": {"x": ["(a|b"]}},
        {"red_flags": {"x": [""]}},
        {"red_flags": {" ": ["a"]}},
        {"notice": " "},
    ):
        with pytest.raises(ValidationError):
            make(**bad)
    assert make(text="bdy").check()[0][3] == "did you mean 'body'?"


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make()
    good = {
        "urgent": True,
        "red_flags": ["breathing"],
        "source": "s",
        "answer": "a",
        "passage_id": "p",
        "passage": "a b",
        "score": 0.5,
        "confidence": 0.7,
        "escalate": True,
        "candidates": [{"passage_id": "p", "score": 0.5}],
        "input_tokens": 3,
        "notice": "n",
    }
    changes = {
        "red flags are urgent": {"red_flags": []},
        "what is urgent is for people": {"escalate": False},
        "an answer tells its source": {"source": None},
        "every row carries the notice": {"notice": ""},
    }
    assert list(task.rules())[-4:] == list(changes)
    for rule, change in changes.items():
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}
