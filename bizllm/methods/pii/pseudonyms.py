"""Pseudonyms that a key turns back: the same value and key, the same pseudonym, whatever the night, table or column.

A pseudonym is `<TYPE:…>`, the normalised value in AES-SIV (RFC 5297): deterministic and authenticated, with the type as
associated data. What deterministic encryption shows is that two pseudonyms are equal, and how long a value is.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from bizllm.errors import Fault, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

PSEUDONYM = re.compile(r"<([A-Z][A-Z_]{1,30}):([A-Za-z0-9_\-]{22,})>")
_NUMBERS = frozenset(
    (
        "BANK_ACCOUNT",
        "CARD",
        "CN_ID",
        "DRIVER_LICENSE",
        "IBAN",
        "PASSPORT",
        "PLATE",
        "QQ",
        "UK_NHS",
        "UK_NINO",
        "US_SSN",
    )
)
_MARKS = re.compile(r"[\s\-./·()]+")
_HAN_GAP = re.compile(r"(?<=[\u3400-\u9fff])\s+(?=[\u3400-\u9fff])")


def normal(kind: str, value: str) -> str:
    """What a pseudonym stands for, and what comes back: the value without what differs between two ways to write it.

    NFKC and one space for many; phones as digits with a leading +, without China's own code; numbers of cards, accounts
    and papers in capitals without separators; all else in lower case. `URL`s keep their case.
    """
    for _ in range(4):  # what one step takes out may let another join two characters
        before, value = value, _normal(kind, value)
        if value == before:
            break
    return value


def _normal(kind: str, value: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", value).split())
    if kind == "PHONE":
        digits = "".join(c for c in text if c.isdigit())
        if re.fullmatch(r"(?:00)?861[3-9]\d{9}", digits):
            return digits[-11:]
        return f"+{digits}" if text.startswith("+") else f"+{digits[2:]}" if digits.startswith("00") else digits or text
    if kind in _NUMBERS:
        return _MARKS.sub("", text).upper() or text
    if kind == "URL":
        return text
    return _HAN_GAP.sub("", text).lower()


def pseudonym(kind: str, value: str, key: str) -> str:
    """`<PERSON:…>` for a value."""
    sealed = _cipher(key).encrypt(normal(kind, value).encode(), [kind.encode()])
    return f"<{kind}:{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}>"


def unmask(text: str, key: str, *, strict: bool = True) -> str:
    """The text with every pseudonym turned back to its normalised value. One of another key raises UserError,
    or stays, where not `strict`."""

    def back(match: re.Match[str]) -> str:
        from cryptography.exceptions import InvalidTag

        kind, token = match.groups()
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return _cipher(key).decrypt(sealed, [kind.encode()]).decode()
        except (InvalidTag, ValueError, binascii.Error):
            if not strict:
                return match[0]
            raise UserError(Fault("unmask", None, f"a pseudonym of type {kind} was not made with this key")) from None

    return PSEUDONYM.sub(back, text)


@lru_cache(maxsize=8)
def _cipher(key: str) -> AESSIV:
    """AES-256-SIV; its 64 bytes come from the whole of the key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    return AESSIV(hmac.digest(key.encode(), b"bizllm pseudonyms, version 1", "sha512"))
