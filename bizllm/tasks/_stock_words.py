"""What `inventory` says of an item, in words."""

from __future__ import annotations

from typing import Any

from bizllm.methods.stock_policy import Policy
from bizllm.tasks._stock import Item

_SAID = {
    "en": {
        "levels": "{on_hand} on hand and {on_order} on order are {side} the reorder point of {reorder}",
        "over": "over",
        "under": "not over",
        "demand": "demand in the {days} days until an order of the next review is there: {mean} on average, "
        "over {high} once in twenty",
        "none": "no demand is expected until an order of the next review is there",
        "expedite": "an order of tonight will rather come too late ({risk:.0%})",
        "and": "; ",
    },
    "zh": {
        "levels": "现有{on_hand}，在途{on_order}，合计{side}再订货点{reorder}",
        "over": "高于",
        "under": "不高于",
        "demand": "到下次检查所下订单到货的{days}天内，需求平均为{mean}，每二十次有一次超过{high}",
        "none": "到下次检查所下订单到货之前，预计没有需求",
        "expedite": "今晚下的订单很可能来不及（{risk:.0%}）",
        "and": "；",
    },
}


def reason(language: str, status: str, item: Item, policy: Policy, high: float, days: float, too_late: float) -> str:
    """high: demand of those days in one case of twenty. too_late: how probably it runs out before an order comes."""
    said = _SAID[language]
    numbers = {
        "on_hand": item.on_hand,
        "on_order": item.on_order,
        "reorder": policy.reorder,
        "days": days,
        "mean": policy.mean,
        "high": high,
    }
    words: dict[str, Any] = {name: _short(value) for name, value in numbers.items()} | {"risk": too_late}
    words["side"] = said["over" if item.on_hand + item.on_order > policy.reorder else "under"]
    parts = ["levels", "demand" if policy.mean > 0 else "none", *(["expedite"] if status == "expedite" else [])]
    return said["and"].join(said[part].format(**words) for part in parts)


def _short(value: float) -> str:
    """1,204; 36; 3.2."""
    return f"{value:,.0f}" if abs(value) >= 20 or value == round(value) else f"{value:.1f}"
