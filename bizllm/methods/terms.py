"""What a company calls its things: other names of a name, facts about it, and where a text speaks of it.

A text is folded (NFKC, small letters, English plurals as singular) and cut into tokens: a word of Latin letters or
digits, one CJK character, one mark. A term is a run of tokens, found by its first token and its length, so that a text
costs the same whatever the number of terms. Longest match first, from the left; a term never begins or ends within a
Latin word, and may begin anywhere in Chinese, which writes no blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

MAX_TOKENS = 24  # of a term that is looked for; longer ones are sentences, not names

_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_CLUSTER = re.compile(".[\u0300-\u036f\u3099\u309a]*", re.DOTALL)  # a character with its accents, folded together
_MARKS = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "–": "-", "—": "-"})
_TOKEN = re.compile(rf"[{_CJK}]|[^\W\d_{_CJK}]+|\d+|[^\s\w'-]")  # blanks, hyphens and apostrophes only part words
_GLUED = re.compile(rf"(?![{_CJK}])\w")


class Entry(NamedTuple):
    """What a term stands for."""

    name: str
    kind: str | None


class Fact(NamedTuple):
    """An edge of the graph, as seen from one of its ends. inverse: it was given the other way round."""

    relation: str
    name: str
    inverse: bool = False


@dataclass(frozen=True)
class Found:
    """A term in a text: characters [start, end). entries: what it may stand for; several where names share it."""

    start: int
    end: int
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The canonical name; of several the first."""
        return self.entries[0].name

    @property
    def kind(self) -> str | None:
        """Of that name."""
        return self.entries[0].kind


