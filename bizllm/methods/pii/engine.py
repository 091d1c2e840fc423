"""Texts of any length → spans of personal data. The analyzer is built once in a process, when the first text comes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import TYPE_CHECKING

from bizllm.methods.pii.folding import folded
from bizllm.methods.pii.spans import Span, resolve

if TYPE_CHECKING:
    from bizllm.methods.pii.recognizers import Analyzer

CHUNK, OVERLAP = 5_000, 600  # characters; half of the overlap is longer than any entity that a rule can find
_BREAKS = ("\n\n", "\n", "。", "！", "？", ". ", "! ", "? ", "；", "; ", "，", ", ", " ")
_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u04ff]{2}")


@cache
def analyzer(least: float) -> Analyzer:
    """The one of this process for scores of at least that."""
    from bizllm.methods.pii.recognizers import Analyzer

    return Analyzer(least)


def languages(text: str) -> list[str]:
    """Whose rules a text needs: Chinese where it has Han, English where it has words of letters, or neither."""
    han, latin = _HAN.search(text), _LATIN.search(text)
    return [*(["zh"] if han else []), *(["en"] if latin or not han else [])]


def find(text: str, entities: Collection[str], language: str, threshold: float) -> list[Span]:
    """The text's personal data, overlapping spans and all, in no order: `resolve` makes one reading of them."""
    whole = folded(text)
    asked = sorted(entities)
    spoken = languages(text) if language == "auto" else [language]
    found: list[Span] = []
    for start, end, first, last in chunks(whole):
        part = whole[start:end]
        for name in spoken:
            for span in analyzer(threshold).spans(part, name, asked):
                if first <= start + span.start < last:
                    found.append(Span(start + span.start, start + span.end, span.type, span.score))
    return found


def entities_of(text: str, entities: Collection[str], language: str = "auto", threshold: float = 0.4) -> list[Span]:
    """The text's personal data in order, none over another."""
    return resolve(find(text, entities, language, threshold), text)


def chunks(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Windows [start, end) of a text, and in which part [first, last) of each an entity must begin to be its own.

    Windows end at the end of a sentence where there is one, and overlap, so that no entity is cut in two.
    """
    start = first = 0
    while len(text) - start > CHUNK:
        end = _end(text, start + CHUNK)
        last = end - OVERLAP // 2
        yield start, end, first, last
        start, first = end - OVERLAP, last
    yield start, len(text), first, len(text) + 1


def _end(text: str, most: int) -> int:
    least = most - CHUNK // 4
    for mark in _BREAKS:
        at = text.rfind(mark, least, most)
        if at >= 0:
            return at + len(mark)
    return most
