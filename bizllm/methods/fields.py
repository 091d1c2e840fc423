"""Which value of a text is meant by a field: candidates of the field's type, and words near them that tell.

A candidate's confidence is how sure its form is, times how near a cue word stands, less where another value is about as
likely. It orders candidates; nothing calibrates it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from bizllm.methods.pii import rules as cues
from bizllm.methods.terms import Terms
from bizllm.methods.values.found import Found

FieldType = Literal[
    "text",
    "number",
    "integer",
    "amount",
    "percent",
    "duration",
    "date",
    "email",
    "phone",
    "url",
    "code",
    "term",
    "choice",
]

BEFORE, AFTER = 40, 12  # characters between a cue word and its value
_WITHOUT_CUE = 0.3  # what is left of a candidate's confidence where a field has cue words and none is near
_ONE_LINE = re.compile(r"[ \t]*[:：=是为#-]{0,2}[ \t]*(?P<value>[^\n。！？；;|]{1,200})")


@dataclass(frozen=True)
class FieldRule:
    """How a field is found. pattern: of what to take, its first group where it has one. near: cue words. terms: of a
    `term` or `choice`; kind: of the terms that count."""

    type: FieldType
    pattern: re.Pattern[str] | None = None
    near: re.Pattern[str] | None = None
    terms: Terms | None = None
    kind: str | None = None
    many: bool = False


def cue_words(words: Sequence[str]) -> re.Pattern[str] | None:
    """A pattern of cue words, in any case; None where there are none."""
    return cues.words("|".join(words)) if words else None


def read(
    text: str, rule: FieldRule, anchor: date | None, day_first: bool, tagged: Sequence[Found] | None = None
) -> list[Found]:
    """What stands in the field: its likeliest value, or all of them in order. `score` is the confidence.

    text: folded in place. anchor: the day from which "tomorrow" is told. tagged: what a model marked, instead of what
    the rules find.
    """
    found = list(tagged) if tagged is not None else _candidates(text, rule, anchor, day_first)
    if rule.near is not None and not (rule.type == "text" and rule.pattern is None and tagged is None):
        starts, ends = sorted(f.start for f in found), sorted(f.end for f in found)
        found = [replace(f, score=f.score * _nearness(text, f, rule.near, starts, ends)) for f in found]
    if rule.many:
        return found
    found.sort(key=lambda f: (-f.score, f.start))
    if not found:
        return []
    best = found[0]
    other = next((f.score for f in found if f.value != best.value), 0.0)
    return [replace(best, score=best.score * best.score / (best.score + other))]


def _candidates(text: str, rule: FieldRule, anchor: date | None, day_first: bool) -> list[Found]:
    if rule.pattern is None:
        return _by_type(text, rule, anchor, day_first)
    found = []
    for match in rule.pattern.finditer(text):
        start, end = match.span(1 if match.re.groups else 0)
        if start < 0 or start == end:
            continue
        if rule.type in ("text", "code"):
            found.append(Found(start, end, text[start:end], 0.9))
            continue
        inside = _by_type(text[start:end], replace(rule, near=None), anchor, day_first)[:1]
        found += [replace(f, start=start + f.start, end=start + f.end) for f in inside]
    return found


def _by_type(text: str, rule: FieldRule, anchor: date | None, day_first: bool) -> list[Found]:
    # Their patterns take a quarter of a second to compile: faults in a job file must be told before.
    from bizllm.methods.values import amounts, dates, marks, measures, numerals

    readers: dict[str, Callable[[str], list[Found]]] = {
        "number": numerals.numbers,
        "percent": measures.percents,
        "duration": measures.durations,
        "email": marks.emails,
        "phone": marks.phones,
        "url": marks.urls,
    }
    told = rule.near is not None or rule.pattern is not None
    if rule.type in readers:
        return readers[rule.type](text)
    if rule.type == "date":
        return dates.dates(text, anchor, day_first)
    if rule.type == "amount":  # a number alone is one only where something says so
        return (amounts.bare_amounts if told else amounts.amounts)(text)
    if rule.type == "code":
        return marks.codes(text, digits=rule.near is not None)
    if rule.type == "integer":
        whole = (f for f in numerals.numbers(text) if float(f.value).is_integer() and abs(f.value) < 2**62)
        return [replace(f, value=int(f.value)) for f in whole]
    if rule.type == "text":
        return _after_cues(text, rule.near) if rule.near is not None else []
    assert rule.terms is not None, "of a term or a choice"
    return [
        Found(f.start, f.end, entries[0].name, 0.9 / len(entries))
        for f in rule.terms.find(text)
        if (entries := [e for e in f.entries if rule.kind is None or e.kind == rule.kind])
    ]


def _after_cues(text: str, near: re.Pattern[str]) -> list[Found]:
    """What stands behind each cue word, to the end of its line or sentence."""
    found = []
    for cue in near.finditer(text):
        match = _ONE_LINE.match(text, cue.end())
        value = match["value"].strip(" \t,，.：:") if match else ""
        if match and value:
            start = match.start("value") + match["value"].index(value)
            found.append(Found(start, start + len(value), value, 0.7))
    return found


def _nearness(text: str, one: Found, near: re.Pattern[str], starts: Sequence[int], ends: Sequence[int]) -> float:
    """1 where a cue word stands right before, less with the distance and with each candidate between them, and
    _WITHOUT_CUE where none is near, or only in another paragraph. starts, ends: of all candidates, sorted."""
    best = _WITHOUT_CUE
    from_ = max(0, one.start - BEFORE)
    for cue in near.finditer(text, from_, one.start):
        gap = text[cue.end() : one.start]
        if "\n\n" not in gap:
            between = max(0, bisect_right(ends, one.start) - bisect_left(starts, cue.end()))
            best = max(best, (1.0 - 0.5 * len(gap) / BEFORE) * 0.5**between)
    behind = near.search(text, one.end, min(len(text), one.end + AFTER))
    if behind is not None and "\n" not in text[one.end : behind.start()]:
        between = max(0, bisect_right(ends, behind.start()) - bisect_left(starts, one.end))
        best = max(best, (0.8 - 0.4 * (behind.start() - one.end) / AFTER) * 0.5**between)
    return best
