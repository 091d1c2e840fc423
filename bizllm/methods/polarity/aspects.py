"""What a text says of each thing that it names: the clauses about it, and what those hold.

A clause is about the aspects that it names, and the clauses after it in its sentence, too, as long as they name none
themselves. Where a clause names several, each word of praise or blame belongs to the one that stands nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bizllm.methods.polarity import model
from bizllm.methods.polarity.cues import Clause
from bizllm.methods.polarity.lexicon import Phrases, tokens
from bizllm.methods.polarity.lists import sections


@dataclass(frozen=True)
class Said:
    """What was said of an aspect in a row of clauses, characters [start, end) of the text."""

    aspect: str
    label: str
    score: float
    start: int
    end: int


def built_in() -> dict[str, list[str]]:
    """Aspects of goods, meals and shops, with the words for them."""
    return sections("aspects")


def terms(aspects: Mapping[str, Sequence[str]]) -> Phrases[str]:
    """The words of each aspect, for `said`. Raises ValueError for a word of two aspects."""
    made: Phrases[str] = Phrases()
    for aspect, words in aspects.items():
        for word in words:
            made.add(word, aspect)
            plain = word.lower()
            if plain.isascii() and plain.isalpha():
                made.add(f"{plain}es" if plain.endswith(("s", "x", "sh", "ch")) else f"{plain}s", aspect)
    return made


def said(text: str, clauses: Sequence[Clause], of: Phrases[str]) -> list[Said]:
    """In the order of the text; an aspect once for each run of clauses about it."""
    found = about(clauses, text, of)
    likely = model.probabilities([text] * len(found), [run for _, run in found])
    return [
        Said(aspect, model.LABELS[int(p.argmax())], float(p @ model.SIGNS), run[0].start, run[-1].end)
        for (aspect, run), p in zip(found, likely, strict=True)
    ]


def about(
    clauses: Sequence[Clause], text: str, of: Phrases[str], lasting: bool = False
) -> list[tuple[str, list[Clause]]]:
    """(name, the clauses about it) for each run, in order. lasting: a run goes on into the next sentences."""
    found: list[tuple[str, list[Clause]]] = []
    current: list[list[Clause]] = []
    sentence = -1
    for clause in clauses:
        named = _named(text, clause, of)
        if named:
            runs = _parted(clause, named)
            current = [run for _, run in runs]
            found += runs
        elif lasting or clause.sentence == sentence:
            for run in current:
                run.append(clause)
        else:
            current = []
        sentence = clause.sentence
    return found


def _named(text: str, clause: Clause, of: Phrases[str]) -> dict[str, list[tuple[int, int]]]:
    """Where a clause names each aspect."""
    inside = tokens(text, clause.start, clause.end)
    found: dict[str, list[tuple[int, int]]] = {}
    place = 0
    while place < len(inside):
        match = of.at(inside, place)
        if match is not None:
            found.setdefault(match[1], []).append((inside[place].start, inside[place + match[0] - 1].end))
        place += match[0] if match is not None else 1
    return found


def _parted(clause: Clause, named: Mapping[str, Sequence[tuple[int, int]]]) -> list[tuple[str, list[Clause]]]:
    """The clause as it is about each aspect: with the cues nearest to it; with all where none is nearest."""
    if len(named) == 1:
        return [(aspect, [clause]) for aspect in named]
    distance = np.array(
        [
            [min(max(start - cue.end, cue.start - end, 0) for start, end in places) for places in named.values()]
            for cue in clause.cues
        ]
    ).reshape(len(clause.cues), len(named))
    nearest = distance.argmin(axis=1) if len(clause.cues) else np.zeros(0, np.int64)
    parts = []
    for number, aspect in enumerate(named):
        own = [cue for cue, of in zip(clause.cues, nearest, strict=True) if of == number]
        parts.append((aspect, [replace(clause, cues=own or clause.cues)]))
    return parts
