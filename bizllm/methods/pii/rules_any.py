"""Rules that hold whatever the language: mail, web and network addresses, cards, accounts, international phones."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bizllm.methods.pii import checks
from bizllm.methods.pii.rules import Rule, words
from bizllm.methods.pii.spans import Span

CARD_WORDS = words(
    "card|credit|debit|visa|mastercard|maestro|amex|cc|卡号|银行卡|信用卡|储蓄卡|借记卡|开户|账号|账户|帐号|打款|转账"
)
PHONE_WORDS = words(
    "phone|phones|telephone|tel|mobile|cell|cellphone|call|called|calling|fax|dial|reach|text|sms|whatsapp|desk|office|"
    "number|ring|registered|contact|电话|手机|座机|联系|致电|拨打|号码|来电|热线|传真|短信|微信"
)

_MAIL = r"[A-Za-z0-9][A-Za-z0-9._%+'\-]{0,63}@(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2,24}"
_TLD = (
    "com|net|org|edu|gov|mil|int|info|biz|io|co|ai|app|dev|cn|uk|us|de|fr|it|es|pt|nl|be|ch|at|se|no|dk|fi|is|pl|cz|sk|"
    "hu|si|hr|rs|ro|bg|gr|cy|mt|ie|lu|ru|ua|by|lt|lv|ee|jp|kr|hk|tw|sg|my|th|vn|id|ph|in|pk|au|nz|za|ng|ke|eg|ma|tn|br|"
    "ar|mx|cl|pe|ve|ca|gl|tv|me|cc|xyz|online|shop|site|top|vip|club|store"
)


class Ibans:
    """The rule for account numbers that pass their check; the same interface as `Rule`. The country says how long one
    is, so that the words behind it are not taken for its end."""

    type = "IBAN"
    _start = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ \-]?[A-Za-z0-9])")
    _rest = re.compile(r"[ \-]?[A-Za-z0-9]")

    def find(self, text: str) -> Iterator[Span]:
        for match in self._start.finditer(text):
            end = match.end()
            for _ in range(checks.iban_length(match[0]) - 4):
                more = self._rest.match(text, end)
                if more is None:
                    break
                end = more.end()
            if not text[end : end + 1].isalnum() and checks.iban(text[match.start() : end]):
                yield Span(match.start(), end, "IBAN", 0.98)


RULES: list[Rule | Ibans] = [
    Rule("EMAIL", re.compile(rf"(?<![A-Za-z0-9._%+\-]){_MAIL}(?![A-Za-z0-9_\-])"), 0.95),
    Rule(
        "URL",
        re.compile(
            r"(?:https?|ftp)://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%\-]{3,2000}(?<![.,;:!?)('\[\]])"
            r"|(?<![A-Za-z0-9@._\-])(?:www\.)(?:[A-Za-z0-9\-]{1,63}\.){1,6}[A-Za-z]{2,24}"
            r"(?:/[A-Za-z0-9._~/?#&=%+\-]{0,500}(?<![.,;:!?]))?",
            re.I,
        ),
        0.9,
    ),
    Rule(
        "URL",
        re.compile(
            rf"(?<![A-Za-z0-9@._\-])(?:[A-Za-z0-9][A-Za-z0-9\-]{{1,62}}\.){{1,4}}(?:{_TLD})(?![A-Za-z0-9@\-])"
            r"(?:/[A-Za-z0-9._~/?#&=%+\-]{0,500}(?<![.,;:!?]))?"
        ),
        0.5,
    ),
    Rule("IP", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\d.]\d|\d)"), 0.8, checks.ip),
    Rule(
        "IP",
        re.compile(
            r"(?<![0-9A-Za-z])(?<![0-9A-Fa-f:]:)(?=[0-9a-f]{0,4}:[0-9a-f:]{0,40}[0-9a-f:])(?:[0-9a-f]{0,4}:){2,7}"
            r"(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]{1,4})?(?:(?<=[0-9a-f])|(?<=::))(?:/\d{1,3})?(?![0-9A-Za-z]|:[0-9A-Fa-f:])",
            re.I,
        ),
        0.8,
        lambda text: checks.ip(text) and sum(c in "0123456789abcdefABCDEF" for c in text) > 3,
    ),
    Ibans(),
    Rule(
        "IBAN",
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}[A-Z0-9]{11,30}(?![A-Za-z0-9])", re.I),
        0.45,
        context=words("iban|account|wire|transfer|bank|账号|账户"),
        needs=True,
    ),
    # A card by its check alone; with a word for it near, also where the check fails: people mistype what they send.
    Rule(
        "CARD",
        re.compile(r"(?<![\d.,+\-])\d{4}(?:[ \-]?\d{4}){2}(?:[ \-]?\d{1,4}){0,2}(?![\d]|[.,\-]\d)"),
        0.7,
        checks.luhn,
        CARD_WORDS,
    ),
    Rule("CARD", re.compile(r"(?<![\d.,+\-])\d{4} ?-?\d{6} ?-?\d{4,5}(?![\d]|[.,\-]\d)"), 0.7, checks.luhn, CARD_WORDS),
    Rule("CARD", re.compile(r"(?<![\d.,+\-])\d{12,19}(?![\d]|[.,\-]\d)"), 0.6, checks.luhn, CARD_WORDS),
    Rule("CARD", re.compile(r"(?<![\d.,+\-])\d(?:[ \-]?\d){11,18}(?![\d])"), 0.2, context=CARD_WORDS, needs=True),
    Rule(
        "PHONE",
        re.compile(
            r"(?<![\w+])(?:\+|00)[1-9]\d{0,2}[ .\-]?(?:\(0?\d{1,4}\)[ .\-]?)?\d{1,5}(?:[ .\-/]?\d{2,5}){1,5}"
            r"(?: ?(?:x|ext\.?) ?\d{1,5})?(?!\d)"
        ),
        0.75,
        lambda text: 8 <= sum(c.isdigit() for c in text) <= 20,
        PHONE_WORDS,
    ),
]
