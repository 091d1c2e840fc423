"""The diagnose task: ranked, with evidence in the masked note, silent where unsure, and never without its notice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.models.classifier import Classifier
from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.diagnose import NOTICES, TASK, Diagnose, DiagnoseSettings

SCHEMA = pa.schema([("body", pa.string()), ("n", pa.int64())])
EN = {
    "pneumonia": [
        "cough with green sputum and fever",
        "crackles over the left lung base",
        "chest film shows a lobar infiltrate",
    ],
    "fracture": [
        "fell on the wrist and it is swollen",
        "film shows a break of the radius",
        "the arm was put in a cast",
    ],
    "migraine": ["throbbing headache on one side", "light and noise make the head worse", "aura before the headache"],
}
ZH = {
    "肺炎": ["咳嗽咳黄痰伴发热", "左下肺湿啰音", "胸片见斑片状浸润影"],
    "骨折": ["摔倒后手腕肿胀畸形", "平片见桡骨骨皮质中断", "予石膏固定手腕"],
}
EXAMPLES = {"input": "known", "text": "said", "label": "kind"}


def known(of: dict[str, list[str]]) -> pa.Table:
    rows = [
        {"said": f"{text}{end}", "kind": kind}
        for kind, texts in of.items()
        for text in texts
        for end in ("", ".", " now")
    ]
    return pa.Table.from_pylist(rows)


def task(learned: Any = None, schema: pa.Schema | None = None, **settings: Any) -> Diagnose:
    given = {"task": "diagnose", "input": "notes", "text": "body", "examples": EXAMPLES} | settings
    made = DiagnoseSettings(**given)
    others = {"examples": StepInput("known", schema or known(EN).schema)} if made.examples else {}
    return Diagnose(made, StepInput("notes", SCHEMA), date(2026, 1, 1), others, learned=learned)


def told(bodies: list[str | None], of: dict[str, list[str]] = EN, **settings: Any) -> tuple[Diagnose, Any]:
    step = task(**settings)
    assert step.check() == []
    step.open(ModelLoader())
    step = task(learned=step.learn({"examples": known(of)}), **settings)
    step.open(ModelLoader())
    outcome = step.answer(pa.table({"body": pa.array(bodies, pa.string())}))
    assert outcome.columns.schema == step.columns()
    return step, outcome


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_the_right_label_comes_first_with_its_sentence(model: str | None, broken_rules: Any) -> None:
    note = "Seen on Monday. There is a cough with sputum and fever. Weather was fine. Parking was hard."
    step, outcome = told([note, None], model=model, threshold=0.0, evidence=1)
    (row,) = outcome.columns.to_pylist()
    labels = [s["label"] for s in row["suggestions"]]
    assert labels[0] == "pneumonia" and sorted(labels) == sorted(EN)
    assert row["probability"] == row["suggestions"][0]["probability"]
    (place,) = row["suggestions"][0]["evidence"]
    assert row["note"][place["start"] : place["end"]] == "There is a cough with sputum and fever."
    assert sum(s["probability"] for s in row["suggestions"]) == pytest.approx(1, abs=1e-5)
    assert row["notice"] == NOTICES["en"] and row["abstained"] is False
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty")]
    assert (outcome.tokens > row["input_tokens"]) == (model is not None)
    assert broken_rules(step, outcome.columns) == {}


def test_a_chinese_note() -> None:
    _, outcome = told(["患者摔倒后手腕肿胀。今日天气好。"], ZH, threshold=0.0)
    (row,) = outcome.columns.to_pylist()
    assert row["suggestions"][0]["label"] == "骨折" and row["notice"] == NOTICES["zh"]
    assert row["note"][slice(*row["suggestions"][0]["evidence"][0].values())] == "患者摔倒后手腕肿胀。"


def test_it_abstains_and_is_then_silent(broken_rules: Any) -> None:
    step, outcome = told(["cough with sputum", "zebra"], threshold=0.99)
    for row in outcome.columns.to_pylist():
        assert row["abstained"] is (row["probability"] < 0.99)
        assert bool(row["suggestions"]) is not row["abstained"]
        assert row["notice"]
    assert outcome.columns["abstained"].to_pylist()[1] is True
    assert broken_rules(step, outcome.columns) == {}


def test_the_threshold_of_the_examples_lets_most_of_them_through() -> None:
    _, outcome = told([text for texts in EN.values() for text in texts])
    assert np.mean(outcome.columns["abstained"].to_pylist()) < 0.3


def test_personal_data_is_gone_before_anything_is_told() -> None:
    _, outcome = told(["Dr. Jane Okonkwo, phone 212-555-0142, saw a cough with fever."], threshold=0.0)
    assert "Okonkwo" not in repr(outcome.columns.to_pylist()) and "555" not in repr(outcome.columns.to_pylist())


def test_no_evidence_where_none_is_asked() -> None:
    _, outcome = told(["cough and fever"], evidence=0, suggestions=1, threshold=0.0)
    assert [s["evidence"] for s in outcome.columns.to_pylist()[0]["suggestions"]] == [[]]


def test_the_batch_decides_nothing() -> None:
    notes: list[str | None] = ["cough and fever. A cast.", "aura and headache", "the wrist is swollen"]
    together = told(notes, threshold=0.0)[1].columns.to_pylist()
    assert together == [told([note], threshold=0.0)[1].columns.to_pylist()[0] for note in notes]
    assert told([])[1].columns.num_rows == 0


def test_a_fine_tuned_model_may_say(fine_tuned: Callable[..., Path], broken_rules: Any) -> None:
    labels = ("delivery", "other", "invoice")
    folder = fine_tuned(objective="classification", labels=labels)
    step = task(examples=None, model=f"path:{folder}", threshold=0.0)
    assert step.models() == {"classifier": f"path:{folder}"}
    step.open(ModelLoader())
    outcome = step.answer(pa.table({"body": ["the lamp is broken"]}))
    (row,) = outcome.columns.to_pylist()
    likely = Classifier.load(folder).probabilities(["the lamp is broken"])[0][0]
    assert [s["label"] for s in row["suggestions"]] == [labels[i] for i in np.argsort(-likely)]
    assert broken_rules(step, outcome.columns) == {}


def test_settings_are_checked() -> None:
    assert task_class("diagnose") is TASK
    assert task(text="bdy").check()[0][3] == "did you mean 'body'?"
    listed = pa.schema([("said", pa.string()), ("kind", pa.list_(pa.string()))])
    assert task(schema=listed).check()[0][0] == "examples.label"
    for wrong in ({"examples": None}, {"suggestions": 0}, {"threshold": 2}, {"evidence": -1}):
        with pytest.raises(ValidationError):
            task(**wrong)
    alone = task(examples=None, model="path:m")
    assert "this one is multi_label" in alone.check_models({"classifier": ModelInfo("m", "multi_label", ("a",))})[0][2]
    assert "numbers" in alone.check_models({"classifier": ModelInfo("m", "classification", inputs="numbers")})[0][2]
    assert task(model="path:m").check_models({"encoder": ModelInfo("m", "classification", ("a",))})[0][0] == "model"


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    suggestion = {"label": "a", "probability": 0.5, "evidence": [{"start": 0, "end": 2}]}
    good: dict[str, Any] = {"note": "abc", "suggestions": [suggestion], "abstained": False, "probability": 0.5}
    good |= {"notice": NOTICES["zh"], "input_tokens": 1}
    far = suggestion | {"evidence": [{"start": 0, "end": 9}]}
    changes: list[dict[str, Any]] = [
        {"abstained": True},
        {"probability": 0.6},
        {"suggestions": [suggestion | {"probability": 1.5}], "probability": 1.5},
        {"suggestions": [far]},
        {"notice": ""},
    ]
    for rule, change in zip(task().rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task().columns())
        assert broken_rules(task(), columns) == {rule: 1}
