"""Numbers in digits and in words: 1,250.50, 1.250,50, 3k, two dozen, a hundred and five, 二十五, 两万五, 1.5万."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bizllm.methods.values.found import Found

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: i for i, word in enumerate(_UNITS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_SCALES = {"dozen": 12, "dozens": 12, "hundred": 100, "thousand": 1_000, "million": 1_000_000}
_LETTERS = {"k": 1e3, "K": 1e3, "m": 1e6, "M": 1e6, "bn": 1e9}
_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "俩": 2}
_FORMAL = str.maketrans("壹贰叁肆伍陆柒捌玖拾佰仟", "一二三四五六七八九十百千")
_PLACES = {"十": 10, "百": 100, "千": 1_000}
_MYRIADS = {"万": 10_000, "亿": 100_000_000}

# Sources of patterns, for others to build on. A number in digits begins no part number and no rest of another number.
BARE_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,6})?|\d{1,3}(?:\.\d{3}){1,4},\d{1,2}|\d{1,15}(?:[.,]\d{1,6})?)(?!\d)"
DIGITS = rf"(?<![A-Za-z0-9_])(?<!\d[.,]){BARE_DIGITS}"
_WORD = "|".join(sorted([*_WORDS, *_SCALES], key=len, reverse=True))
ENGLISH = (
    rf"(?<![A-Za-z])(?:half a dozen|(?:a (?=dozen|hundred|thousand|million)|(?=(?:{_WORD})(?![A-Za-z])))"
    rf"(?:{_WORD})(?:(?:[ -]| and )(?:{_WORD})(?![A-Za-z])){{0,7}}|a couple(?: of)?)(?![A-Za-z])"
)
CHINESE = (
    r"(?:[零〇一二两俩三四五六七八九十百千万亿壹贰叁肆伍陆柒捌玖拾佰仟]{1,12}"
    r"(?:点[零〇一二三四五六七八九]{1,4})?半?|半)"
)
_SCALED = (
    rf"(?P<digits>{DIGITS})(?:(?P<letter>[kKmM]|bn)(?![A-Za-z0-9])"
    r"| ?(?P<zh>[百千]?[万亿]|[百千](?![克米瓦]))(?P<more>[一二三四五六七八九]|\d(?!\d))?)?"
)
_IN_DIGITS = re.compile(rf"(?P<sign>(?<![\w)）])-)?(?:{_SCALED})")
_IN_ENGLISH = re.compile(ENGLISH, re.I)
_IN_CHINESE = re.compile(CHINESE)
# One numeral alone is a number of things only before what counts things; "一起", "十分", "万一" are words.
_COUNTED = re.compile(
    r"[个件只台把张条盏瓶本块套副箱盒双对打包袋斤克吨米升元角天日周月年号岁次位人份支口床辆层楼折成%]"
    r"|公斤|小时|分(?:钟|之)"
)


def numbers(text: str) -> list[Found]:
    """All numbers, in order."""
    found = [*_in_digits(text)]
    found += _in_words(text)
    taken = {i for one in found for i in range(one.start, one.end)}
    for match in _IN_CHINESE.finditer(text):
        value = chinese(match[0])
        sure = len(match[0]) > 1 or _COUNTED.match(text, match.end())
        if value is not None and sure and not taken.intersection(range(*match.span())):
            found.append(Found(*match.span(), value, 0.8))
    return sorted(found, key=lambda f: f.start)


def value(text: str) -> float | None:
    """The number that the whole text is, in whatever form; None where it is none."""
    text = text.strip()
    for found in (*_in_digits(text), *_in_words(text)):
        if (found.start, found.end) == (0, len(text)):
            return float(found.value)
    return chinese(text)


def chinese(text: str) -> float | None:
    """二十五 = 25, 两万五 = 25,000, 三百五 = 350, 一点五 = 1.5, 二〇二六 = 2026; None where it is no number."""
    whole, half = text.translate(_FORMAL), 0.0
    if whole.endswith("半"):
        whole, half = whole[:-1], 0.5
    whole, _, decimals = whole.partition("点")
    if not whole:
        return half or None
    if decimals:
        if not all(c in _DIGITS for c in decimals):
            return None
        half += float("0." + "".join(str(_DIGITS[c]) for c in decimals))
    if len(whole) > 1 and all(c in _DIGITS for c in whole):  # read out digit by digit
        return float("".join(str(_DIGITS[c]) for c in whole)) + half
    total = section = 0  # of 亿 and 万; below the next of them
    digit: int | None = None
    place = last = 1  # what a trailing digit counts in: 三百五 is 350, 三百零五 305
    for c in whole:
        if c in _DIGITS:
            if digit is not None and digit != 0:
                return None
            digit = _DIGITS[c]
            last = 1 if digit == 0 else last
            place = max(1, last // 10)
        elif c in _PLACES:
            section += (1 if digit is None else digit) * _PLACES[c]
            digit, last = None, _PLACES[c]
        elif c in _MYRIADS:
            section += digit or 0
            if not section and not total:
                return None
            total = (total + section) * _MYRIADS[c] if c == "亿" else total + section * _MYRIADS[c]
            section, digit, last = 0, None, _MYRIADS[c]
        else:
            return None
    return total + section + (digit or 0) * place + half


def english(text: str) -> float | None:
    """two dozen = 24, a hundred and five = 105, half a dozen = 6; None where it is no number."""
    words = text.lower().replace("-", " ").split()
    if words[-1:] == ["and"]:
        return None
    if words == ["half", "a", "dozen"]:
        return 6.0
    if words[:2] == ["a", "couple"]:
        return 2.0
    total, part, seen = 0, 0, False
    for i, word in enumerate(words):
        if word == "and" or (word == "a" and i == 0):
            continue
        if word in _WORDS:
            if (part % 10 and _WORDS[word]) or (part % 100 and _WORDS[word] >= 10):
                return None
            part += _WORDS[word]
        elif word in _SCALES:
            part = max(part, 1) * _SCALES[word]
            if _SCALES[word] >= 1_000:
                total, part = total + part, 0
        else:
            return None
        seen = True
    return float(total + part) if seen else None


def digits(text: str) -> float:
    """1,250.50 and 1.250,50 alike. One comma before three digits parts thousands, before one or two it is a decimal
    point; a point is one always, but where a comma follows."""
    if "," in text and "." in text:
        thousands, decimal = (",", ".") if text.rindex(".") > text.rindex(",") else (".", ",")
    elif re.fullmatch(r"\d{1,3}(?:,\d{3})+", text):
        thousands, decimal = ",", "."
    else:
        thousands, decimal = "", ","
    return float(text.replace(thousands, "").replace(decimal, ".") if thousands else text.replace(decimal, "."))


def _in_digits(text: str) -> Iterator[Found]:
    for match in _IN_DIGITS.finditer(text):
        after = text[match.end() : match.end() + 2]
        if match["letter"] is None and after[:1].isascii() and after[:1].isalpha() and after[1:].isdigit():
            continue  # part of a code: 3D2
        number = digits(match["digits"])
        if match["letter"]:
            number *= _LETTERS[match["letter"]]
        elif match["zh"]:
            scale = chinese("一" + match["zh"]) or 1.0
            number = number * scale + (_DIGITS.get(match["more"] or "零") or int(match["more"] or 0)) * scale / 10
        yield Found(match.start(), match.end(), -number if match["sign"] else number, 0.9)


def _in_words(text: str) -> Iterator[Found]:
    at = 0
    while match := _IN_ENGLISH.search(text, at):
        start, at = match.span()
        # "twenty-five and two dozen" are two numbers: the longest beginning that is one, then the rest.
        for end in [at, *(start + m.start() for m in reversed([*re.finditer(r"[ -]", match[0])]))]:
            number = english(text[start:end])
            if number is not None:
                yield Found(start, end, number, 0.8)
                at = end
                break
