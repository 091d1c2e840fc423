"""Names that people understand for clusters of customers, from what is typical of each, in English and Chinese.

A name says how a cluster buys (once, now and then, regularly), whether it still does, and what it spends; each
compared with all customers of the night. Two clusters that would share a name get what tells them apart behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Language = Literal["en", "zh"]

MUCH, LITTLE, OFTEN = 0.7, 0.3, 0.6  # positions of a cluster's median among all customers
REGULAR_ORDERS = 3.0
COOLING, LAPSED = 1.5, 3.0  # recency in typical days between orders
SHORTEST_INTERVAL_DAYS = 7.0  # a week without a purchase is no pause, however often somebody comes
RETURNS_HEAVY = 0.15  # share of purchases that came back


@dataclass(frozen=True)
class Traits:
    """What a name says of a cluster."""

    buys: Literal["once", "sometimes", "often"]
    life: Literal["active", "cooling", "lapsed"]
    spends: Literal["little", "usual", "much"]
    returns: bool


_NOUNS: dict[Language, dict[str, dict[str, str]]] = {
    "en": {
        "once": {"little": "one-time buyers", "usual": "one-time buyers", "much": "one-time big spenders"},
        "sometimes": {
            "little": "occasional small spenders",
            "usual": "occasional buyers",
            "much": "occasional big spenders",
        },
        "often": {"little": "small spenders", "usual": "regulars", "much": "big spenders"},
    },
    "zh": {
        "once": {"little": "一次性买家", "usual": "一次性买家", "much": "一次性大额买家"},
        "sometimes": {"little": "偶尔小额买家", "usual": "偶尔买家", "much": "偶尔大额买家"},
        "often": {"little": "小额常客", "usual": "常客", "much": "大客户"},
    },
}
_LIFE: dict[Language, dict[str, str]] = {
    "en": {"active": "recent ", "often active": "loyal ", "cooling": "cooling ", "lapsed": "lapsed "},
    "zh": {"active": "近期", "often active": "忠诚", "cooling": "渐冷", "lapsed": "流失"},
}
_RETURNS: dict[Language, str] = {"en": "returns-heavy ", "zh": "高退货"}
_EVERYONE: dict[Language, str] = {"en": "all customers", "zh": "全部客户"}
# feature: behind the name of the cluster with less of it, and of the one with more
_APART: dict[Language, dict[str, tuple[str, str]]] = {
    "en": {
        "recency_days": ("seen lately", "longer away"),
        "frequency": ("fewer orders", "more orders"),
        "money": ("lower spend", "higher spend"),
        "average_order": ("small orders", "large orders"),
        "tenure_days": ("newer", "known longer"),
        "interval_days": ("short gaps", "long gaps"),
        "regularity": ("irregular", "steady"),
        "return_share": ("few returns", "more returns"),
        "recent_share": ("slowing", "picking up"),
    },
    "zh": {
        "recency_days": ("近期来过", "久未来过"),
        "frequency": ("订单较少", "订单较多"),
        "money": ("消费较低", "消费较高"),
        "average_order": ("客单价低", "客单价高"),
        "tenure_days": ("较新", "较久"),
        "interval_days": ("间隔短", "间隔长"),
        "regularity": ("不规律", "规律"),
        "return_share": ("退货少", "退货多"),
        "recent_share": ("在放缓", "在增长"),
    },
}
_MORE_OR_LESS: dict[Language, tuple[str, str]] = {"en": ("low {}", "high {}"), "zh": ("{}低", "{}高")}
_BEHIND: dict[Language, tuple[str, str]] = {"en": (", ", ""), "zh": ("（", "）")}  # around what tells twins apart


@dataclass(frozen=True)
class Population:
    """All customers of the night, to compare clusters with: sorted values of features, days between orders."""

    frequency: npt.NDArray[np.float64]
    money: npt.NDArray[np.float64]
    typical_interval_days: float

    @classmethod
    def of(cls, values: Mapping[str, npt.NDArray[np.float64]]) -> Population:
        """From the features of the customers, NaN where unknown. Without a second order, 30 days pass between two."""
        gaps = values["interval_days"]
        gaps = gaps[~np.isnan(gaps)]
        typical = float(np.median(gaps)) if len(gaps) else 30.0
        return cls(np.sort(values["frequency"]), np.sort(values["money"]), max(typical, 1.0))


def traits(typical: Mapping[str, float], population: Population) -> Traits:
    """What to say of a cluster whose members have these median features."""
    orders = typical["frequency"]
    often = orders >= REGULAR_ORDERS and _position(population.frequency, orders) >= OFTEN
    money = _position(population.money, typical["money"])
    # A regular who came every week has lapsed sooner than somebody who comes twice a year.
    interval = typical["interval_days"] if often else population.typical_interval_days
    pause = typical["recency_days"] / max(interval, SHORTEST_INTERVAL_DAYS)
    return Traits(
        buys="once" if orders < 1.5 else "often" if often else "sometimes",
        life="lapsed" if pause > LAPSED else "cooling" if pause > COOLING else "active",
        spends="much" if money >= MUCH else "little" if money <= LITTLE else "usual",
        returns=typical["return_share"] >= RETURNS_HEAVY,
    )


def name(said: Traits, language: Language) -> str:
    """The name of a cluster with these traits, alone."""
    noun = _NOUNS[language][said.buys][said.spends]
    life = _LIFE[language]["often active" if said.buys == "often" and said.life == "active" else said.life]
    if not said.returns:
        return life + noun
    return ("" if said.life == "active" else life) + _RETURNS[language] + noun


def names(
    typical: Sequence[Mapping[str, float]],
    centroids: npt.NDArray[np.float64],
    features: Sequence[str],
    population: Population,
    language: Language,
    kept: Sequence[str | None],
) -> list[str]:
    """A name for each cluster, no two alike, none blank.

    typical: median features of the members; centroids (clusters, features) in scaled units tell twins apart; kept:
    names from last night that stay as they are.
    """
    found = list(kept)
    wanted = {
        i: _EVERYONE[language] if len(typical) == 1 else name(traits(typical[i], population), language)
        for i in range(len(typical))
        if kept[i] is None
    }
    for base in dict.fromkeys(wanted.values()):
        twins = [i for i, w in wanted.items() if w == base]
        taken = {n for n in found if n is not None}
        # Clusters that kept this name, alone or with something behind it, are twins to tell apart from as well.
        rivals = twins + [i for i, n in enumerate(kept) if n is not None and _base(n, language) == base]
        if len(rivals) == 1:
            found[twins[0]] = base
            continue
        feature = int(np.argmax(np.ptp(centroids[rivals], axis=0)))
        low, high = _apart(features[feature], language)
        order = sorted(rivals, key=lambda i: centroids[i, feature])
        for i in twins:
            place = order.index(i)
            behind = low if place == 0 else high if place == len(order) - 1 else ""
            before, after = _BEHIND[language]
            label = _unused(f"{base}{before}{behind}{after}" if behind else base, taken)
            found[i] = label
            taken.add(label)
    assert all(found) and len(set(found)) == len(found), "names are there and differ"
    return [n for n in found if n is not None]


def _position(ordered: npt.NDArray[np.float64], value: float) -> float:
    """Share of the population below the value, its equals counted half."""
    if not len(ordered):
        return 0.5
    below, upto = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
    return float(below + upto) / (2 * len(ordered))


def _apart(feature: str, language: Language) -> tuple[str, str]:
    less, more = _MORE_OR_LESS[language]
    return _APART[language].get(feature) or (less.format(feature), more.format(feature))


def _base(label: str, language: Language) -> str:
    return label.split(_BEHIND[language][0], 1)[0]


def _unused(label: str, taken: set[str]) -> str:
    if label not in taken:
        return label
    number = 2
    while f"{label} {number}" in taken:
        number += 1
    return f"{label} {number}"
