"""Medicines in a note with dose, route and frequency, in English and Chinese."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from bizllm.methods.clinical.lists import pattern

_ENDINGS_EN = (
    "pril|olol|alol|statin|sartan|prazole|conazole|cillin|mycin|micin|cycline|floxacin|dipine|tidine|gliptin|gliflozin|glutide"
    "|formin|zolam|zepam|azepam|triptan|setron|parin|xaban|dronate|oxetine|triptyline|profen|caine|phylline|barbital|vudine|navir"
    "|ciclovir|cyclovir|fibrate|thiazide|semide|terol|sonide|asone|solone|sone|penem|tinib|zumab|ximab|umab"
)
_NOT_EN = frozenset(["april", "cholesterol", "comparison", "garrison"])
_ENDINGS_ZH = "西林|沙星|他汀钙?|普利|沙坦|洛尔|地平|拉唑|替丁|霉素|西泮|唑仑|列汀|列净|格雷|曲坦|司琼|昔布|韦林"
# Whose doses are counted in something else than mg, so that a test's value is not taken for one.
NOT_WITHOUT_DOSE = frozenset(["calcium", "magnesium", "potassium", "iron", "insulin", "testosterone", "胰岛素"])

_MEDICINE = re.compile(
    rf"(?<![a-z0-9])(?P<en>(?:{pattern('medicines_en')})|[a-z]{{3,}}(?:{_ENDINGS_EN}))(?![a-z0-9])"
    rf"|(?P<zh>(?:{pattern('medicines_zh')})|[\u4e00-\u9fff]{{1,4}}(?:{_ENDINGS_ZH}))"
    r"(?P<form>(?:缓释|控释|肠溶|分散)?(?:片|胶囊|注射液|颗粒|滴丸|气雾剂|口服液|软膏|滴眼液))?",
    re.I,
)
_LEADING_ZH = re.compile(
    r"^(?:给予|予以|予|服用|口服|静滴|使用|加用|改用|停用|继续|长期|规律|应用|每日|自行|曾用|的|用|服|对|和|及|与)+"
)
_DOSE = re.compile(
    r"(?<![\d.])(?P<dose>\d+(?:[.,]\d+)?(?:\s?[-–~/]\s?\d+(?:\.\d+)?)?\s?"
    r"(?:mg/kg|mcg/hr|mcg|mg|µg|ug|gm?|grams?|ml|cc|units?|meq|%|puffs?|tabs?|tablets?|capsules?|caps?|drops?|iu"
    r"|毫克|微克|克|毫升|单位|片|粒|袋|支|滴|丸|喷|万单位)(?![a-z]))",
    re.I,
)
_ROUTE = re.compile(
    r"(?<![a-z])(?P<route>p\.?o\.?|by mouth|orally|oral|i\.?v\.?|intravenous(?:ly)?|i\.?m\.?|intramuscular(?:ly)?"
    r"|subcutaneous(?:ly)?|subq|s\.?c\.?|sublingual(?:ly)?|topical(?:ly)?|inhaled|inhaler|rectally|p\.?r\.?(?!n)"
    r"|nasal|patch)(?![a-z])"
    r"|(?P<zh>口服|静脉滴注|静脉注射|静滴|静推|静注|肌注|肌肉注射|皮下注射|外用|吸入|舌下含服|含服|雾化|滴眼)",
    re.I,
)
_FREQUENCY = re.compile(
    r"(?<![a-z])(?P<frequency>q\.?\s?\d{1,2}(?:\s?[-–]\s?\d{1,2})?\s?h(?:rs?|ours?)?|q\.?d\.?|b\.?i\.?d\.?"
    r"|t\.?i\.?d\.?|q\.?i\.?d\.?|q\.?h\.?s\.?|q\.?a\.?m\.?|q\.?p\.?m\.?|q\.?o\.?d\.?|p\.?r\.?n\.?|stat"
    r"|(?:once|twice|three times|four times|[1-9] times)(?: (?:a|per|each) (?:day|week|month)| daily| weekly)?"
    r"|every (?:other )?(?:day|morning|evening|night|week|\d+ hours?)|daily|nightly|weekly|monthly|at bedtime"
    r"|each morning|as needed)(?![a-z])"
    r"|(?P<zh>每[日天晚早周月]\s?[一二三四两\d]?\s?次|每晚|睡前|[一两二三四\d]\s?[次回]\s?[/每]\s?[日天周]|每\s?\d{1,2}\s?小时(?:一次|1次)?"
    r"|必要时|顿服|隔日一次|qd|bid|tid|qid|qn|q\d{1,2}h)",
    re.I,
)
_ANOTHER = re.compile(r"[;。；\n]|(?<![a-z]\.[a-z])\.\s+(?=[A-Z])")  # where something else is told
_BETWEEN = 90  # characters behind a name in which its dose stands


@dataclass(frozen=True)
class Medicine:
    """A medicine at characters [start, end); dose, route and frequency as they are written, where they are."""

    name: str
    dose: str | None
    route: str | None
    frequency: str | None
    start: int
    end: int


def medicines(text: str, clauses: list[tuple[int, int]], ends: list[int]) -> list[Medicine]:
    """In order. clauses: the sentences of the text, which are cut in "p.o. daily", too; ends: of its sections."""
    names = [(m, *_place(m)) for begin, stop in clauses for m in _MEDICINE.finditer(text, begin, stop)]
    names = [entry for entry in names if entry[1] < entry[2] and text[entry[1] : entry[2]].lower() not in _NOT_EN]
    found = []
    for i, (match, start, end) in enumerate(names):
        following = names[i + 1][1] if i + 1 < len(names) else len(text)
        until = min(following, match.end() + _BETWEEN, ends[bisect_left(ends, match.end())])
        behind = _ANOTHER.split(text[match.end() : until])[0]
        dose, route, often = (_said(pattern.search(behind)) for pattern in (_DOSE, _ROUTE, _FREQUENCY))
        name = text[start:end].lower()
        if name not in NOT_WITHOUT_DOSE or dose is not None:
            found.append(Medicine(name, dose, route, often, start, match.end()))
    return found


def _place(match: re.Match[str]) -> tuple[int, int]:
    """Of the name, without its form and what is done with it."""
    group = match.lastgroup if match.lastgroup != "form" else "zh"
    assert group is not None
    start, end = match.span(group)
    if group == "zh" and (lead := _LEADING_ZH.match(match[group])) is not None:
        start += lead.end()
    return start, end


def _said(match: re.Match[str] | None) -> str | None:
    return None if match is None else " ".join(match[match.lastgroup or 0].split())
