"""Numbers that carry a check: cards, accounts and identity numbers. Each takes the text as it was written."""

from __future__ import annotations

import re
from datetime import date

from bizllm.methods.pii.lists import listed

_SEPARATORS = re.compile(r"[\s\-./·]+")

_IBAN_LENGTHS = {pair[:2]: int(pair[3:]) for pair in listed("iban_lengths")}
# GB/T 2260: the first two digits of a region.
_REGIONS = (
    *range(11, 16),
    *range(21, 24),
    *range(31, 38),
    *range(41, 47),
    *range(50, 55),
    *range(61, 66),
    71,
    81,
    82,
    83,
)
_PROVINCES = frozenset(map(str, _REGIONS))
_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CN_CHECKS = "10X98765432"


def bare(text: str) -> str:
    """The letters and digits of a number, in capitals."""
    return _SEPARATORS.sub("", text).upper()


def luhn(text: str) -> bool:
    """A card's number: 12 to 19 digits, not all the same, by the mod 10 check (ISO/IEC 7812-1)."""
    digits = bare(text)
    if not (digits.isdigit() and 12 <= len(digits) <= 19) or len(set(digits)) == 1:
        return False
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def iban_length(text: str) -> int:
    """Characters of an IBAN that begins so; 0 where no country's does."""
    return _IBAN_LENGTHS.get(text[:2].upper(), 0)


def iban(text: str) -> bool:
    """Length by country, and the mod 97 check (ISO 13616)."""
    number = bare(text)
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{10,30}", number, re.ASCII):
        return False
    if _IBAN_LENGTHS.get(number[:2]) != len(number):
        return False
    return int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1


def cn_id(text: str) -> bool:
    """A Chinese resident's number of 18 places (GB 11643): region, a real date of birth, the mod 11-2 check."""
    number = bare(text)
    if not re.fullmatch(r"\d{17}[\dX]", number, re.ASCII) or number[:2] not in _PROVINCES:
        return False
    if not is_date(int(number[6:10]), int(number[10:12]), int(number[12:14])):
        return False
    total = sum(int(d) * w for d, w in zip(number, _CN_WEIGHTS, strict=False))
    return _CN_CHECKS[total % 11] == number[17]


def us_ssn(text: str) -> bool:
    """Areas 000, 666 and 9xx, group 00 and serial 0000 were never given out, nor is one digit nine times a number."""
    digits = bare(text)
    if not re.fullmatch(r"\d{9}", digits, re.ASCII) or len(set(digits)) == 1:
        return False
    never = digits[:3] in ("000", "666") or digits[0] == "9" or digits[3:5] == "00" or digits[5:] == "0000"
    return not never and digits not in ("123456789", "078051120")


def uk_nhs(text: str) -> bool:
    """Ten digits with the NHS's mod 11 check."""
    digits = bare(text)
    if not re.fullmatch(r"\d{10}", digits, re.ASCII) or len(set(digits)) == 1:
        return False
    total = sum(int(d) * w for d, w in zip(digits, range(10, 1, -1), strict=False))
    return (11 - total % 11) % 11 == int(digits[9])


def uk_nino(text: str) -> bool:
    """Two letters that are given out, six digits, A to D."""
    number = bare(text)
    if not re.fullmatch(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", number, re.ASCII):
        return False
    return number[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def ip(text: str) -> bool:
    """An address of version 4 or 6, with or without the length of its network."""
    from ipaddress import ip_interface

    try:
        return not ip_interface(text).ip.is_unspecified
    except ValueError:
        return False


def is_date(year: int, month: int, day: int) -> bool:
    """Whether there was such a day since 1880."""
    try:
        return date(1880, 1, 1) <= date(year, month, day) <= date(2100, 1, 1)
    except ValueError:
        return False
