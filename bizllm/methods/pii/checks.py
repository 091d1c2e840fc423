"""Numbers that carry a check: cards, accounts and identity numbers. Each takes the text as it was written."""

from __future__ import annotations

import re
from datetime import date

_SEPARATORS = re.compile(r"[\s\-./·]+")

# Lengths of an IBAN by country: SWIFT's IBAN registry.
_IBAN_LENGTHS = dict(
    pair.split(":")  # type: ignore[misc]
    for pair in (
        "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 DO:28 "
        "EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 "
        "IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 "
        "NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 "
        "TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20"
    ).split()
)
_PROVINCES = frozenset(
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)
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


def iban(text: str) -> bool:
    """Length by country, and the mod 97 check (ISO 13616)."""
    number = bare(text)
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{10,30}", number, re.ASCII):
        return False
    if _IBAN_LENGTHS.get(number[:2]) != str(len(number)):
        return False
    return int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1


def cn_id(text: str) -> bool:
    """A Chinese resident's number of 18 places (GB 11643): region, a date of birth that there was, the mod 11-2 check."""
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
