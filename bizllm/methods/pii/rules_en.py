"""Rules for texts in Latin script, English above all: phones, identity numbers, dates of birth, ages, plates."""

from __future__ import annotations

import re

from bizllm.methods.pii import checks
from bizllm.methods.pii.rules import Rule, words
from bizllm.methods.pii.rules_any import PHONE_WORDS

_BIRTH = words("born|birth|birthday|birthdate|dob|d.o.b")
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DATE = (
    rf"(?<![\w/.\-])(?:\d{{1,4}}[/.\-]\d{{1,2}}[/.\-]\d{{1,4}}|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},? \d{{4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})(?![\w/\-])"
)
_REGIONS = ("US", "GB", "AU", "DE", "FR", "IN")


def a_phone(text: str) -> bool:
    """Whether one of a few countries has such a number."""
    import phonenumbers

    if not 7 <= sum(c.isdigit() for c in text) <= 15:
        return False
    for region in _REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(text, region)):
                return True
        except phonenumbers.NumberParseException:
            return False
    return False


RULES = [
    Rule(
        "PHONE",
        re.compile(
            r"(?<![\w.,/+:\-])(?:\+?1[ .\-]?)?(?:\(\d{3}\) ?|\d{3}[ .\-])\d{3}[ .\-]\d{4}(?: ?(?:x|ext\.?) ?\d{1,5})?"
            r"(?![\d/]|[.\-]\d)"
        ),
        0.65,
        context=PHONE_WORDS,
    ),
    # With a leading zero or an area in brackets, and a number that a country has: nothing else is written so.
    Rule(
        "PHONE",
        re.compile(r"(?<![\w.,/+:\-])(?:\(0?\d{2,4}\)|0\d{1,5})(?:[ .\-/]\d{2,8}){1,5}(?![\w/]|[.\-:]\d)"),
        0.45,
        a_phone,
        PHONE_WORDS,
    ),
    Rule(
        "PHONE",
        re.compile(r"(?<![\w.,/+:\-])(?:\(\d{2,5}\)|\d{2,5})(?:[ .\-/]\(?\d{2,5}\)?){1,5}(?![\d/]|[.\-:]\d)"),
        0.3,
        a_phone,
        PHONE_WORDS,
    ),
    Rule(
        "PHONE",
        re.compile(r"(?<![\w.,/+:\-])\(?\d{2,5}\)?(?:[ .\-/]?\d{2,5}){1,6}(?![\d/]|[.\-:]\d)"),
        0.1,
        lambda text: 7 <= sum(c.isdigit() for c in text) <= 13 and not re.fullmatch(r"\d{4}-\d\d-\d\d", text),
        PHONE_WORDS,
        needs=True,
    ),
    Rule("PHONE", re.compile(r"(?<![\w.,/+:\-])\d{10,11}(?![\w/]|[.\-:]\d)"), 0.2, a_phone, PHONE_WORDS),
    Rule(
        "US_SSN",
        re.compile(r"(?<![\w.\-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w\-]|\.\d)"),
        0.6,
        checks.us_ssn,
        words("ssn|ssns|social security|social|ss#"),
    ),
    Rule(
        "US_SSN",
        re.compile(r"(?<![\w.\-])\d{9}(?![\w\-]|\.\d)"),
        0.3,
        checks.us_ssn,
        words("ssn|ssns|social security|ss#"),
        needs=True,
    ),
    Rule(
        "UK_NINO",
        re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Da-d](?![A-Za-z0-9])"),
        0.6,
        checks.uk_nino,
        words("national insurance|nino|ni number|insurance number"),
    ),
    # One in eleven of all numbers of ten digits passes the check, phones among them: a word for it must stand near.
    Rule(
        "UK_NHS",
        re.compile(r"(?<![\w.+\-])\d{3}[ \-]?\d{3}[ \-]?\d{4}(?![\w\-])"),
        0.6,
        checks.uk_nhs,
        words("nhs|national health|health service|patient number"),
        needs=True,
    ),
    Rule(
        "PASSPORT",
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{0,2}\d{6,9}(?![A-Za-z0-9])", re.I),
        0.2,
        context=words("passport|passports"),
        needs=True,
    ),
    Rule(
        "DRIVER_LICENSE",
        re.compile(
            r"(?<![A-Za-z0-9])(?=[A-Za-z0-9 \-]{0,12}\d{3})[A-Z0-9]{1,9}(?:[- ]?\d{1,8}){0,4}[A-Z0-9]{0,5}"
            r"(?![A-Za-z0-9])"
        ),
        0.2,
        lambda text: 5 <= sum(c.isdigit() for c in text) <= 16,
        words("driver's license|drivers license|driver license|driving licence|driving license|driver's licence"),
        needs=True,
    ),
    Rule(
        "BANK_ACCOUNT",
        re.compile(r"(?<![\w.\-])\d{2}-\d{2}-\d{2}(?![\w\-])|(?<![\w.\-])\d{6,17}(?![\w\-])"),
        0.1,
        context=words("sort code|account number|account no|acct|routing number|routing|bank account|aba"),
        needs=True,
    ),
    Rule("BIRTH_DATE", re.compile(_DATE, re.I), 0.3, context=_BIRTH, needs=True),
    Rule(
        "AGE",
        re.compile(
            r"(?<![\w.])(?P<at>\d{1,3})(?:[ -]?(?:years?|yrs?)[ -]?old|[ -]?y/?o\b|[ -]?years? of age"
            r"|(?=-?,? year[ -]old))"
            r"|(?<![A-Za-z])(?:aged?|turn(?:ed|s|ing)?|i'm|i am|he is|she is|when (?:s?he|i) was)[ :]{1,2}"
            r"(?P<late>\d{1,3})(?![\w%$/:\-]|[.,]\d| (?:minutes|hours|days|weeks|months|times|items|percent|km|miles))",
            re.I,
        ),
        0.6,
    ),
    Rule(
        "PLATE",
        re.compile(r"(?<![A-Za-z0-9])(?=[A-Z0-9 \-]{0,8}\d)[A-Z0-9]{1,4}(?:[ \-]?[A-Z0-9]{1,4}){1,2}(?![A-Za-z0-9])"),
        0.1,
        lambda text: any(c.isalpha() for c in text),
        words("license plate|licence plate|number plate|plate number|plate|plates|registration number|reg no|vrm"),
        needs=True,
    ),
    # United Kingdom since 2001: two letters, two digits, three letters.
    Rule(
        "PLATE",
        re.compile(r"(?<![A-Za-z0-9])[A-HJ-PR-Y]{2}\d{2} ?[A-HJ-PR-Z]{3}(?![A-Za-z0-9])"),
        0.45,
        context=words("plate|car|vehicle|van|registration|reg"),
    ),
]
