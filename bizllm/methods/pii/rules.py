"""What a rule is: a regular expression with a score, a check, and words around it that make it surer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bizllm.methods.pii.spans import Span

BOOST = 0.4  # what a context word adds to a score
BEFORE, AFTER = 48, 16  # characters around a match in which context words count


@dataclass(frozen=True)
class Rule:
    """Finds one kind of entity in a folded text.

    pattern: its group `at` (or `late`, of another branch) is the entity, where it has one; else all of it. Bounded in
        every repetition, so that no text takes long.
    check: whether a match is one after all; without one, no words make it quite sure.
    context: a pattern of words; where one stands near, the score rises by BOOST. needs: only with such a word near.
    """

    type: str
    pattern: re.Pattern[str]
    score: float
    check: Callable[[str], bool] | None = None
    context: re.Pattern[str] | None = None
    needs: bool = False

    def find(self, text: str) -> Iterator[Span]:
        """The rule's spans, with what is around them taken into account."""
        groups: list[str | int] = [name for name in ("at", "late") if name in self.pattern.groupindex] or [0]
        for match in self.pattern.finditer(text):
            start, end = max(match.span(group) for group in groups)
            if start >= end or (self.check is not None and not self.check(text[start:end])):
                continue
            score = self.score
            if self.context is not None:
                if near(self.context, text, start, end):
                    score = min(1.0 if self.check else 0.9, score + BOOST)
                elif self.needs:
                    continue
            yield Span(start, end, self.type, score)


def near(words: re.Pattern[str], text: str, start: int, end: int) -> bool:
    """Whether one of the words stands close before a span, or right behind it."""
    return bool(words.search(text, max(0, start - BEFORE), start) or words.search(text, end, end + AFTER))


def words(listed: str) -> re.Pattern[str]:
    """A pattern of words, in any case: whole ones of Latin letters, parts of a run of Chinese."""
    parts = sorted(listed.split("|"), key=len, reverse=True)
    latin = "|".join(re.escape(p) for p in parts if p.isascii())
    other = "|".join(re.escape(p) for p in parts if not p.isascii())
    both = [rf"(?<![A-Za-z])(?:{latin})(?![A-Za-z])"] if latin else []
    return re.compile("|".join([*both, *([other] if other else [])]), re.I)
