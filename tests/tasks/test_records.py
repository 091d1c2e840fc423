"""The records task: notes are masked before anything else, and everything is told by places in the masked note."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.records import TASK, Records, RecordsSettings

SCHEMA = pa.schema([("body", pa.string()), ("n", pa.int64())])
EN = (
    "Dr. Jane Okonkwo saw John Smith (SSN 219-09-9999, phone 212-555-0142).\n"
    "CHIEF COMPLAINT: Chest pain.\nMEDICATIONS: Lisinopril 10 mg p.o. daily.\nLABS: WBC 12.3, no fever.\n"
)
ZH = (
    "患者：张伟，手机138-1234-5678。\n主诉：咳嗽3天，无发热。\n查体：血压140/90mmHg。\n"
    "医嘱：阿奇霉素片0.5g 口服 每日一次。"
)
KNOWN = pa.table(
    {
        "said": [
            "chest pain and palpitations",
            "heart murmur on the left",
            "knee fracture after a fall",
            "torn ligament of the knee",
        ]
        * 3,
        "kind": ["cardiology", "cardiology", "orthopedics", "orthopedics"] * 3,
    }
)


def task(learned: Any = None, others: dict[str, StepInput] | None = None, **settings: Any) -> Records:
    made = RecordsSettings(**{"task": "records", "input": "notes", "text": "body", **settings})
    return Records(made, StepInput("notes", SCHEMA, ("n",)), date(2026, 1, 1), others or {}, learned=learned)


def read(bodies: list[str | None], broken_rules: Any = None, **settings: Any) -> tuple[list[dict[str, Any]], Any]:
    step = task(**settings)
    assert step.check() == []
    step.open(ModelLoader())
    outcome = step.answer(pa.table({"body": pa.array(bodies, pa.string())}))
    assert outcome.columns.schema == step.columns()
    if broken_rules is not None:
        assert broken_rules(step, outcome.columns) == {}
    return outcome.columns.to_pylist(), outcome


def test_a_note_of_each_language(broken_rules: Any) -> None:
    (english, chinese), _ = read([EN, ZH], broken_rules)
    assert [s["section"] for s in english["sections"]] == ["chief_complaint", "medications", "laboratory"]
    assert [(p["problem"], p["status"], p["section"]) for p in english["problems"]] == [
        ("chest pain", "present", "chief_complaint"),
        ("fever", "absent", "laboratory"),
    ]
    (drug,) = english["medicines"]
    assert (drug["medicine"], drug["dose"], drug["route"], drug["frequency"]) == (
        "lisinopril",
        "10 mg",
        "p.o.",
        "daily",
    )
    assert [(t["test"], t["value"]) for t in english["tests"]] == [("wbc", "12.3")]
    assert [s["section"] for s in chinese["sections"]] == ["chief_complaint", "examination", "medications"]
    assert [(p["problem"], p["status"]) for p in chinese["problems"]] == [("咳嗽", "present"), ("发热", "absent")]
    assert [(t["test"], t["value"], t["unit"]) for t in chinese["tests"]] == [("血压", "140/90", "mmHg")]
    assert chinese["medicines"][0]["frequency"] == "每日一次"


def test_no_personal_data_is_left_anywhere() -> None:
    rows, _ = read([EN, ZH])
    for secret in ("Okonkwo", "John Smith", "219-09-9999", "212-555-0142", "张伟", "138-1234-5678"):
        assert secret not in repr(rows)
    assert "<PERSON>" in rows[0]["note"] and "<PHONE>" in rows[1]["note"]


def test_places_are_of_the_masked_note() -> None:
    rows, _ = read([EN, ZH])
    for row in rows:
        for column, name in (("problems", "problem"), ("tests", "test")):
            for told in row[column]:
                assert row["note"][told["start"] : told["end"]].lower() == told[name]
        for part in row["sections"]:
            assert row["note"][: part["start"]].rstrip(" :：").endswith(part["heading"])


def test_examples_are_masked_before_they_are_learned_from() -> None:
    """A name that tells the specialty in the examples tells nothing: what is learned never saw it."""
    said = [f"Dr. Jane Okonkwo wrote: {kind} {i}" for i, kind in enumerate(["alpha", "beta"] * 6)]
    known = pa.table({"said": said, "kind": ["alpha", "beta"] * 6})
    examples = {"input": "known", "text": "said", "label": "kind"}
    step = task(examples=examples, others={"examples": StepInput("known", known.schema)})
    step.open(ModelLoader())
    assert "okonkwo" not in repr(step.learn({"examples": known})["terms"].to_pylist()).lower()


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_the_specialty_is_learned(model: str | None, broken_rules: Any) -> None:
    examples = {"input": "known", "text": "said", "label": "kind"}
    others = {"examples": StepInput("known", KNOWN.schema)}
    step = task(examples=examples, others=others, model=model)
    step.open(ModelLoader())
    state = step.learn({"examples": KNOWN})
    rows, outcome = read(
        ["CC: heart palpitations", "fracture of the knee", None],
        broken_rules,
        examples=examples,
        others=others,
        learned=state,
        model=model,
        threshold=0.0,
    )
    assert [row["specialty"] for row in rows] == ["cardiology", "orthopedics"]
    assert all(0.5 < row["specialty_probability"] <= 1 and row["input_tokens"] > 2 for row in rows)
    assert (outcome.tokens > 0) == (model is not None)
    rows, _ = read(["zebra"], examples=examples, others=others, learned=state, model=model, threshold=1.0)
    assert rows[0]["specialty"] is None and rows[0]["specialty_probability"] < 1


def test_without_examples_there_is_no_specialty() -> None:
    rows, outcome = read(["Cough for three days."])
    assert rows[0]["specialty"] is None and rows[0]["specialty_probability"] is None
    assert rows[0]["input_tokens"] == 4 and outcome.tokens == 0


def test_rejects_and_odd_notes() -> None:
    rows, outcome = read([None, " ", "\ufffd" * 20, "x" * 50, "好"], max_input_chars=40)
    assert [(r.subject, r.code) for r in outcome.rejects] == [
        (0, "empty"),
        (1, "empty"),
        (2, "undecodable"),
        (3, "too_long"),
    ]
    assert [row["note"] for row in rows] == ["好"]
    assert read([])[0] == []


def test_a_note_that_cannot_be_masked_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Jane Okonkwo")

    monkeypatch.setattr("bizllm.methods.pii.engine.find", fail)
    rows, outcome = read([EN])
    assert rows == [] and [(r.subject, r.code) for r in outcome.rejects] == [(0, "not_masked")]
    assert "Okonkwo" not in outcome.rejects[0].message


def test_the_batch_decides_nothing() -> None:
    together, _ = read([EN, ZH, EN])
    assert together[0] == together[2] == read([EN])[0][0] and together[1] == read([ZH])[0][0]


def test_settings_are_checked() -> None:
    assert task_class("records") is TASK
    assert task(text="bdy").check()[0][3] == "did you mean 'body'?"
    for wrong in ({"model": "builtin:minilm"}, {"threshold": 0.5}, {"mask": {"mode": "pseudonym"}}):
        with pytest.raises(ValidationError):
            task(**wrong)
    examples = {"input": "known", "text": "said", "label": "kind"}
    listed = pa.schema([("said", pa.string()), ("kind", pa.list_(pa.string()))])
    assert task(examples=examples, others={"examples": StepInput("known", listed)}).check()[0][0] == "examples.label"
    numbers = pa.schema([("said", pa.int64()), ("kind", pa.string())])
    assert task(examples=examples, others={"examples": StepInput("known", numbers)}).check()[0][0] == "examples.text"
    step = task(examples=examples, model="path:m")
    assert step.check_models({"encoder": ModelInfo("m", "classification", ("a",))})[0][0] == "model"


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    good = read([EN])[0][0]
    problem = good["problems"][0]
    changes: list[dict[str, Any]] = [
        {"problems": [problem | {"end": 10_000}]},
        {"problems": [problem | {"status": "maybe"}]},
        {"specialty_probability": 1.5},
    ]
    for rule, change in zip(task().rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task().columns())
        assert broken_rules(task(), columns) == {rule: 1}
