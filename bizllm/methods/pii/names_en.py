"""People's names in Latin script: first names, titles, lead-ins, and runs of capitalised words that are no others.

Lists are the project's own: common first names of several countries, and capitalised words that are no names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bizllm.methods.pii.rules import Rule
from bizllm.methods.pii.spans import Span
from bizllm.methods.pii.words_en import COMMON, FIRST_NAMES, PLACES

_UPPER = "A-ZÀ-ÖØ-ÞŁŚŻČĎŘŠŤŽĐÐŐŰĀĒĪŪĶĻŅĢĞİŞ"
_NAME = rf"[{_UPPER}][^\W\d_]{{0,20}}(?:['’\-][^\W\d_]{{1,20}}){{0,2}}"
_PART = r"(?:van|von|der|den|de|da|dos|del|della|di|la|le|bin|ibn|al|el|af|ten|ter)"
_RUN = re.compile(rf"(?<![\w@#$/.])(?:{_NAME})(?:(?: {_PART}){{0,2}} (?:[{_UPPER}]\.?(?!\w)|{_NAME})){{0,4}}(?![\w@])")
_TITLE = re.compile(
    r"(?<!\w)(?:mr|mrs|ms|miss|mx|dr|prof|professor|sir|madam|lady|lord|rev|reverend|capt|captain|sgt|lt|col|judge|"
    r"herr|frau|monsieur|madame|mme|señor|señora|sr|sra|don|signor|signora|fr|sister|brother|aunt|uncle)\.?\s{1,2}$",
    re.I,
)
_NAMED = r"name(?:'s| is|d| was|:| on (?:the|my) (?:account|card|order)(?: is|:|\?)?)"
_LEAD = re.compile(
    rf"(?:{_NAMED}|name|i'm|i am|it's|this is|it is|called|call me|calls me|dear|hello|hi|hey|regards,?|sincerely,?|"
    r"thanks,?|cheers,?|yours,?|signed,?|attn:?|attention:?|contact|speak to|speak with|spoke to|spoke with|talk to|"
    r"ask for|customer|agent|patient|client|driver|employee|recipient|cardholder|cc:?|from:|to:|by:|user:|sender:|"
    r"author:|directed by:?|written by|sung by|it's under|it under|to see|meet|met|told|asked|with|said|me|him|her|by|"
    r"of|and|to)[\s:,\"]{1,4}$",
    re.I,
)
_STRONG = re.compile(
    rf"(?:{_NAMED}|call me|calls me|dear|hi|hey|regards,?|sincerely,?|signed,?|attn:?|user:|recipient:?|cardholder:?|"
    r"(?:change it|changed|it) to|it's under|last name\?|directed by:?|producer|director|said|not by|told|sung by|"
    r"written by)[\s:,\"]{1,6}$",
    re.I,
)
_VERB = re.compile(
    r"(?:'s (?:wife|husband|son|daughter|mother|father|brother|sister|account|address|card|killers?|phone|email)\b"
    r"| (?:said|says|told|asked|called|wrote|lives?|lived|listed|explained|thinks?|thought|had given|is a very|"
    r"was born|works?|will be talking|and i|points out|will meet|died|sang|sings|plays|invited|emailed|phoned)\b"
    r"|, (?:the|originally|aged|\d\d)\b)"
)
_SMALL = re.compile(r"(?<!\w)([a-z]{3,15})(?: [a-z]\.?)? ([^\W\d_]{3,20})(?!\w)")
_LOWER = re.compile(
    r"(?<!\w)(?:my (?:full |last |first )?name is|my name's|i am called|call me|follow up with|name:"
    r"|speak to (?:mr|mrs|ms|miss|dr)\.?) {1,2}(?P<at>[^\W\d_]{2,20}(?: [^\W\d_]{1,20}){0,2})",
    re.I,
)
_CONTRACTED = re.compile(r"(?:'(?:s|m|d|ve|ll|re)|n't)$")
_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "and",
        "but",
        "or",
        "so",
        "i",
        "my",
        "your",
        "our",
        "his",
        "her",
        "its",
        "not",
        "no",
        "to",
        "in",
        "on",
        "at",
        "is",
        "was",
        "are",
        "were",
        "about",
        "with",
        "for",
        "of",
        "from",
        "that",
        "this",
        "please",
        "thanks",
        "when",
        "where",
        "why",
        "how",
        "what",
        "who",
        "which",
        "because",
        "if",
        "then",
        "spelled",
        "wrong",
        "missing",
        "incorrect",
        "misspelled",
        "regarding",
    ]
)


class Names:
    """The rule for people; the same interface as `Rule`."""

    type = "PERSON"

    def find(self, text: str) -> Iterator[Span]:
        """Names with scores: full names and those with a title or lead-in are sure, lone capitalised words are not."""
        found: list[Span] = []
        for match in _RUN.finditer(text):
            found += _of_run(text, match.start(), match.end())
        for match in _LOWER.finditer(text):
            start, words = match.start("at"), match["at"].split(" ")
            kept = []
            for word in words:
                if word.lower() in _STOP or word.lower() in COMMON:
                    break
                kept.append(word)
            if kept:
                found.append(Span(start, start + len(" ".join(kept)), "PERSON", 0.6))
        if text.islower():  # nothing has a capital: a first name and what follows it
            for match in _SMALL.finditer(text):
                if match[1] in FIRST_NAMES and match[2] not in COMMON:
                    found.append(Span(match.start(), match.end(), "PERSON", 0.5))
        yield from found
        yield from _again(text, found)


def _of_run(text: str, start: int, end: int) -> Iterator[Span]:
    """The names in a run of capitalised words: without words at its ends that are no names."""
    words = [(start + m.start(), start + m.end(), m[0]) for m in re.finditer(r"[^ ]+", text[start:end])]
    opens = _opens(text, start)
    while (
        words
        and _common(words[0][2])
        and (words[0][2].lower() not in FIRST_NAMES or (len(words) > 1 and _common(words[0][2], True)))
    ):
        words, opens = words[1:], False
    while words and (_common(words[-1][2]) or words[-1][2].islower()):
        words = words[:-1]
    if not words:
        return
    start, end = words[0][0], words[-1][1]
    if text[start:end].endswith("'s"):
        end -= 2
    names = [word for _, _, word in words]
    lower = [name.lower().removesuffix("'s") for name in names]
    if " ".join(lower) in PLACES or any(_common(name) for name in names):
        return
    if len(text[start:end]) < 2 or (len(names) == 1 and (text[start:end].isupper() and lower[0] not in FIRST_NAMES)):
        return
    before, after = text[max(0, start - 48) : start], text[end : end + 24]
    first = lower[0].split("-")[0] in FIRST_NAMES
    initial = any(len(name.rstrip(".")) == 1 for name in names[1:])
    if _TITLE.search(before):
        score = 0.9
    elif (first and len(names) > 1) or initial:
        score = 0.85
    elif _STRONG.search(before):
        score = 0.7 if not opens or len(names) > 1 else 0.6
    elif first:
        score = 0.6 if not opens or _VERB.match(after) else 0.45
    elif len(names) > 1:
        score = 0.5 if len(names) < 4 else 0.35
        score += 0.15 if _LEAD.search(before) or _VERB.match(after) else 0.0
    else:
        # In the middle of a sentence only names, and what people coined, are written with a capital.
        score = 0.2 if opens else 0.4
        score += 0.2 if _VERB.match(after) or (not opens and _LEAD.search(before)) else 0.0
    yield Span(start, end, "PERSON", score)


def _opens_no_name(words: list[tuple[int, int, str]]) -> bool:
    """Whether the first word of a run is no part of a name; `Will` is one, where it stands before another."""
    first = words[0][2]
    return _common(first) and (first.lower() not in FIRST_NAMES or (len(words) > 1 and _common(first, True)))


def _again(text: str, found: list[Span]) -> Iterator[Span]:
    """Where a word of a sure name stands once more: the surname alone, later in the text."""
    sure = [text[s.start : s.end] for s in found if s.score >= 0.5]
    parts = {part for name in sure for part in name.split(" ") if len(part) > 2 and not _common(part)}
    if parts:
        pattern = "|".join(map(re.escape, sorted(parts, key=lambda p: (-len(p), p))))
        for match in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", text):
            yield Span(match.start(), match.end(), "PERSON", 0.5)


def _common(word: str, strictly: bool = False) -> bool:
    bare = _CONTRACTED.sub("", word.lower().rstrip("."))
    return bare in COMMON and (strictly or bare not in FIRST_NAMES)


def _opens(text: str, start: int) -> bool:
    """Whether a sentence or line begins there, where every word has a capital."""
    before = text[max(0, start - 4) : start].rstrip(" \"'(>")
    return not before or before[-1] in ".!?:\n"


_CITY_LEAD = re.compile(
    r"(?<!\w)(?:born in|lives? in|lived in|living in|moved (?:here )?(?:from|to)|returned to|went to|arrived in|"
    r"stay(?:ing)? in|originally from|i'm from|i am from|i'm in|i am in|grew up in|based in|travell?ing to|flying to|"
    r"trip to|visiting|reside in|resident of|am in|comes from|country:|city:|town:)\s{1,2}$",
    re.I,
)


class Places:
    """Countries and large cities by name, and capitalised words behind words such as `born in`."""

    type = "LOCATION"

    def find(self, text: str) -> Iterator[Span]:
        for match in _RUN.finditer(text):
            words = [(match.start() + m.start(), match.start() + m.end()) for m in re.finditer(r"[^ ]+", match[0])]
            taken = 0
            for i in range(len(words)):
                for j in range(len(words), i, -1):
                    start, end = words[i][0], words[j - 1][1]
                    if start >= taken and text[start:end].lower().removesuffix("'s") in PLACES:
                        yield Span(start, end, "LOCATION", 0.6)
                        taken = end
                        break
            led = not taken and _CITY_LEAD.search(text, max(0, match.start() - 40), match.start())
            if led and not _common(match[0].split(" ")[0]):
                yield Span(match.start(), match.end(), "LOCATION", 0.55)


RULES: list[Rule | Names | Places] = [Names(), Places()]
