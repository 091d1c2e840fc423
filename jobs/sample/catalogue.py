"""The made-up retailer: its stores, its products and how they are written in two languages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml

Language = Literal["en", "zh"]

RUN_DATE = date(2026, 6, 30)
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Store:
    """A shop. `rate` turns pounds into its currency, `size` scales how much it sells."""

    id: str
    en: str
    zh: str
    country: Literal["GB", "US", "CN"]
    rate: float
    size: float


STORES = (
    Store("LON", "London", "伦敦", "GB", 1.0, 1.6),
    Store("MAN", "Manchester", "曼彻斯特", "GB", 1.0, 0.9),
    Store("EDI", "Edinburgh", "爱丁堡", "GB", 1.0, 0.7),
    Store("NYC", "New York", "纽约", "US", 1.3, 1.4),
    Store("CHI", "Chicago", "芝加哥", "US", 1.3, 0.8),
    Store("SHA", "Shanghai", "上海", "CN", 9.0, 1.8),
    Store("BJS", "Beijing", "北京", "CN", 9.0, 1.3),
    Store("CTU", "Chengdu", "成都", "CN", 9.0, 0.9),
)


@dataclass(frozen=True)
class Product:
    """An article. Texts are by language; `pro` and `con` are the themes that its reviews come back to."""

    id: str
    name: dict[Language, str]
    gbp: float
    kind: str
    fault: dict[Language, str]
    pro: dict[Language, list[str]]
    con: dict[Language, list[str]]

    def price(self, store: Store) -> float:
        """Full price in the store's currency, the way shops write prices."""
        if store.country == "CN":
            return float(round(self.gbp * store.rate / 10) * 10 - 1)
        return round(self.gbp * store.rate) - 0.01


def read_yaml(name: str) -> Any:
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def load_products() -> list[Product]:
    return [
        Product(
            row["id"],
            {"en": row["en"], "zh": row["zh"]},
            float(row["gbp"]),
            row["kind"],
            {"en": row["fault"][0], "zh": row["fault"][1]},
            {"en": row["pro_en"], "zh": row["pro_zh"]},
            {"en": row["con_en"], "zh": row["con_zh"]},
        )
        for row in read_yaml("products.yaml")
    ]


# Which articles a story can be about without sounding odd: a towel does not crack, tea has no spare parts.
_EATEN = frozenset({"P029", "P036", "P037", "P040"})
_SOFT = frozenset({"P012", "P013", "P014", "P015", "P016", "P021", "P022", "P034", "P039"}) | _EATEN
_DEVICES = frozenset({f"P0{n:02d}" for n in (1, 2, 3, 4, 6, 9, 10, 17, 19, 23, 24, 25, 26, 27, 28, 30, 31, 32, 33)})
_ON_A_SHELF = frozenset({"P001", "P002", "P003", "P004", "P006", "P010", "P025", "P026", "P032", "P033"})
_BROKEN_ON_ARRIVAL = frozenset({"P005", "P007", "P008", "P011", "P019", "P020", "P035", "P038"})


def lasts(product: Product) -> bool:
    """Whether it is used for years rather than used up."""
    return product.id not in _EATEN


def suits(product: Product, intent: str) -> bool:
    """Whether a ticket of this intent may be about the product."""
    if intent == "warranty":
        return product.id in _DEVICES
    if intent == "product_question":
        return product.id in _ON_A_SHELF
    if intent == "damaged":
        return product.id not in _SOFT
    return product.id not in _EATEN or intent in ("wrong_item", "cancel_order", "voucher", "billing")


def fault_fits(product: Product, intent: str) -> bool:
    """Whether the product's typical fault may come up in a ticket of this intent."""
    return intent != "damaged" or product.id in _BROKEN_ON_ARRIVAL
