from __future__ import annotations

import pytest

from bizllm.methods.red_flags import RedFlags, is_phrase, known

FLAGS = RedFlags({})

URGENT = [
    ("I've had chest pain since noon", "chest_pain"),
    ("There is a tightness in my chest when I climb stairs", "chest_pain"),
    ("胸口疼了一上午", "chest_pain"),
    ("My father can’t breathe properly", "breathing"),
    ("His lips are blue", "breathing"),
    ("孩子喘不上气，嘴唇发紫", "breathing"),
    ("Her face is drooping on the left", "stroke_signs"),
    ("sudden numbness in my arm", "stroke_signs"),
    ("老人突然口角歪斜，说话不清", "stroke_signs"),
    ("He collapsed and won't wake up", "unconscious"),
    ("叫不醒他", "unconscious"),
    ("没有意识", "unconscious"),
    ("she is having a seizure", "seizure"),
    ("孩子高烧抽搐", "seizure"),
    ("I am coughing up blood", "severe_bleeding"),
    ("伤口血流不止", "severe_bleeding"),
    ("I don't want to live anymore", "suicide_or_self_harm"),
    ("I keep thinking about killing myself", "suicide_or_self_harm"),
    ("我不想活了", "suicide_or_self_harm"),
    ("My toddler swallowed a battery: he swallowed batteries", "overdose_or_poison"),
    ("she took a whole bottle of sleeping pills", "overdose_or_poison"),
    ("奶奶误服了老鼠药", "overdose_or_poison"),
    ("my throat is closing after peanuts", "severe_allergy"),
    ("吃完海鲜嘴唇肿了", "severe_allergy"),
    ("fever and a stiff neck", "meningitis_signs"),
    ("the worst headache of my life", "meningitis_signs"),
    ("unbearable stomach pain", "severe_abdominal_pain"),
    ("剧烈腹痛", "severe_abdominal_pain"),
    ("I am bleeding while pregnant: bleeding in pregnancy", "pregnancy"),
    ("孕期出血怎么办", "pregnancy"),
    ("our 3 weeks old has a fever: a newborn has a fever", "infant_fever"),
    ("新生儿发烧", "infant_fever"),
]


@pytest.mark.parametrize(("text", "flag"), URGENT)
def test_what_is_urgent_is_found(text: str, flag: str) -> None:
    assert flag in FLAGS.find(text)


def test_every_flag_is_tried_and_has_both_languages() -> None:
    assert {flag for _, flag in URGENT} == set(known())
    for phrases in known().values():
        assert any(phrase.isascii() for phrase in phrases) and any(not phrase.isascii() for phrase in phrases)
        assert all(map(is_phrase, phrases))


@pytest.mark.parametrize(
    "text",
    [
        "no chest pain, just a cough",
        "He denies any chest pain",
        "I do not have shortness of breath",
        "没有胸痛，只是咳嗽",
        "未出现呼吸困难",
        "How do I renew a prescription?",
        "What should I eat before a blood test?",
        "感冒了可以喝咖啡吗",
        "I ate too much cake and took all my things home",
        "",
    ],
)
def test_what_is_denied_or_plain_is_not(text: str) -> None:
    assert FLAGS.find(text) == []


def test_only_what_is_plainly_denied_is_let_go() -> None:
    assert FLAGS.find("no cough but chest pain") == ["chest_pain"]
    assert FLAGS.find("not only chest pain") == ["chest_pain"]
    assert FLAGS.find("no chest pain yesterday, chest pain today") == ["chest_pain"]
    assert FLAGS.find("没有缓解的胸痛") == ["chest_pain"]


def test_ones_own_phrases() -> None:
    own = RedFlags({"chest_pain": ["band around my (ribs|chest)"], "dialysis": ["透析管出血"]})
    assert own.find("like a BAND  around my\nribs") == ["chest_pain"]
    assert own.find("透析管出血了") == ["dialysis"]
    assert own.find("husband around my ribs") == []
    assert own.find("chest pain") == ["chest_pain"]


@pytest.mark.parametrize("phrase", ["", " ", "(a|b", "a)", "(|a)(b|)", "!?"])
def test_what_is_no_phrase(phrase: str) -> None:
    assert not is_phrase(phrase)


def test_an_asterisk_is_an_asterisk() -> None:
    assert is_phrase("a*") and RedFlags({"x": ["a.* b"]}).find("aaa b") == []
