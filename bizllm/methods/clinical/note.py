"""A medical note read whole: sections, problems, medicines and tests, each with what the note says of it."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from bizllm.methods import sentences
from bizllm.methods.clinical import findings, medicines
from bizllm.methods.clinical.assertion import Status, status
from bizllm.methods.clinical.lists import pattern
from bizllm.methods.clinical.sections import Section, sections

# Lists of a note are sentences, too: "1. Diabetes,2. Gout".
_ITEMS = re.compile(r"(?<=[,;；])\s*(?=\d{1,2}[.)、]\s*\D)")


# Words of notes that are written like names; the names of instruments and threads among them.
_LISTED = re.compile(
    pattern("medicines_en", "medicines_zh", "problems_en", "tests_en", "headings_en", "not_names_en"), re.I
)


def is_clinical(text: str) -> bool:
    """Whether it is a word of the lists, and nothing else."""
    return _LISTED.fullmatch(text) is not None


@dataclass(frozen=True)
class Said:
    """Something at its place, the section that it stands in (None: in none), and whether it is said to be there."""

    what: findings.Problem | findings.Test | medicines.Medicine
    section: str | None
    status: Status


@dataclass(frozen=True)
class Note:
    """What stands in a note; lists in the order of the text."""

    sections: list[Section]
    problems: list[Said]
    medicines: list[Said]
    tests: list[Said]


def read(text: str) -> Note:
    """The note's parts. A section's sentences end with it, and so does the reach of a "no"."""
    parts = sections(text)
    edges = sorted({0, len(text), *(p.start for p in parts), *(p.end for p in parts)})
    clauses: list[tuple[int, int]] = []
    for begin, stop in pairwise(edges):
        for start, end in sentences.split(text[begin:stop]):
            cuts = [start, *(m.end() for m in _ITEMS.finditer(text[begin:stop], start, end)), end]
            clauses += [(begin + a, begin + b) for a, b in pairwise(cuts)]
    begins = [start for start, _ in clauses]
    heads = [part.start for part in parts]

    def told(what: findings.Problem | findings.Test | medicines.Medicine) -> Said:
        at = bisect_right(heads, what.start) - 1
        section = parts[at].name if at >= 0 and what.start < parts[at].end else None
        clause = clauses[bisect_right(begins, what.start) - 1]
        return Said(what, section, status(text, what.start, what.end, clause, section == "family_history"))

    inside = [(p.start, p.end) for p in parts]
    spoken = clauses if not inside else [c for c in clauses if _spoken(c, parts)]
    drugs = [told(m) for m in medicines.medicines(text, spoken, edges)]
    taken = {place for drug in drugs for place in range(drug.what.start, drug.what.end)}
    found = [told(p) for p in findings.problems(text, spoken) if p.start not in taken]
    taken |= {place for one in found for place in range(one.what.start, one.what.end)}
    tested = [told(t) for t in findings.tests(text, spoken) if t.start not in taken]
    return Note(parts, found, drugs, tested)


def _spoken(clause: tuple[int, int], parts: list[Section]) -> bool:
    """Whether it is no heading: headings stand between the sections, and what comes before the first is text."""
    return clause[0] < parts[0].start - len(parts[0].heading) - 2 or any(p.start <= clause[0] < p.end for p in parts)
