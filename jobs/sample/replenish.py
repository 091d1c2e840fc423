"""What the shop has on its shelves, what is on its way there, and how long suppliers took before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from catalogue import RUN_DATE, STORES, Product
from sales import series_kinds

_YEAR, _ORDERS = 365, 1500  # days of history, orders in them
_PACKS = {"kitchen": 4, "home": 6, "textile": 10, "outdoor": 6, "kids": 8, "electronics": 5, "personal": 12, "food": 24}
_LEFT_OUT = ("MAN", "P002")  # discontinued: the shop keeps no stock of it


@dataclass(frozen=True)
class Supplier:
    """name: as on invoices. days: it takes beyond the way, on average; spread: of the logarithm; share: of orders."""

    name: str
    origin: str
    kinds: tuple[str, ...]
    days: float
    spread: float
    share: float


_SUPPLIERS = (
    Supplier("宁波海川家居有限公司", "宁波", ("kitchen", "home"), 9, 0.18, 0.24),
    Supplier("佛山瑞新电器厂", "佛山", ("electronics", "personal"), 14, 0.34, 0.18),
    Supplier("绍兴云织纺织", "绍兴", ("textile",), 7, 0.14, 0.13),
    Supplier("东莞童趣玩具", "东莞", ("kids",), 11, 0.25, 0.10),
    Supplier("Staffordshire Pottery Works", "Stoke-on-Trent", ("kitchen", "home"), 8, 0.22, 0.11),
    Supplier("Jaipur Block Print Co.", "Jaipur", ("textile", "home"), 19, 0.40, 0.06),
    Supplier("Cortiça do Porto, Lda.", "Porto", ("outdoor", "home"), 10, 0.20, 0.09),
    Supplier("Hudson Valley Foods", "Albany", ("food",), 4, 0.15, 0.06),
    Supplier("温州新锐五金", "温州", ("outdoor", "kitchen"), 16, 0.30, 0.03),
)
# Warehouses by the country of their stores: days of the way from Asia, Europe and America by each carrier.
_REGIONS = {"GB": "Felixstowe", "US": "Newark", "CN": "上海"}
_ASIA, _AMERICA = {"宁波", "佛山", "绍兴", "东莞", "温州", "Jaipur"}, {"Albany"}
_WAYS = {
    ("asia", "GB"): {"海运 Sea": 34, "中欧班列 Rail": 20, "空运 Air": 6},
    ("asia", "US"): {"海运 Sea": 29, "空运 Air": 6},
    ("asia", "CN"): {"卡车 Road": 3},
    ("europe", "GB"): {"卡车 Road": 3, "海运 Sea": 6},
    ("europe", "US"): {"海运 Sea": 16, "空运 Air": 5},
    ("europe", "CN"): {"海运 Sea": 33, "空运 Air": 7},
    ("america", "GB"): {"海运 Sea": 15, "空运 Air": 5},
    ("america", "US"): {"卡车 Road": 2},
    ("america", "CN"): {"海运 Sea": 27, "空运 Air": 7},
}
_CARRIER_DELAY = {"海运 Sea": 0.22, "中欧班列 Rail": 0.12, "空运 Air": 0.10, "卡车 Road": 0.08}  # of the logarithm


def shipments_table(products: list[Product], rng: np.random.Generator) -> pa.Table:
    """(orders,) a year of orders at suppliers; what had not come on the run date has no arrival."""
    shares = np.array([supplier.share for supplier in _SUPPLIERS])
    rows = []
    for number in range(_ORDERS):
        supplier = _SUPPLIERS[rng.choice(len(_SUPPLIERS), p=shares / shares.sum())]
        country = str(rng.choice(["GB", "US", "CN"], p=[0.45, 0.25, 0.3]))
        region = "asia" if supplier.origin in _ASIA else "america" if supplier.origin in _AMERICA else "europe"
        ways = _WAYS[region, country]
        carrier = list(ways)[min(int(rng.exponential(0.7)), len(ways) - 1)]
        own = [product for product in products if product.kind in supplier.kinds]
        product = own[rng.integers(len(own))]
        ordered = RUN_DATE - timedelta(days=int(rng.integers(0, _YEAR)))
        usual = supplier.days + ways[carrier]
        spread = np.hypot(supplier.spread * supplier.days / usual, _CARRIER_DELAY[carrier] / 2)
        took = usual * np.exp(rng.gumbel(-0.45, 0.8) * spread)
        if rng.random() < 0.03:
            took += rng.exponential(12)  # at customs, or on the wrong quay
        if "Sea" in carrier and 20 <= (ordered - date(2026, 1, 1)).days < 55:
            took += 9  # ports stand still around the Spring Festival
        # What is promised knows the way, and thinks every supplier takes ten days.
        promised = ordered + timedelta(days=round((10 + ways[carrier]) * rng.uniform(0.97, 1.12)))
        arrived = ordered + timedelta(days=max(round(took), 1))
        packs = int(rng.integers(2, 20))
        lane = f"{supplier.origin} → {_REGIONS[country]}"
        came = arrived if arrived <= RUN_DATE else None
        rows.append(
            (ordered, number, supplier.name, lane, carrier, product.id, packs * _PACKS[product.kind], promised, came)
        )
    rows.sort(key=lambda row: row[:2])
    ordered_on, _, names, lanes, carriers, skus, units, promises, arrivals = (list(c) for c in zip(*rows, strict=True))
    return pa.table(
        {
            "po_id": [f"PO{i + 1:05d}" for i in range(len(rows))],
            "supplier": names,
            "lane": lanes,
            "carrier": carriers,
            "sku": skus,
            "units": pa.array(units, pa.int32()),
            "ordered_on": pa.array(ordered_on, pa.date32()),
            "promised_on": pa.array(promises, pa.date32()),
            "arrived_on": pa.array(arrivals, pa.date32()),
        }
    )


def stock_table(products: list[Product], sales: pa.Table, rng: np.random.Generator) -> pa.Table:
    """(store, sku) what is on the shelf and on its way from the warehouse, and its costs in the store's currency."""
    by_id, stores = {product.id: product for product in products}, {store.id: store for store in STORES}
    lately = dict.fromkeys(series_kinds(), 0)
    first = RUN_DATE - timedelta(days=27)
    for store, sku, day, units in zip(*(sales[c].to_pylist() for c in ("store", "sku", "day", "units")), strict=True):
        if day >= first:
            lately[store, sku] += units
    rows = []
    for (store, sku), sold in sorted(lately.items()):
        if (store, sku) == _LEFT_OUT:
            continue
        product, price = by_id[sku], by_id[sku].price(stores[store])
        lead = {"GB": 4.0, "US": 6.0, "CN": 3.0}[stores[store].country] + (2.0 if product.kind == "home" else 0.0)
        pack = _PACKS[product.kind]
        coming = pack * int(rng.integers(1, 4)) if sold and rng.random() < 0.3 else 0
        rows.append(
            {
                "store": store,
                "sku": sku,
                "on_hand": round(sold / 28 * rng.uniform(0, 18)),
                "on_order": coming,
                "lead_days": lead,
                "lead_sd": round(0.3 * lead, 1),
                "holding": round(0.55 * price * 0.25 / 365, 5),
                "margin": round(0.45 * price, 2),
                "order_cost": round(2.5 * stores[store].rate, 2),
                "pack_size": pack,
                "counted_on": RUN_DATE,
            }
        )
    types = {"on_hand": pa.int32(), "on_order": pa.int32(), "pack_size": pa.int32(), "counted_on": pa.date32()}
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    return pa.table(columns)
