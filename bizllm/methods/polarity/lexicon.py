"""Words and phrases that say something of a thing, and the words that change what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, TypeVar

from bizllm.methods.polarity.lists import sections

Role = TypeVar("Role")

VALENCES = {"++": 2.0, "+": 1.0, "-": -1.0, "--": -2.0, "0": 0.0}
MODIFIERS = ("not", "more", "less", "but", "if")
LANGUAGES = ("en", "zh")
_STEM = 3  # letters of a stem with any ending, at least

_CJK = "\u3400-\u4dbf\u4e00-\u9fff"
# A word of letters with its apostrophe, a number, one Chinese character, a face, one other mark.
_TOKEN = re.compile(rf"[a-zà-ÿ]+(?:['’][a-zà-ÿ]+)?|\d+|[{_CJK}]|[:;=]-?[()d/]|<3|[^\s\w]", re.IGNORECASE)


@dataclass(frozen=True)
class Token:
    """A word, a Chinese character or a mark, small, and where it stands."""

    text: str
    start: int
    end: int


def tokens(text: str, start: int = 0, end: int | None = None) -> list[Token]:
    """Those of text[start:end]."""
    stop = len(text) if end is None else end
    return [Token(m[0].lower().replace("’", "'"), m.start(), m.end()) for m in _TOKEN.finditer(text, start, stop)]


@dataclass
class Phrases(Generic[Role]):
    """Phrases by their first token; an entry that ends in * stands for any ending of its last word."""

    _roles: dict[tuple[str, ...], Role] = field(default_factory=dict)
    _lengths: dict[str, list[int]] = field(
        default_factory=dict
    )  # of the phrases that begin with a token, longest first
    _stems: dict[str, Role] = field(default_factory=dict)

    def add(self, entry: str, role: Role) -> None:
        """Raises ValueError for an entry that is there with another role."""
        if entry.endswith("*") and " " not in entry:
            self._stems.setdefault(entry[:-1].lower(), role)
            return
        parts = tuple(token.text for token in tokens(entry.removesuffix("*")))
        if self._roles.setdefault(parts, role) != role:
            raise ValueError(f"{entry}: stands in two sections")
        lengths = {*self._lengths.get(parts[0], ()), len(parts)}
        self._lengths[parts[0]] = sorted(lengths, reverse=True)

    def at(self, found: Sequence[Token], place: int) -> tuple[int, Role] | None:
        """(tokens of the longest phrase that begins there, its role)."""
        first = found[place].text
        for length in self._lengths.get(first, ()):
            parts = tuple(token.text for token in found[place : place + length])
            if parts in self._roles:
                return len(parts), self._roles[parts]  # at a text's end they may be fewer than `length`
        for length in range(len(first), _STEM - 1, -1):
            if first[:length] in self._stems:
                return 1, self._stems[first[:length]]
        return None


@dataclass(frozen=True)
class Lexicon:
    """valences: what entries say, from -2 to 2. modifiers: not, more, less, but, if."""

    valences: Phrases[float]
    modifiers: Phrases[str]


@cache
def lexicon() -> Lexicon:
    """Of both languages at once: a Chinese review may well call a thing `nice`."""
    made = Lexicon(Phrases(), Phrases())
    for language in LANGUAGES:
        for section, entries in sections(language).items():
            for entry in entries:
                if section in VALENCES:
                    made.valences.add(entry, VALENCES[section])
                else:
                    assert section in MODIFIERS, section
                    made.modifiers.add(entry, section)
    return made
