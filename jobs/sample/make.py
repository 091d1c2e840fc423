"""Writes the sample data: `python jobs/sample/make.py [--out jobs/data]`. The same seed gives the same tables."""

from __future__ import annotations

import argparse
import random
import re
from datetime import date
from pathlib import Path

import market
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from catalogue import RUN_DATE, STORES, Language, Product, load_products, read_yaml
from help import help_tables
from journal import articles_table, clicks_table, order_lines_table, products_table
from labelled import PARTS, labelled_table
from leaflets import leaflets_tables
from notes import notes_tables
from order_mails import Clerk, catalogue_table
from people import Person, customers_table, make_people, orders_table
from replenish import shipments_table, stock_table
from reviews import reviews_table
from sales import sales_table
from tickets import CALM, Desk, created_at

SEED = 20260630
_MAILS_A_DAY = 75
_TICKETS = {date(2026, 6, 29): 390, RUN_DATE: 1014}
_INTENTS = {
    "late_delivery": 15,
    "refund": 13,
    "product_question": 12,
    "damaged": 11,
    "billing": 9,
    "wrong_item": 8,
    "warranty": 8,
    "account": 7,
    "cancel_order": 7,
    "voucher": 6,
    "store_service": 5,
    "praise": 5,
}
_FORMS = {"line": 13, "note": 34, "mail": 24, "chat": 17, "thread": 9, "saga": 3}
_CHANNELS = {
    "line": ["app", "web_form", "chat"],
    "note": ["app", "web_form", "email"],
    "mail": ["email", "web_form"],
    "chat": ["chat"],
    "thread": ["email"],
    "saga": ["email"],
}
# What broken forms and bots leave behind: rows that no summary can be made of.
_UNUSABLE = (None, None, "", "", "   ", " \n\t ")


def tickets_of(day: date, count: int, people: list[Person], desk: Desk, rng: random.Random, seen: set[str]) -> pa.Table:
    """(count,) one day's tickets by time; the run date has a few without a usable body."""
    by_language: dict[Language, list[Person]] = {
        "en": [p for p in people if STORES[p.store].country != "CN"],
        "zh": [p for p in people if STORES[p.store].country == "CN"],
    }
    rows = []
    for number in range(count):
        language: Language = "en" if rng.random() < 0.6 else "zh"
        intent = rng.choices(list(_INTENTS), list(_INTENTS.values()))[0]
        form = rng.choices(list(_FORMS), list(_FORMS.values()))[0]
        if intent in CALM and form in ("thread", "saga"):
            form = "mail"  # nobody fights for weeks over a question or a thank-you
        while True:
            person = rng.choice(by_language[language])
            story = desk.story(intent, language, person, day, (21, 29) if form == "saga" else (2, 14))
            body: str | None = desk.tell(form, story, person, day)
            assert body is not None
            # Longer than a line, two texts must differ in more than their numbers.
            trace = re.sub(r"[\d\s]+", "", body) if len(body) > 120 else body
            if trace not in seen:
                break
            form = "note" if rng.random() < 0.3 else form  # a few one-liners have no slots
        seen.add(trace)
        rule = desk.material[language][intent]["product"]
        named = story.product.name[language].lower() in body.lower()
        product = story.product.id if named or rule in ("always", "fault") else None
        if day == RUN_DATE and number < len(_UNUSABLE):
            body, product = _UNUSABLE[number], None
        rows.append((created_at(rng, day), person.id, rng.choice(_CHANNELS[form]), language, product, intent, body))
    rows.sort(key=lambda row: row[0])
    when, who, channel, languages, products, intents, bodies = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "ticket_id": [f"T{day:%y%m%d}-{i + 1:04d}" for i in range(len(rows))],
            "customer_id": who,
            "created_at": pa.array(when, pa.timestamp("us", "UTC")),
            "channel": channel,
            "language": languages,
            "product_id": pa.array(products, pa.string()),
            "intent": intents,
            "body": pa.array(bodies, pa.string()),
        }
    )


def tables() -> dict[str, pa.Table]:
    """Every table by its path below the output folder."""
    products: list[Product] = load_products()
    people = make_people(random.Random(SEED), 1000)
    rng = random.Random(SEED + 1)
    material = {"en": read_yaml("tickets_en.yaml"), "zh": read_yaml("tickets_zh.yaml")}
    voices = read_yaml("voices.yaml")
    desk, seen = Desk(rng, products, material, voices), set[str]()
    made = {
        f"tickets/dt={day}/part-0.parquet": tickets_of(day, count, people, desk, rng, seen)
        for day, count in _TICKETS.items()
    }
    for number, part in enumerate(PARTS):
        rng = random.Random(SEED + 5 + number)
        desk = Desk(rng, products, material, voices)
        made[f"labelled_tickets/{part}.parquet"] = labelled_table(
            part, _INTENTS, desk, read_yaml("labelled_en.yaml"), people, rng
        )
    articles = articles_table(read_yaml("journal.yaml"), random.Random(SEED + 20))
    made |= help_tables(read_yaml("help.yaml"), RUN_DATE, random.Random(SEED + 8))
    made |= leaflets_tables(read_yaml("leaflets.yaml"), RUN_DATE, random.Random(SEED + 30))
    sales = sales_table(products, SEED)
    clerk = Clerk(read_yaml("order_mails.yaml"), products, random.Random(SEED + 8))
    shops = people[::12]  # those who order for a shop
    mails = clerk.table(shops, list(_TICKETS), _MAILS_A_DAY)
    for number, day in enumerate(_TICKETS):
        made[f"order_mails/dt={day}/part-0.parquet"] = mails.slice(number * _MAILS_A_DAY, _MAILS_A_DAY)
    made |= notes_tables(read_yaml("notes.yaml"), RUN_DATE, random.Random(SEED + 20))
    return made | {
        "content/articles/part-0.parquet": articles,
        "content/clicks/part-0.parquet": clicks_table(articles, people, random.Random(SEED + 21)),
        "content/products/part-0.parquet": products_table(products),
        "content/order_lines/part-0.parquet": order_lines_table(products, people, random.Random(SEED + 22)),
        "market/reviews/part-0.parquet": market.reviews_table(read_yaml("market.yaml"), random.Random(SEED + 9)),
        "market/news/part-0.parquet": market.news_table(read_yaml("market.yaml"), random.Random(SEED + 10)),
        "catalogue/part-0.parquet": catalogue_table(products),
        "reviews/part-0.parquet": reviews_table(products, random.Random(SEED + 2)),
        "sales/part-0.parquet": sales,
        "customers/part-0.parquet": customers_table(people, random.Random(SEED + 3)),
        "orders/part-0.parquet": orders_table(people, np.random.default_rng(SEED + 4)),
        "shipments/part-0.parquet": shipments_table(products, np.random.default_rng(SEED + 20)),
        "stock/part-0.parquet": stock_table(products, sales, np.random.default_rng(SEED + 21)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "data")
    out: Path = parser.parse_args().out
    for name, table in tables().items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd", compression_level=15)


if __name__ == "__main__":
    main()
