"""Notes read whole: sections, negation, medicines, tests, in English and Chinese, beside answers written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bizllm.methods.clinical import lists, note
from bizllm.methods.clinical.sections import NAMES, canonical, sections


def problems(text: str) -> dict[str, str]:
    return {said.what.name: said.status for said in note.read(text).problems}


def medicines(text: str) -> list[tuple[Any, ...]]:
    return [(m.name, m.dose, m.route, m.frequency) for m in (said.what for said in note.read(text).medicines)]  # type: ignore[union-attr]


def measured(text: str) -> list[tuple[Any, ...]]:
    return [(t.name, t.value, t.unit) for t in (said.what for said in note.read(text).tests)]  # type: ignore[union-attr]


# -- what is denied, suspected, or a relative's -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The patient denies fever, chills or cough.", {"fever": "absent", "chills": "absent", "cough": "absent"}),
        ("No evidence of pneumonia, but he has a fever.", {"pneumonia": "absent", "fever": "present"}),
        ("Denies nausea. Vomiting since Monday.", {"nausea": "absent", "vomiting": "present"}),
        ("Without headache; dizziness persists.", {"headache": "absent", "dizziness": "present"}),
        ("There is no increase in the swelling.", {"swelling": "present"}),
        ("Gram negative sepsis.", {"sepsis": "present"}),
        ("Pulmonary embolism was ruled out.", {"pulmonary embolism": "absent"}),
        ("Rule out myocardial infarction.", {"myocardial infarction": "possible"}),
        ("Pneumonia is unlikely.", {"pneumonia": "absent"}),
        ("Possible appendicitis with vomiting.", {"appendicitis": "possible", "vomiting": "possible"}),
        ("His mother had breast cancer.", {"cancer": "family"}),
        ("FAMILY HISTORY: Diabetes and stroke.", {"diabetes": "family", "stroke": "family"}),
        ("FAMILY HISTORY: No diabetes.\nPLAN: Watch the edema.", {"diabetes": "absent", "edema": "present"}),
        ("Abdomen: no masses. Neck: Lymphadenopathy on the left.", {"masses": "absent", "lymphadenopathy": "present"}),
        ("Nontender. Notable for tachycardia and noted asthma.", {"tachycardia": "present", "asthma": "present"}),
        ("无发热、咳嗽，腹痛3天。", {"发热": "absent", "咳嗽": "absent", "腹痛": "present"}),
        ("否认高血压、糖尿病史，有哮喘病史。", {"高血压": "absent", "糖尿病": "absent", "哮喘": "present"}),
        ("双肺未闻及啰音。下肢水肿。", {"啰音": "absent", "水肿": "present"}),
        ("无痛性血尿两周。", {"血尿": "present"}),
        ("四肢无力，头晕。", {"头晕": "present"}),
        ("考虑急性阑尾炎。", {"急性阑尾炎": "possible"}),
        ("肺炎待排，不除外肺结核。", {"肺炎": "possible", "肺结核": "possible"}),
        ("父亲患肺癌，患者无咯血。", {"肺癌": "family", "咯血": "absent"}),
        ("压痛（-），反跳痛（-）。", {"压痛": "absent", "反跳痛": "absent"}),
    ],
)
def test_what_the_note_says_of_problems(text: str, expected: dict[str, str]) -> None:
    assert problems(text) == expected


def test_words_that_only_look_like_problems() -> None:
    assert problems("Diagnosis and prognosis; an anastomosis of the stoma.") == {}
    assert problems("患者主诉不适，感谢。") == {}


def test_a_disease_that_no_list_knows_is_told_by_its_ending() -> None:
    assert problems("Chronic cholangitis and hypokalemia.") == {"cholangitis": "present", "hypokalemia": "present"}
    assert problems("诊断为社区获得性肺炎。") == {"社区获得性肺炎": "present"}


# -- medicines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lisinopril 10 mg p.o. daily.", [("lisinopril", "10 mg", "p.o.", "daily")]),
        (
            "Metformin 500 mg b.i.d., aspirin 81 mg",
            [("metformin", "500 mg", None, "b.i.d."), ("aspirin", "81 mg", None, None)],
        ),
        ("Vancomycin 1 g IV q12h for 3 days", [("vancomycin", "1 g", "IV", "q12h")]),
        ("ibuprofen 400-600 mg every 6 hours as needed", [("ibuprofen", "400-600 mg", None, "every 6 hours")]),
        ("albuterol 2 puffs inhaled q4-6h", [("albuterol", "2 puffs", "inhaled", "q4-6h")]),
        ("Took aspirin. Weight 80 g of sugar", [("aspirin", None, None, None)]),
        (
            "Serum potassium 4.1 mEq/L; potassium 20 mEq daily",
            [("potassium", "4.1 mEq", None, None), ("potassium", "20 mEq", None, "daily")],
        ),
        ("阿奇霉素片0.5g 口服 每日一次", [("阿奇霉素", "0.5g", "口服", "每日一次")]),
        (
            "予头孢呋辛1.5g静滴 每日2次；布洛芬缓释胶囊必要时",
            [("头孢呋辛", "1.5g", "静滴", "每日2次"), ("布洛芬", None, None, "必要时")],
        ),
        ("服用阿托伐他汀钙片20mg每晚一次", [("阿托伐他汀钙", "20mg", None, "每晚一次")]),
        ("硝苯地平 30mg bid", [("硝苯地平", "30mg", None, "bid")]),
        ("In April the person compared the cholesterol.", []),
    ],
)
def test_medicines_with_dose_route_and_frequency(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert medicines(text) == expected


def test_a_dose_is_of_the_nearest_name_before_it() -> None:
    assert medicines("aspirin, clopidogrel 75 mg daily")[0] == ("aspirin", None, None, None)
    assert medicines("PLAN: aspirin\nDOSE OF SALT: 5 mg")[0][1] is None


# -- tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hemoglobin was 10.2 g/dL, WBC 12.3.", [("hemoglobin", "10.2", "g/dL"), ("wbc", "12.3", None)]),
        ("Blood pressure 140/90 mmHg, pulse of 88", [("blood pressure", "140/90", "mmHg"), ("pulse", "88", None)]),
        ("CT of an infection, MRI tomorrow", [("ct", None, None), ("mri", None, None)]),
        ("血压140/90mmHg，体温38.5℃", [("血压", "140/90", "mmHg"), ("体温", "38.5", "℃")]),
        ("高血压病史，胸部CT", [("胸部ct", None, None)]),
        ("白细胞：12.3×10^9/L", [("白细胞", "12.3", "×10^9/L")]),
    ],
)
def test_tests_with_their_values(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert measured(text) == expected


# -- sections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "CHIEF COMPLAINT: Cough.\nHISTORY OF PRESENT ILLNESS: He coughs.\nZEBRA SCORE: 3",
            [("chief_complaint", "Cough."), ("present_illness", "He coughs."), ("other", "3")],
        ),
        (
            "PREOPERATIVE DIAGNOSIS:,  Hernia.,ANESTHESIA: , General.",
            [("operation_diagnosis", "Hernia."), ("procedure", "General.")],
        ),
        ("Allergies: None.\nPlan: Rest.", [("allergies", "None."), ("plan", "Rest.")]),
        ("He said: go home. Dear Sir: hello", []),
        (
            "主诉：咳嗽三天。现病史：患者咳嗽。\n既往史：无。",
            [("chief_complaint", "咳嗽三天。"), ("present_illness", "患者咳嗽。"), ("past_history", "无。")],
        ),
        ("【诊断】肺炎【医嘱】休息", [("assessment", "肺炎"), ("medications", "休息")]),
        ("1、辅助检查：CT", [("laboratory", "CT")]),
        ("", []),
        ("PLAN:", [("plan", "")]),
    ],
)
def test_sections_begin_at_headings(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(s.name, text[s.start : s.end]) for s in sections(text)] == expected


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("PAST MEDICAL HISTORY", "past_history"),
        ("FAMILY MEDICAL HISTORY", "family_history"),
        ("DRUG ALLERGIES", "allergies"),
        ("DISCHARGE MEDICATIONS", "medications"),
        ("POSTOPERATIVE DIAGNOSES", "operation_diagnosis"),
        ("IMPRESSION/PLAN", "assessment"),
        ("体格检查", "examination"),
        ("ZEBRA", "other"),
    ],
)
def test_headings_are_told_by_what_they_hold(heading: str, name: str) -> None:
    assert canonical(heading) == name and (name in NAMES or name == "other")


def test_places_are_those_of_the_words_and_sections() -> None:
    text = "CHIEF COMPLAINT: chest  pain.\nMEDICATIONS: Aspirin 81 mg.\nLABS: WBC 12.\n主诉：咳嗽。"
    read = note.read(text)
    for said in [*read.problems, *read.medicines, *read.tests]:
        assert " ".join(text[said.what.start : said.what.end].lower().split()) == said.what.name
    assert [said.section for said in read.problems] == ["chief_complaint", "chief_complaint"]
    assert [said.section for said in read.medicines] == ["medications"]
    assert note.read("Cough. PLAN: Rest.").problems[0].section is None


def test_long_and_odd_notes_end() -> None:
    for text in (
        "no " * 20_000,
        "患" * 20_000,
        "HEADING: " * 3_000,
        "\n" * 10_000,
        "fever, " * 3_000,
        "<PERSON> " * 3_000,
    ):
        note.read(text)


@pytest.mark.parametrize("name", ["medicines_en", "medicines_zh", "problems_en", "problems_zh", "tests_en", "tests_zh"])
def test_lists_are_sorted_and_hold_each_once(name: str) -> None:
    words = Path(lists.__file__).with_name(f"{name}.txt").read_text().splitlines()
    assert words == sorted(set(words)) and all(word.strip() for word in words)
