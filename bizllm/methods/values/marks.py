"""Addresses and codes: mail, web, phone numbers, article numbers."""

from __future__ import annotations

import re
from typing import Any

from bizllm.methods.pii import rules_any, rules_en, rules_zh
from bizllm.methods.pii.spans import resolve
from bizllm.methods.values.found import Found

_LEAST = 0.4
_RULES: list[Any] = [*rules_any.RULES, *rules_en.RULES, *rules_zh.RULES]
# Letters and digits, at least one of each, maybe parted by hyphens: P001, KET-12B, FH-2026-0042.
_CODE = re.compile(
    r"(?<![A-Za-z0-9_./@-])(?=[A-Z0-9-]{0,30}[0-9])(?=[A-Z0-9-]{0,30}[A-Z])"
    r"[A-Z0-9]{1,16}(?:-[A-Z0-9]{1,12}){0,4}(?![A-Za-z0-9_@]|-[A-Za-z0-9]|\.[A-Za-z0-9])"
)
_DIGITS = re.compile(r"(?<![A-Za-z0-9_./@,-])\d{4,20}(?![A-Za-z0-9_@]|[-./,:]\d)")


def emails(text: str) -> list[Found]:
    """Mail addresses, in small letters."""
    return [Found(f.start, f.end, f.value.lower(), f.score) for f in _of_type(text, "EMAIL")]


def urls(text: str) -> list[Found]:
    """Web addresses as they stand."""
    return _of_type(text, "URL")


def phones(text: str) -> list[Found]:
    """Phone numbers of many countries: digits, with the + where there is one."""
    found = _of_type(text, "PHONE")
    return [Found(f.start, f.end, re.sub(r"[^\d+]", "", f.value.partition("x")[0]), f.score) for f in found]


def codes(text: str, digits: bool = False) -> list[Found]:
    """Article and order numbers: capitals and digits, three characters at least; digits alone where they are asked
    for."""
    found = [Found(*m.span(), m[0], 0.8) for m in _CODE.finditer(text) if m.end() - m.start() > 2]
    if digits:
        found += [Found(*m.span(), m[0], 0.6) for m in _DIGITS.finditer(text)]
    return sorted(found, key=lambda f: f.start)


def _of_type(text: str, kind: str) -> list[Found]:
    spans = [span for rule in _RULES if rule.type == kind for span in rule.find(text) if span.score >= _LEAST]
    return [Found(s.start, s.end, text[s.start : s.end], s.score) for s in resolve(spans, text)]
