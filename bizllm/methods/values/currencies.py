"""What currencies are called. Apart from the readers of amounts: settings are checked with it, and it must import in no
time."""

from __future__ import annotations

# What people write for a currency, before or behind the number. ¥ is taken for the yuan.
CODES = {
    "CNY": "¥|￥|RMB|CNY|人民币|元人民币|yuan|元|块钱|块|塊|圆",
    "USD": "US$|$|USD|美元|美金|dollars|dollar|bucks",
    "GBP": "£|GBP|英镑|pounds sterling|pounds|pound|quid",
    "EUR": "€|EUR|欧元|euros|euro",
    "HKD": "HK$|HKD|港币|港元",
    "TWD": "NT$|TWD|新台币",
    "JPY": "JP¥|JPY|日元|円|yen",
    "CAD": "CA$|CAD|加元",
    "AUD": "A$|AUD|澳元",
    "SGD": "S$|SGD|新加坡元",
    "CHF": "CHF|瑞士法郎",
    "INR": "₹|INR|rupees",
    "KRW": "₩|KRW|韩元",
}
CURRENCIES = {word.lower(): code for code, words in CODES.items() for word in words.split("|")}


def currency(word: str) -> str | None:
    """The ISO code that a word or mark stands for."""
    return CURRENCIES.get(word.strip().lower())
