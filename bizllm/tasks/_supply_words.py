"""What `supply` says of an order, in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

_SAID = {
    "en": {
        "waited": "Ordered {} days ago",
        "ahead": ", promised in {} days: {:.0%} to come later",
        "over": ", promised {} days ago",
        "factor": "{} {} {:+.1f} days",
        "and": "; ",
        "list": ", ",
        "waiting": "the wait so far",
        "promise": "the promise",
    },
    "zh": {
        "waited": "{}天前下单",
        "ahead": "，承诺{}天后到货，晚到的概率为{:.0%}",
        "over": "，承诺的日期已过{}天",
        "factor": "{} {} {:+.1f}天",
        "and": "；",
        "list": "，",
        "waiting": "已等待",
        "promise": "承诺",
    },
}
WAITED, PROMISED = "waited", "promised"  # factors that are no columns
_MOST = 3  # factors that a sentence names


def reason(language: str, waited: float, promised: float, probability: float, factors: Sequence[dict[str, Any]]) -> str:
    """waited, promised: days since the order; promised may be NaN. factors: what moves the arrival, the most first."""
    said = _SAID[language]
    text = said["waited"].format(f"{waited:.0f}")
    if not isnan(promised):
        left = promised - waited
        text += said["ahead"].format(f"{left:.0f}", probability) if left > 0 else said["over"].format(f"{-left:.0f}")
    words = {WAITED: said["waiting"], PROMISED: said["promise"]}
    named = [
        said["factor"].format(words.get(of["factor"], of["factor"]), of["value"], of["days"]).replace("  ", " ")
        for of in factors[:_MOST]
    ]
    return text + (said["and"] + said["list"].join(named) if named else "")
