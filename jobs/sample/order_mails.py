"""Trade customers' order mails, in English and Chinese, with what is wrong in some of them, and what stands in each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
from catalogue import STORES, Language, Product, read_yaml
from people import Person

DUPLICATE_DAYS = 7  # an order that comes again within so many days was sent twice
_FAULTS = {
    "": 46,
    "unknown_item": 8,
    "ambiguous_item": 6,
    "quantity_missing": 7,
    "price_differs": 8,
    "total_differs": 7,
    "currency": 4,
    "unit_differs": 4,
    "duplicate": 7,
    "no_items": 7,
}
_SYMBOLS = {"GBP": "£", "USD": "$", "CNY": "¥", "EUR": "€"}
_AMBIGUOUS: dict[Language, list[str]] = {"en": ["lamp", "toys"], "zh": ["小灯", "玩具"]}
_QUANTITIES = [*range(2, 13), 15, 16, 18, 20, 24, 25, 30, 36, 40, 48, 50, 60, 100, 120]
_CARTONS = {"en": "cartons", "zh": "箱"}
_DESKS = ["orders", "buying", "shop"]
_WEEKDAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "zh": "一二三四五六日",
}
LINE = pa.struct([("sku", pa.string()), ("quantity", pa.float64())])
TRUTH = pa.schema(
    [
        ("true_lines", pa.list_(LINE)),
        ("true_faults", pa.list_(pa.string())),
        ("true_number", pa.string()),
        ("true_deliver_by", pa.date32()),
        ("true_total", pa.float64()),
        ("true_phone", pa.string()),
        ("true_email", pa.string()),
    ]
)


def currency_of(person: Person) -> str:
    """What the customer pays in."""
    return {"GB": "GBP", "US": "USD", "CN": "CNY"}[STORES[person.store].country]


def catalogue_table(products: list[Product]) -> pa.Table:
    """(articles x currencies,): an article's price in each currency."""
    said, rows = read_yaml("order_catalogue.yaml"), []
    for product in products:
        for store in (STORES[0], STORES[3], STORES[5]):
            about = said[product.id]
            rows.append(
                {
                    "sku": product.id,
                    "name": product.name["en"],
                    "unit": about["unit"][0],
                    "currency": {"GB": "GBP", "US": "USD", "CN": "CNY"}[store.country],
                    "price": product.price(store),
                    "aliases": [product.name["zh"], *about["aliases"]],
                }
            )
    return pa.Table.from_pylist(rows)


@dataclass(frozen=True)
class Order:
    """What a mail asks for. lines: article (None: none of ours), what it is called, quantity (None: forgotten)."""

    person: Person
    language: Language
    received: datetime
    lines: list[tuple[Product | None, str, int | None]]
    layout: dict[str, Any]
    faults: list[str] = field(default_factory=list)
    number: str | None = None


