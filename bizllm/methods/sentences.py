"""Sentences of a text, as character spans, for Latin and CJK scripts, and the turns of a dialogue.

Rules, not a model: a night's tickets, reviews and notes are informal (no blank after a full stop, no capital after it,
hard-wrapped lines), and a splitter that runs at millions of characters a second leaves the time to the encoder.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

Span = tuple[int, int]

MAX_SENTENCE_CHARS = 600  # a run-on is cut at a comma or blank, so that no vector stands for a page

_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_CJK_CHAR = re.compile(f"[{_CJK}]")
_LATIN_LETTER = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
_WORD = re.compile(f"[{_CJK}]|(?:(?![{_CJK}])\\w)+")
_WORD_OR_MARKS = re.compile(f"[{_CJK}]|(?:(?![{_CJK}])\\w)+(?:['’](?:(?![{_CJK}])\\w)+)*|[^\\w\\s]+")
_CLOSING = "\"'”’»)\\]」』】）》〉"

# Where a sentence may end. Alternatives in order: full-width stops; an ASCII stop beside a CJK character (papers and
# chats write one); a stop before a blank or the end; a stop glued to the next capital ("fits.I love"); line ends.
_BOUNDARY = re.compile(
    rf"""
      [。！？；｡…]+[{_CLOSING}]*
    | (?<=[{_CJK}{_CLOSING}])[.!?;]+(?!\d)[{_CLOSING}]*
    | [.!?;]+(?=[{_CJK}])
    | (?P<latin>[.!?]+[{_CLOSING}]*)(?=\s|$)
    | (?<=[a-z]{{2}})(?P<glued>[.!?]+)(?=[A-Z][a-z ])
    | (?P<line>[^\S\n]*\n\s*)
    """,
    re.VERBOSE,
)

_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms dr prof sr jr st vs etc e.g i.e eg ie cf al approx dept est fig inc ltd co corp no nos vol pp p.m "
        "a.m u.s u.k jan feb mar apr jun jul aug sep sept oct nov dec mt ave blvd gen col sgt capt lt rev hon pres gov",
    )
)
# After these a capital may well begin a new sentence ("at 5 p.m. She …"): they only hold when a small letter follows.
_SOFT_ABBREVIATIONS = frozenset(["etc", "inc", "ltd", "co", "corp", "p.m", "a.m", "u.s", "u.k", "jr", "sr", "no", "al"])
_LAST_WORD = re.compile(r"[A-Za-z](?:[A-Za-z.]*[A-Za-z])?$")
_BULLET = re.compile(r"(?:[-*•·–]|\(?\d{1,3}[.)、]|[一二三四五六七八九十]{1,3}、)\s*")

# A speaker's label at the start of a line: "Doctor:", "Guest_family 2:", "客服：".
_TURN = re.compile(
    rf"^[^\S\n]*(?P<who>[A-Z][\w.'-]*(?:[ ][\w.'-]+){{0,2}}|[{_CJK}]{{1,6}})[^\S\n]*[:：][^\S\n]*", re.MULTILINE
)
_MIN_TURNS = 3


def split(text: str) -> list[Span]:
    """The sentences of `text`, in order, as (start, end) in characters, without surrounding blanks.

    Everything but white space lies in exactly one span, and none is longer than MAX_SENTENCE_CHARS.
    """
    spans: list[Span] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        if _ends_sentence(text, start, match):
            _append(spans, text, start, match.end())
            start = match.end()
    _append(spans, text, start, len(text))
    return spans


def is_cjk(text: str) -> bool:
    """Whether Chinese, Japanese or Korean characters carry the text: at least three in ten of its letters."""
    cjk = len(_CJK_CHAR.findall(text))
    return cjk > 0 and cjk >= 0.3 * sum(map(str.isalpha, text))


def is_latin(texts: Iterable[str]) -> bool:
    """Whether at least seven in ten letters of the texts are Latin."""
    latin = letters = 0
    for text in texts:
        latin += len(_LATIN_LETTER.findall(text))
        letters += sum(map(str.isalpha, text))
    return latin > 0 and latin >= 0.7 * letters


def count_words(text: str) -> int:
    """Words, each CJK character counting as one."""
    return len(_WORD.findall(text))


def words(text: str) -> list[Span]:
    """The words, each CJK character being one, and the runs of marks between them: all but white space, in order."""
    return [match.span() for match in _WORD_OR_MARKS.finditer(text)]


def turns(text: str) -> list[Span]:
    """What is said in each turn of a dialogue, without the speaker's label; empty where the text is no dialogue.

    A dialogue has at least three turns, at most one line in four without a label, and a label that comes back.
    """
    labels = list(_TURN.finditer(text))
    if len(labels) < _MIN_TURNS or len({m["who"] for m in labels}) == len(labels):
        return []
    lines = sum(1 for line in text.splitlines() if line.strip())
    if len(labels) < 0.75 * lines:
        return []
    ends = [m.start() for m in labels[1:]] + [len(text)]
    # What stands before the first label (a heading, a date) is a turn of its own.
    said = [(0, labels[0].start()), *((m.end(), end) for m, end in zip(labels, ends, strict=True))]
    trimmed = [_trim(text, start, end) for start, end in said]
    return [(start, end) for start, end in trimmed if start < end]


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    following = text[match.end() : match.end() + 24].lstrip()
    if match["line"] is not None:
        # A wrapped line goes on with a small letter; a paragraph, a list item, a heading does not.
        wrapped = following[:1].islower() and match["line"].count("\n") == 1 and not _BULLET.match(following)
        return not wrapped
    if match["latin"] is None or match["latin"][0] != ".":
        return True
    before = text[max(start, match.start() - 24) : match.start()]
    if _BULLET.fullmatch(text[start : match.end()].strip()):
        return False  # "1." numbers the sentence that follows
    word = _LAST_WORD.search(before)
    if word is None or not following:
        return True
    name = word[0].lower()
    if len(name) == 1 and word[0].isupper() and following[0].isalpha():
        return name == "i"  # an initial: "J. Smith"
    if name in _SOFT_ABBREVIATIONS:
        return not (following[0].islower() or (name == "no" and following[0].isdigit()))
    return name not in _ABBREVIATIONS


def _append(spans: list[Span], text: str, start: int, end: int) -> None:
    """Add text[start:end] without its blanks; a stray closing mark joins its sentence; a run-on is cut."""
    start, end = _trim(text, start, end)
    if start == end:
        return
    if spans and not any(c.isalnum() for c in text[start:end]) and end - spans[-1][0] <= MAX_SENTENCE_CHARS:
        spans[-1] = (spans[-1][0], end)
        return
    while end - start > MAX_SENTENCE_CHARS:
        cut = _cut(text, start)
        spans.append(_trim(text, start, cut))
        start, end = _trim(text, cut, end)
    spans.append((start, end))


def _cut(text: str, start: int) -> int:
    """Where to cut a run-on: after its last comma in the allowed length, else its last blank, else hard."""
    window = text[start : start + MAX_SENTENCE_CHARS]
    places = [m.end() for m in re.finditer(r"[,，、:：](?!\d)", window)] or [
        m.end() for m in re.finditer(r"\s", window)
    ]
    late = places[bisect_right(places, MAX_SENTENCE_CHARS // 4) :]
    return start + (late[-1] if late else MAX_SENTENCE_CHARS)


def _trim(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
