"""The sections of a medical note, by their headings, in English and Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bizllm.methods.clinical import lists

OTHER = "other"  # a heading that stands for none of NAMES
# A heading is looked up by what it holds, the first that fits: "PAST MEDICAL AND SURGICAL HISTORY" is medical history.
_KNOWN: tuple[tuple[str, str], ...] = (
    ("allergies", r"allerg|过敏"),
    (
        "chief_complaint",
        r"chief complaint|^cc$|reason for (visit|admission|consult|referral|presentation)|主诉|就诊原因",
    ),
    ("family_history", r"family (medical )?(history|hx)|^fh$|^fhx$|家族史"),
    ("social_history", r"social (history|hx)|^sh$|^shx$|habits|occupational|substance|个人史|婚育史|生活习惯"),
    ("surgical_history", r"surgical (history|hx)|past surgeries|^psh$|手术史|外伤史"),
    ("gynecologic_history", r"gyn|obstetric|menstrual|月经史|生育史"),
    ("immunizations", r"immuni[sz]ation|vaccin|预防接种|疫苗"),
    ("review_of_systems", r"review of (\w+ )?systems|^ros$|systems review|系统回顾"),
    ("medications", r"medic(ation|ine)s?\b|^meds$|prescri|current drugs|home meds|用药|药物|医嘱|处方"),
    (
        "present_illness",
        r"history of (the )?present|^hpi$|present illness|^interval history|brief history|^history$"
        r"|clinical history|^subjective$|现病史|病史摘要|简要病史",
    ),
    (
        "past_history",
        r"past (medical|history|psychiatric|illness)|medical (history|hx)|^pmh|previous history|既往史|病史",
    ),
    ("vital_signs", r"vital|生命体征"),
    ("imaging", r"x-?rays?|radiolog|imaging|^ct\b|^mri\b|ultrasound|echocardiogram|mammogra|影像|超声|放射"),
    (
        "laboratory",
        r"\blab|diagnostic (data|studies|tests)|blood work|^studies|^data$|patholog|specimens?$"
        r"|辅助检查|化验|检验|实验室",
    ),
    ("operation_diagnosis", r"(pre|post)-? ?op(erative)? diagnos|(术前|术后)诊断"),
    (
        "procedure",
        r"procedure|operati(on|ve)|surgery|technique|anesthe|tourniquet|implant|blood loss|drains?$|complications?$"
        r"|fluids$|counts?$|closure|手术|操作|麻醉",
    ),
    ("indication", r"indication|适应证|指征"),
    ("course", r"course|病程|治疗经过|诊治经过|诊疗经过|住院经过"),
    (
        "assessment",
        r"assessment|impression|diagnos|conclusion|^axis|summary|opinion|^problems?( list)?$|诊断|评估|印象|小结",
    ),
    (
        "disposition",
        r"disposition|discharge (instruct|condition|plan|status)|condition( on| at)|^condition$"
        r"|出院情况|去向|出院指导",
    ),
    ("plan", r"plan$|^plan|recommend|follow-?up|instructions|advice|treatment|^rx$|计划|处理|建议|治疗|随访|随诊"),
    ("findings", r"findings|comparison|^result|所见|结果"),
    (
        "examination",
        r"exam|^pe$|^objective|^general|heent|^head|^eyes|^ears|^nose|throat|mouth|^neck|chest|lungs?$|heart|cardi"
        r"|abdom|extremit|neuro|skin|back$|musculoskeletal|psych|rectal|genit|pelvi|breast|respiratory|pulmonary|lymph"
        r"|gastrointestinal|constitutional|endocrine|appearance|^motor|sensory|reflexes|gait|spine|mental status"
        r"|vascular|查体|体格检查|体检|专科检查|检查",
    ),
)
_KNOWN_RES = tuple((name, re.compile(pattern)) for name, pattern in _KNOWN)
# Words that headings are made of: no name is one of them.
_WORDS = frozenset(Path(lists.__file__).with_name("headings_en.txt").read_text("utf-8").split())
NAMES = tuple(name for name, _ in _KNOWN)

# In capitals wherever a sentence may begin; in small letters or Chinese only at the start of a line or sentence, and
# only where the words are known.
_CAPITALS = r"[A-Z][A-Z0-9/&'() -]{1,58}[A-Z0-9)]"
_TITLED = r"[A-Z][A-Za-z/&' -]{2,48}[a-z]"
_CHINESE = r"[\u4e00-\u9fff]{2,10}"
_HEADING = re.compile(
    r"(?:^|(?<=[.,;:!?。；，\n]))[^\S\n]{0,8}[#*>-]{0,4}[^\S\n]{0,4}(?:\d{1,2}[.)、][ ]?)?"
    rf"(?P<head>{_CAPITALS}|{_TITLED}|{_CHINESE})[ *]*[:：]",
    re.MULTILINE,
)
_BRACKETED = re.compile(r"(?P<open>【)(?P<head>[\u4e00-\u9fff]{2,10})】[:：]?")
_MOST_WORDS = 8


@dataclass(frozen=True)
class Section:
    """A part of a note: name, its heading as it stands there, and characters [start, end) after the heading."""

    name: str
    heading: str
    start: int
    end: int


def sections(text: str) -> list[Section]:
    """The sections, in order. Empty where the note has no heading; what stands before the first is in none."""
    found = sorted([*_HEADING.finditer(text), *_BRACKETED.finditer(text)], key=lambda m: m.start("head"))
    heads = [(m, name) for m in found if (name := _name(m["head"])) is not None]
    made = []
    for i, (match, name) in enumerate(heads):
        until = heads[i + 1][0].start("head") if i + 1 < len(heads) else len(text)
        start, end = _trimmed(text, match.end(), until)
        made.append(Section(name, match["head"].strip(), start, end))
    return made


def headings(text: str) -> list[tuple[int, int]]:
    """Characters [start, end) of the headings that are made of nothing but the words of headings."""
    found = [m.span("head") for m in (*_HEADING.finditer(text), *_BRACKETED.finditer(text))]
    return [
        (start, end)
        for start, end in found
        if canonical(head := text[start:end]) != OTHER
        and (not head.isascii() or {word.lower() for word in re.findall(r"[A-Za-z]+", head)} <= _WORDS)
    ]


def canonical(heading: str) -> str:
    """The section that a heading begins, OTHER where it is none of NAMES."""
    low = " ".join(heading.lower().split())
    return next((name for name, pattern in _KNOWN_RES if pattern.search(low)), OTHER)


def _name(heading: str) -> str | None:
    """As `canonical`; None where it is rather a part of a sentence."""
    name = canonical(heading)
    if len(heading.split()) > _MOST_WORDS or (name == OTHER and not heading.isupper()):
        return None
    return name


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    # mtsamples and other exports leave the comma that stood for a line end.
    while start < end and (text[start].isspace() or text[start] in ",，"):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in ",，【"):
        end -= 1
    return start, end
