"""Daily sales of two years by store and article: counts, not noise around a curve."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from catalogue import RUN_DATE, STORES, Product, Store
from festivals import festival_factor, in_sale

FIRST_DAY = date(2024, 7, 1)
DAYS = [FIRST_DAY + timedelta(days=i) for i in range((RUN_DATE - FIRST_DAY).days + 1)]
Floats = npt.NDArray[np.float64]
Row = tuple[date, int, float, bool]
Kind = Literal["regular", "intermittent", "new", "discontinued", "constant"]

_REGULAR = ("P001", "P004", "P013", "P014", "P018", "P023", "P032", "P033", "P037")  # sold in every store
_INTERMITTENT = ("P008", "P030", "P031", "P035")
_NEW = {("LON", "P026"): 20, ("SHA", "P026"): 35, ("NYC", "P027"): 60, ("BJS", "P027"): 90, ("CTU", "P034"): 120}
_TOO_NEW = {("EDI", "P034"): 4}
_DISCONTINUED = ("MAN", "P002")
_CONSTANT = ("CHI", "P038")  # a hotel's standing order
_SUMMER = {"P033": 1.1, "P018": 0.45, "P032": -1.2, "P014": 0.15, "P001": -0.2, "P004": -0.1}
_A_DAY = {"P001": 9, "P004": 7, "P013": 6, "P014": 14, "P018": 12, "P023": 8, "P032": 6, "P033": 7, "P037": 40}
# The week from Monday to Sunday: Chinese malls live on the weekend, British Sundays are short.
_WEEK = {
    "GB": (0.85, 0.82, 0.88, 0.97, 1.12, 1.45, 0.91),
    "US": (0.84, 0.84, 0.88, 0.95, 1.12, 1.30, 1.07),
    "CN": (0.83, 0.82, 0.84, 0.88, 1.08, 1.34, 1.21),
}


def series_kinds() -> dict[tuple[str, str], Kind]:
    """Every (store, sku) that is sold, and what it stands for."""
    kinds: dict[tuple[str, str], Kind] = {(store.id, sku): "regular" for store in STORES for sku in _REGULAR}
    kinds |= {(store.id, sku): "intermittent" for store in STORES[::3] for sku in _INTERMITTENT}
    kinds |= dict.fromkeys((*_NEW, *_TOO_NEW), "new")
    return kinds | {_DISCONTINUED: "discontinued", _CONSTANT: "constant"}


def _counts(rng: np.random.Generator, mean: Floats, dispersion: float) -> npt.NDArray[np.int64]:
    """(days,) negative binomial with variance mean + mean² / dispersion, as a gamma mixture of Poissons."""
    return rng.poisson(mean * rng.gamma(dispersion, 1 / dispersion, len(mean)))


def _promotions(rng: np.random.Generator, store: Store) -> Floats:
    """(days,) the share taken off the price: the chain's sales, and some weeks of the store's own."""
    off = np.where([in_sale(day, store.country) for day in DAYS], 0.25, 0.0)
    for start in rng.integers(0, len(DAYS) - 14, 9):
        length = int(rng.integers(4, 12))
        off[start : start + length] = np.maximum(off[start : start + length], rng.choice([0.1, 0.15, 0.2, 0.3]))
    return off


def _expected(store: Store, sku: str, off: Floats, rng: np.random.Generator) -> Floats:
    """(days,) mean units: level x trend x year x week x festivals x promotion."""
    t = np.arange(len(DAYS))
    level = _A_DAY.get(sku, 6) * store.size * rng.lognormal(0, 0.2)
    trend = np.exp(rng.normal(0.08, 0.15) * t / 365.25)
    # The warmest day is near 20 July, in all of the cities.
    phase = np.array([day.timetuple().tm_yday - 201 for day in DAYS])
    year = np.exp(_SUMMER.get(sku, 0.0) * np.cos(2 * np.pi * phase / 365.25))
    week = np.array([_WEEK[store.country][day.weekday()] for day in DAYS])
    feast = np.array([festival_factor(day, store.country) for day in DAYS])
    # Food is bought every week and takes less part in the festivals than presents do.
    feast = np.where(feast > 0, feast ** (0.4 if sku == "P037" else 1.0), 0.0)
    # On the chain's own sale days the festival's factor holds what the offers bring.
    chain = np.array([in_sale(day, store.country) for day in DAYS])
    uplift = np.exp(rng.uniform(2.2, 3.6) * np.where(chain, 0.0, off))
    return np.asarray(level * trend * year * week * feast * uplift, np.float64)


def _series(store: Store, product: Product, kind: Kind, rng: np.random.Generator) -> list[Row]:
    """Rows (day, units, price, promo) of one series."""
    full = product.price(store)
    if kind == "constant":
        return [(day, 5, full, False) for day in DAYS]
    off = _promotions(rng, store)
    price = np.round(full * (1 - off), 2)
    if kind == "intermittent":
        rate = 0.06 * store.size * np.array([festival_factor(day, store.country) for day in DAYS])
        sold = np.where(rng.random(len(DAYS)) < rate * (1 + 3 * off), rng.geometric(0.65, len(DAYS)), 0)
        sales = zip(DAYS, sold, price, off, strict=True)
        return [(day, int(units), float(p), bool(o > 0)) for day, units, p, o in sales if units]
    units = _counts(rng, _expected(store, product.id, off, rng), dispersion=9.0)
    keep = np.ones(len(DAYS), bool)
    # Out of stock: half of the shops report 0, the other half send no row at all.
    for start in rng.integers(30, len(DAYS) - 45, int(rng.poisson(1.5))):
        gap = slice(int(start), int(start + rng.integers(3, 13)))
        units[gap] = 0
        keep[gap] = rng.random() < 0.5
    age = (_NEW | _TOO_NEW).get((store.id, product.id))
    if age is not None:
        keep[: len(DAYS) - age] = False
    if kind == "discontinued":
        end = (date(2025, 11, 20) - FIRST_DAY).days
        units[end - 60 : end] = rng.poisson(np.linspace(5, 0.5, 60))  # selling off what is left
        keep[end:] = False
    rows = zip(DAYS, units, price, off, keep, strict=True)
    return [(day, int(n), float(p), bool(o > 0)) for day, n, p, o, kept in rows if kept]


def sales_table(products: list[Product], seed: int) -> pa.Table:
    """(rows,) by store, sku, day. Each series has a generator of its own, so that adding one moves no other."""
    by_id, stores = {product.id: product for product in products}, {store.id: store for store in STORES}
    parts = []
    for (store, sku), kind in sorted(series_kinds().items()):
        rng = np.random.default_rng([seed, *(store + sku).encode()])
        day, units, price, promo = (list(c) for c in zip(*_series(stores[store], by_id[sku], kind, rng), strict=True))
        parts.append(
            pa.table(
                {
                    "day": pa.array(day, pa.date32()),
                    "store": pa.array([store] * len(day)),
                    "sku": pa.array([sku] * len(day)),
                    "units": pa.array(units, pa.int32()),
                    "price": pa.array(price, pa.float64()),
                    "promo": pa.array(promo, pa.bool_()),
                }
            )
        )
    return pa.concat_tables(parts).combine_chunks()
