"""What a text claims that can be checked against what it was written from: its numbers and names. English, Chinese.

Numbers are compared as values: `1,299.00` is `1299`, `三百` is `300`, `twenty-five` is `25`. Units are not: 1.5 kg and
1500 g are two numbers. Words that are rarely meant as numbers ("one", 一个, 十分好) are not read as such.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

from bizllm.methods.documents import folded

_DIGITS = re.compile(r"(?<![\d.,])\d+(?:,\d{3})+(?:\.\d+)?(?![\d])|\d+(?:\.\d+)?")
_UP_TO_19 = """zero one two three four five six seven eight nine ten
eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"""
_SMALL = {word: value for value, word in enumerate(re.findall(r"\w+", _UP_TO_19))}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_LARGE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_WORD = "|".join([*_SMALL, *_TENS, *_LARGE])
_SPELT = re.compile(rf"\b(?:{_WORD})(?:(?:[\s-]+(?:and\s+)?)(?:{_WORD}))*\b", re.I)
_ALONE = {"zero", "one"}  # "the one that you want"

_HAN = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1_000}
_HAN_LARGE = {"万": 10_000, "亿": 100_000_000}
_HAN_NUMBER = "[零〇一二两三四五六七八九十百千万亿]{1,24}"  # bounded, as is all that is looked ahead from it
# What a Chinese numeral counts; without one it is mostly a word of its own (万一, 一起, 五金, 四季).
_COUNTED = (
    "元|块|年|个?月|天|日|周|小时|分钟|秒|公?斤|千?克|毫?升|厘?米|毫米|寸|瓦|折|倍|成|度|号|岁|"
    "人|个|件|台|款|支|片|只|层|档|种|次"
)
_SPELT_HAN = re.compile(rf"百分之({_HAN_NUMBER})|({_HAN_NUMBER})(?=\s*(?:多|余)?(?:{_COUNTED}))|第({_HAN_NUMBER})")
_ARTICLE = re.compile("一(?=\\s*(?:个(?!月)|件|台|款|支|片|只|层|种|次|人))")  # 一个: an article, not a count

_CAPITAL = re.compile(r"(?<![A-Za-z0-9_'’])[A-Z][A-Za-z0-9_'’&-]*")
_QUOTED = re.compile(r"[《「『“]([^《》「」『』“”\n]{1,40})[》」』”]")
_SENTENCE_START = re.compile(r"[.!?:;。！？：；\n\"“(\[—-]\s*$")


def numbers(text: str) -> set[Decimal]:
    """Every number of a text, by its value."""
    text = unicodedata.normalize("NFKC", text)
    found = {Decimal(match[0].replace(",", "")).normalize() for match in _DIGITS.finditer(text)}
    for match in _SPELT.finditer(text):
        if match[0].lower() not in _ALONE | _LARGE.keys():  # "hundreds", "a million thanks"
            found.add(Decimal(_spelt(match[0])).normalize())
    for match in _SPELT_HAN.finditer(_ARTICLE.sub(" ", text)):
        said = next(part for part in match.groups() if part)
        if (value := _han(said)) is not None:
            found.add(Decimal(value).normalize())
    return found


def invented_numbers(text: str, sources: Iterable[str]) -> list[Decimal]:
    """The numbers of a text that none of its sources has, smallest first."""
    known: set[Decimal] = set().union(*map(numbers, sources))
    return sorted(numbers(text) - known)


def names(text: str) -> list[str]:
    """Names, in their order: words with a capital that do not begin a sentence, Latin words amid Chinese, and what
    stands in 《》, 「」 or “”."""
    found = []
    for match in _CAPITAL.finditer(text):
        word = match[0].rstrip("'’-&").removesuffix("'s").removesuffix("’s")
        begins = _SENTENCE_START.search(text, max(0, match.start() - 8), match.start()) is not None or not match.start()
        if len(word) > 1 and (not begins or sum(map(str.isupper, word)) > 1):
            found.append(word)
    return list(dict.fromkeys([*found, *(match[1].strip() for match in _QUOTED.finditer(text))]))


def invented_names(text: str, sources: Iterable[str]) -> list[str]:
    """The names of a text that none of its sources has, in whatever case."""
    known = " ".join(folded(source) for source in sources)
    return [name for name in names(text) if not holds(known, name)]


def holds(text: str, wanted: str) -> bool:
    """Whether a text has these words, in whatever case and width: whole words of Latin script, any run of others."""
    text, wanted = folded(text), folded(wanted)
    if not wanted:
        return False
    before = r"(?<![^\W\u2e80-\u9fff\uac00-\ud7af])" if _latin(wanted[0]) else ""
    after = r"(?![^\W\u2e80-\u9fff\uac00-\ud7af])" if _latin(wanted[-1]) else ""
    return re.search(before + re.escape(wanted) + after, text) is not None


def _latin(char: str) -> bool:
    return char.isalnum() and ord(char) < 0x2E80


def _spelt(words: str) -> int:
    total = group = 0
    for word in re.split(r"[\s-]+", words.lower()):
        if word in _SMALL or word in _TENS:
            group += _SMALL.get(word, 0) + _TENS.get(word, 0)
        elif word == "hundred":
            group = max(group, 1) * 100
        elif word in _LARGE:
            total += max(group, 1) * _LARGE[word]
            group = 0
    return total + group


def _han(said: str) -> int | None:
    """三百二十 is 320, 二〇二六 is 2026; None for what is no numeral."""
    if not any(char in _HAN_UNITS or char in _HAN_LARGE for char in said):
        return int("".join(str(_HAN[char]) for char in said))
    total = group = digit = 0
    for char in said:
        if char in _HAN:
            digit = _HAN[char]
        elif char in _HAN_UNITS:
            group += (digit or 1) * _HAN_UNITS[char]
            digit = 0
        else:
            if not group + digit:
                return None  # 万 alone
            total += (group + digit) * _HAN_LARGE[char]
            group = digit = 0
    return total + group + digit