class Clerk:
    """Writes mails of the given material: templates by language."""

    def __init__(self, material: dict[str, Any], products: list[Product], rng: random.Random) -> None:
        self.material, self.products, self.rng = material, products, rng
        self.about = read_yaml("order_catalogue.yaml")
        names = read_yaml("names.yaml")
        self.first, self.last = names["first"].split(), names["last"].split()

    def table(self, people: list[Person], days: list[date], each: int) -> pa.Table:
        """(days x each,) mails by time, with the truth about each."""
        orders: list[Order] = []
        moments = sorted(
            datetime.combine(day, time(self.rng.randint(7, 18), self.rng.randint(0, 59), i % 60), UTC)
            for day in days
            for i in range(each)
        )
        rows = []
        for number, moment in enumerate(moments):
            order = self.order(people, moment, orders)
            orders.append(order)
            body, truth = self.write(order)
            row = {"mail_id": f"M{moment:%m%d}-{number + 1:04d}", "customer_id": order.person.id}
            rows.append(row | {"received_at": moment, "language": order.language, "body": body, **truth})
        own = [("mail_id", pa.string()), ("customer_id", pa.string()), ("received_at", pa.timestamp("us", "UTC"))]
        return pa.Table.from_pylist(
            rows, schema=pa.schema([*own, ("language", pa.string()), ("body", pa.string()), *TRUTH])
        )

    def order(self, people: list[Person], moment: datetime, earlier: list[Order]) -> Order:
        """A new order, or one that was sent before."""
        rng = self.rng
        fault = rng.choices(list(_FAULTS), list(_FAULTS.values()))[0]
        recent = [o for o in earlier if moment - o.received < timedelta(DUPLICATE_DAYS - 1) and not o.faults]
        if fault == "duplicate" and recent:
            before = rng.choice(recent)
            again = self.layout(before.language, "")
            return replace(before, received=moment, layout=again, faults=["duplicate"])
        person = rng.choice(people)
        language: Language = "zh" if STORES[person.store].country == "CN" else "en"
        fault = "" if fault == "duplicate" else fault
        layout = self.layout(language, fault)
        if fault == "no_items":
            return Order(person, language, moment, [], layout, [fault])
        # A box of what is sold by the box is no fault.
        sold = [p for p in self.products if fault != "unit_differs" or self.about[p.id]["unit"][0] == "pcs"]
        chosen = rng.sample(sold, rng.choices([1, 2, 3, 4, 5, 6], [14, 24, 26, 18, 10, 8])[0])
        quantities = rng.choices(_QUANTITIES, k=len(chosen))
        words = list(self.material["numbers"][language])
        if layout.get("words") and rng.random() < 0.6:
            quantities = [rng.choice(words) for _ in chosen]
        lines: list[tuple[Product | None, str, int | None]] = [
            (product, self.called(product, language, layout), quantity)
            for product, quantity in zip(chosen, quantities, strict=True)
        ]
        place = rng.randrange(len(lines))
        if fault == "unknown_item":
            unknown = rng.choice(self.material[language]["unknown"])
            unknown += " " if language == "zh" and unknown.isascii() else ""
            lines.insert(place, (None, unknown, rng.choice(_QUANTITIES)))
        if fault == "ambiguous_item":
            lines.insert(place, (None, rng.choice(_AMBIGUOUS[language]), rng.choice(_QUANTITIES)))
        if fault == "quantity_missing":
            lines[place] = (lines[place][0], lines[place][1], None)
        numbered = f"{rng.choice(['PO', 'PO-', '45'])}{rng.randint(10000, 99999)}" if rng.random() < 0.5 else None
        return Order(person, language, moment, lines, layout, [fault] if fault else [], numbered)

    def layout(self, language: Language, fault: str) -> dict[str, Any]:
        """How the lines are laid out, so that the fault can be seen in it."""
        layouts = self.material[language]["layouts"]
        if fault in ("price_differs", "currency"):
            layouts = [layout for layout in layouts if "priced" in layout]
        if fault in ("unknown_item", "ambiguous_item"):
            layouts = [one for one in layouts if "{item}" in one["line"]]
        if fault == "unit_differs":
            layouts = [layout for layout in layouts if "{unit}" in layout["line"]]
        layout: dict[str, Any] = self.rng.choice(layouts)
        return layout

    def called(self, product: Product, language: Language, layout: dict[str, Any]) -> str:
        """What a customer calls it: its name, another name of it, its number; sometimes misspelled."""
        rng = self.rng
        chinese = language == "zh"
        others = [
            a for a in self.about[product.id]["aliases"] if a.isascii() != chinese and a not in _AMBIGUOUS[language]
        ]
        form = rng.choices(["name", "alias", "sku", "both"], [46, 32, 10, 12])[0]
        name = product.name[language] if form in ("name", "both") else rng.choice(others)
        if form == "sku":
            return f"{product.id} " if chinese else product.id  # nobody could read P00112个
        if rng.random() < 0.15 and len(name) > 3 + 5 * (not chinese):
            name = _MISSPELL[rng.choice(self.material["misspellings"])](name, rng)
        elif not chinese and layout.get("words") and name[-1] not in "sehx" and rng.random() < 0.7:
            name += "s"
        if rng.random() < 0.12:
            name = name.lower()
        return f"{name} ({product.id})" if form == "both" else name

    def write(self, order: Order) -> tuple[str, dict[str, Any]]:
        """(the mail, what stands in it)."""
        rng, said = self.rng, self.material[order.language]
        currency = "EUR" if "currency" in order.faults else currency_of(order.person)
        lines, total = self.lines(order, currency)
        totalled = total is not None and ("total_differs" in order.faults or rng.random() < 0.4)
        stated = total if totalled and total is not None else None
        if stated is not None and "total_differs" in order.faults:
            stated = round(stated * rng.choice([0.9, 1.1, 1.25]) + 1, 2)
        day = (order.received + timedelta(rng.randint(3, 20))).date()
        style = rng.choice(said["days"])
        if style == "weekday":
            day = order.received.date() + timedelta(7 - order.received.weekday() + rng.randint(0, 4))
        timed = rng.random() < 0.5
        person = self.buyer(order)
        contact = {
            "person": person,
            "phone": f"1{rng.choice('3578')}{rng.randint(10**8, 10**9 - 1)}"
            if order.language == "zh"
            else f"+44 20 7946 0{rng.randint(100, 999)}",
            "email": f"{rng.choice(_DESKS)}{rng.randint(1, 99)}@example.{rng.choice(['com', 'org'])}",
        }
        closing = rng.choice(said["closings"])
        nothing = rng.choice(said["nothing"])
        parts = [
            rng.choice(said["openings"]),
            nothing if not order.lines else "",
            lines,
            rng.choice(said["totals"]).format(total=_money(stated, currency)) if stated is not None else "",
            rng.choice(said["purchase_orders"]).format(po=order.number) if order.number else "",
            rng.choice(said["deadlines"]).format(day=self.day(day, style, order.language)) if timed else "",
            rng.choice(said["asides"]) if rng.random() < 0.35 else "",
            closing.format(**contact),
            rng.choice(said["quoted"]) if rng.random() < 0.2 else "",
        ]
        truth = {
            "true_lines": [{"sku": p.id, "quantity": quantity} for p, _, quantity in order.lines if p is not None],
            "true_faults": order.faults,
            "true_number": order.number,
            "true_deliver_by": day if timed else None,
            "true_total": stated,
            "true_phone": contact["phone"] if "{phone}" in closing else None,
            "true_email": contact["email"] if "{email}" in closing else None,
        }
        return "\n\n".join(part for part in parts if part), truth

    def lines(self, order: Order, currency: str) -> tuple[str, float | None]:
        """(the order's lines, what they cost together; None where that can't be said)."""
        if not order.lines:
            return "", None
        rng, layout, said, total = self.rng, order.layout, [], 0.0
        priced = "priced" in layout and ({"price_differs", "currency"} & {*order.faults} or rng.random() < 0.6)
        wrong = rng.randrange(len(order.lines)) if {"price_differs", "unit_differs"} & {*order.faults} else -1
        worded = layout.get("words") and rng.random() < 0.6
        for at, (product, called, quantity) in enumerate(order.lines):
            # Nobody knows what another shop's article costs here.
            price = product.price(STORES[order.person.store]) if product is not None else 19.99
            if at == wrong and "price_differs" in order.faults:
                price = round(price * rng.choice([0.85, 0.9, 1.15]), 2)
            total += price * (quantity or 0)
            numbers = self.material["numbers"][order.language]
            sku, name = (product.id, product.name[order.language]) if product is not None else ("", called)
            slots = {
                "n": at + 1,
                "qty": numbers.get(quantity, quantity) if worded else quantity,
                "item": called,
                "sku": sku,
                "name": name,
                "unit": _CARTONS[order.language]
                if at == wrong and "unit_differs" in order.faults
                else self.unit(product, order.language),
                "price": _money(price, currency),
                "number": f"{price:.2f}",
                "amount": _money(price * (quantity or 0), currency),
            }
            form = "bare" if quantity is None else "priced" if priced else "line"
            said.append(layout[form].format(**slots))
        joined = layout["join"].join(said)
        if "last" in layout and len(said) > 1:
            joined = layout["last"].join([layout["join"].join(said[:-1]), said[-1]])
        head = f"{layout['head']}\n" if "head" in layout else ""
        whole = all(product is not None and quantity is not None for product, _, quantity in order.lines)
        return layout.get("wrap", "{lines}").format(lines=head + joined), round(total, 2) if whole else None

    def unit(self, product: Product | None, language: Language) -> str:
        """What one of it is called."""
        return str(self.about[product.id if product is not None else "P001"]["unit"][language == "zh"])

    def buyer(self, order: Order) -> str:
        """Who signs."""
        if order.language == "zh":
            return order.person.name
        return f"{self.rng.choice(self.first)} {self.rng.choice(self.last)}"

    def day(self, day: date, style: str, language: Language) -> str:
        """The day as the mail writes it; `weekday`: one of the next calendar week."""
        if style != "weekday":
            return day.strftime(style).replace("{m}", str(day.month)).replace("{d}", str(day.day))
        name = _WEEKDAYS[language][day.weekday()]
        return f"next {name}" if language == "en" else f"下周{name}"


def _money(amount: float, currency: str) -> str:
    return f"{_SYMBOLS[currency]}{amount:,.2f}"


def _swap(name: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(name) - 2)
    return name[:at] + name[at + 1] + name[at] + name[at + 2 :]


def _drop(name: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(name) - 1)
    return name[:at] + name[at + 1 :]


def _double(name: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(name) - 1)
    return name[:at] + name[at] + name[at:]


def _truncate(name: str, rng: random.Random) -> str:
    return name[:-1]


_MISSPELL: dict[str, Callable[[str, random.Random], str]] = {
    "swap": _swap,
    "drop": _drop,
    "double": _double,
    "truncate": _truncate,
}