@dataclass(frozen=True)
class Terms:
    """Terms by their tokens, and the facts of each name.

    entries: a term's tokens, joined by blanks → what it stands for. lengths: first token → how many tokens the terms
    have that begin with it, longest first.
    """

    entries: Mapping[str, tuple[Entry, ...]]
    facts: Mapping[str, tuple[Fact, ...]] = field(default_factory=dict)
    lengths: Mapping[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        lengths: dict[str, set[int]] = {}
        for key in self.entries:
            first, *rest = key.split(" ")
            lengths.setdefault(first, set()).add(1 + len(rest))
        ordered = {first: tuple(sorted(some, reverse=True)) for first, some in lengths.items()}
        object.__setattr__(self, "lengths", ordered)

    @classmethod
    def learn(cls, names: Iterable[tuple[str, str, str | None]], facts: Iterable[tuple[str, str, str]] = ()) -> Terms:
        """names: (term, what it means, kind or None); what it means is found by its own name, too. facts: (subject,
        relation, object); both ends are found by their names. The order of neither matters."""
        known: dict[str, dict[str, str | None]] = {}
        edges: dict[str, set[Fact]] = {}

        def add(term: str, name: str, kind: str | None) -> None:
            key = _key(term)
            if key and key.count(" ") < MAX_TOKENS:
                of = known.setdefault(key, {})
                of[name] = min(filter(None, (of.get(name), kind)), default=None)

        for term, name, kind in names:
            add(term, name, kind)
            add(name, name, kind)
        for subject, relation, other in facts:
            add(subject, subject, None)
            add(other, other, None)
            edges.setdefault(subject, set()).add(Fact(relation, other))
            edges.setdefault(other, set()).add(Fact(relation, subject, True))
        # A kind that is told of a name at one of its terms holds at all of them.
        kinds: dict[str, str] = {}
        for of in known.values():
            for name, kind in of.items():
                if kind is not None:
                    kinds[name] = min(kinds.get(name, kind), kind)
        entries = {key: tuple(Entry(name, kinds.get(name)) for name in sorted(of)) for key, of in sorted(known.items())}
        return cls(entries, {name: tuple(sorted(some)) for name, some in sorted(edges.items())})

    def state(self) -> dict[str, pa.Table]:
        """Arrow tables, of which `of` makes the same again."""
        terms = [(key, e.name, e.kind) for key, entries in self.entries.items() for e in entries]
        facts = [(s, f.relation, f.name) for s, some in self.facts.items() for f in some if not f.inverse]
        return {"terms": _table(terms, "key", "name", "kind"), "facts": _table(facts, "subject", "relation", "object")}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Terms:
        """What `state` told."""
        entries: dict[str, list[Entry]] = {}
        for row in state["terms"].to_pylist():
            entries.setdefault(row["key"], []).append(Entry(row["name"], row["kind"]))
        edges: dict[str, set[Fact]] = {}
        for row in state["facts"].to_pylist():
            edges.setdefault(row["subject"], set()).add(Fact(row["relation"], row["object"]))
            edges.setdefault(row["object"], set()).add(Fact(row["relation"], row["subject"], True))
        return cls(
            {key: tuple(some) for key, some in entries.items()},
            {name: tuple(sorted(some)) for name, some in edges.items()},
        )

    def find(self, text: str) -> list[Found]:
        """The terms of a text, in order, never overlapping."""
        said = tokens(text)
        found, i = [], 0
        while i < len(said):
            for length in self.lengths.get(said[i].text, ()):
                last = i + length - 1
                if last >= len(said) or said[i].glued_before or said[last].glued_after:
                    continue
                entries = self.entries.get(" ".join(token.text for token in said[i : last + 1]))
                if entries is not None:
                    found.append(Found(said[i].start, said[last].end, entries))
                    i = last
                    break
            i += 1
        return found

    def exactly(self, text: str) -> tuple[Entry, ...]:
        """What the whole text stands for, where it is a term."""
        return self.entries.get(_key(text), ())

    def neighbours(self, name: str, hops: int = 1, relations: Sequence[str] | None = None) -> list[Fact]:
        """The names that edges lead to from this one, nearest first, each once; relations: follow these only."""
        reached, border, found = {name}, [name], []
        for _ in range(hops):
            following = []
            for near in border:
                for fact in self.facts.get(near, ()):
                    if fact.name not in reached and (relations is None or fact.relation in relations):
                        reached.add(fact.name)
                        following.append(fact.name)
                        found.append(fact)
            border = following
        return found

    def canonical(self, text: str) -> str:
        """The text with every term of one meaning under its canonical name: what should compare as equal."""
        parts, end = [], 0
        for term in self.find(text):
            if len(term.entries) == 1:
                parts += [text[end : term.start], term.name]
                end = term.end
        return "".join([*parts, text[end:]])

    def expand(self, text: str, hops: int = 0, relations: Sequence[str] | None = None) -> str:
        """The text, and behind it the names that its terms stand for and that edges lead to, each once: for what goes
        by the words of a text (a search, a classifier). The text itself where it says all of that."""
        more: dict[str, None] = {}
        for term in self.find(text):
            for entry in term.entries:
                more |= {entry.name: None} | {f.name: None for f in self.neighbours(entry.name, hops, relations)}
        said = f" {_key(text)} "
        new = [name for name in more if f" {_key(name)} " not in said]
        return f"{text} ({', '.join(new)})" if new else text


class Token(NamedTuple):
    """A folded token at characters [start, end) of the text. glued: a letter or digit of the same word stands there."""

    text: str
    start: int
    end: int
    glued_before: bool
    glued_after: bool


def tokens(text: str) -> list[Token]:
    """The tokens of a text, with their places in the text as it was given."""
    folded, places = _folded(text)
    found = []
    for match in _TOKEN.finditer(folded):
        start, end = match.span()
        before, after = _glued(folded, start - 1, start), _glued(folded, end, end - 1)
        # The digits behind a point or a comma are the rest of a number: "1.5 kg" speaks of no "5 kg".
        before |= start > 1 and folded[start].isdigit() and folded[start - 1] in ".," and folded[start - 2].isdigit()
        begin, stop = (start, end) if places is None else (places[start], places[end])
        found.append(Token(_singular(match[0]), begin, stop, before, after))
    return found


def _key(text: str) -> str:
    return " ".join(token.text for token in tokens(text))


def _glued(folded: str, beside: int, at: int) -> bool:
    inside = 0 <= beside < len(folded)
    return inside and bool(_GLUED.match(folded, beside)) and bool(_GLUED.match(folded, at))


def _folded(text: str) -> tuple[str, list[int] | None]:
    """(the folded text; where each of its characters stands in `text`, and its end, None where all stay in place)."""
    if text.isascii():
        return text.lower(), None
    parts, places, at = [], [], 0
    for cluster in _CLUSTER.findall(text):
        part = _fold(cluster)
        parts.append(part)
        places += [at] * len(part)
        at += len(cluster)
    return "".join(parts), [*places, at]


@lru_cache(maxsize=65_536)
def _fold(cluster: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", cluster).casefold())
    return folded.translate(_MARKS)


@lru_cache(maxsize=65_536)
def _singular(token: str) -> str:
    """An English plural as its singular. Terms and texts go through it alike: a wrong guess does little harm."""
    if len(token) < 4 or not token.isascii() or token[-1] != "s" or token[-2:] in ("ss", "us", "is"):
        return token
    if token.endswith("ies"):
        return token[:-3] + "y"
    return token[:-2] if token.endswith(("xes", "ches", "shes", "sses", "zes")) else token[:-1]


def _table(rows: Sequence[tuple[str, str, str | None]], *names: str) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table({name: pa.array(list(column), pa.string()) for name, column in zip(names, columns, strict=True)})
