"""Problems (symptoms and diseases) and tests with their values in a note, in English and Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bizllm.methods.clinical.lists import pattern

_ENDINGS_EN = r"itis|oma|omas|osis|emia|opathy|algia|plegia|paresis|megaly|orrhea|orrhage|uria"
_ENDINGS_ZH = r"[\u4e00-\u9fff]{1,8}?(?:炎|癌|肿瘤|瘤|综合征|硬化症|衰竭|梗死|狭窄|损伤|畸形)"
# Words with such an ending that are no problems.
_NOT_EN = frozenset(
    ["diagnosis", "prognosis", "anastomosis", "coma", "aroma", "stoma", "anesthesia", "academia", "osmosis"]
)
_LEADING_ZH = re.compile(
    r"^.*(?:患有?|诊断|考虑|可能|疑似|既往|曾|提示|伴有?|合并|确诊|出现|为|有|及|和|或|否认|见|无|的|史|行|示|左侧|右侧|双侧|术后)"
)
_PROBLEM = re.compile(
    rf"(?<![a-z])(?P<en>{pattern('problems_en')}|[a-z]{{3,}}(?:{_ENDINGS_EN}))(?![a-z])"
    rf"|(?P<zh>{pattern('problems_zh')}|{_ENDINGS_ZH})",
    re.I,
)

_TEST = re.compile(rf"(?<![a-z0-9])(?P<en>{pattern('tests_en')})(?![a-z0-9])|(?P<zh>{pattern('tests_zh')})", re.I)
_UNIT = (
    r"%|mm\s?hg|mg/dl|g/dl|mmol/l|[uµμ]mol/l|meq/l|ng/ml|pg/ml|u/l|iu/l|k/ul|10\^9/l|×10\^?9/l|g/l|mg/l|bpm|次/分|/min|°?\s?[fc]\b|℃|度"
    r"|kg|cm|lbs?|pounds|mm/h"
)
_VALUE = re.compile(
    rf"^(?:\s|level|count|was|is|of|at|today|about|around|[:：=,(]|为|约|示|值|升高至|降至)*(?P<value>[<>≥≤]?\s?\d+(?:[.,]\d+)?(?:\s?[/-]\s?\d+"
    rf"(?:\.\d+)?)?)\s?(?P<unit>{_UNIT})?",
    re.I,
)


@dataclass(frozen=True)
class Problem:
    """A symptom or disease at characters [start, end), as it is written, in small letters."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Test:
    """A test at characters [start, end); value and unit as they are written, where they are."""

    name: str
    value: str | None
    unit: str | None
    start: int
    end: int


def problems(text: str, clauses: list[tuple[int, int]]) -> list[Problem]:
    """In order. clauses: the sentences of the text."""
    found = []
    for begin, stop in clauses:
        for match in _PROBLEM.finditer(text, begin, stop):
            start, end = match.span()
            if match["zh"] and (lead := _LEADING_ZH.match(match["zh"])) is not None:
                start += lead.end()
            name = " ".join(text[start:end].lower().split())
            # One character is an ending, no disease.
            if name not in _NOT_EN and len(name) > 1:
                found.append(Problem(name, start, end))
    return found


def tests(text: str, clauses: list[tuple[int, int]]) -> list[Test]:
    """In order. clauses: the sentences of the text."""
    found = []
    for begin, stop in clauses:
        for match in _TEST.finditer(text, begin, stop):
            value = _VALUE.match(text[match.end() : stop])
            said, unit = (None, None) if value is None else (value["value"].replace(" ", ""), value["unit"])
            found.append(Test(" ".join(match[0].lower().split()), said, unit, *match.span()))
    return found
