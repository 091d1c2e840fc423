"""The shop's journal, who reads it, and what its readers buy: made for `jobs/content.yaml`."""

from __future__ import annotations

import random
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pyarrow as pa
from catalogue import RUN_DATE, STORES, Product
from people import Person

READERS = 240
_LATER_DAYS = 3  # articles and clicks of after the run date: no task may look at them
_UNSOLD = {"P034", "P036"}  # new in the catalogue: nobody bought them yet


def articles_table(topics: dict[str, Any], rng: random.Random) -> pa.Table:
    """(articles,) by time, over the last six weeks."""
    rows = []
    for topic, languages in topics.items():
        for language, material in languages.items():
            for title, lead in material["articles"].items():
                body = [lead, *rng.sample(material["more"], 4)]
                out = _moment(rng, rng.randint(-_LATER_DAYS, 42))
                rows.append((out, language, topic, title, (" " if language == "en" else "").join(body)))
    rows.sort()
    when, language, topic, title, body = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "article_id": [f"J{number + 1:03d}" for number in range(len(rows))],
            "published_at": pa.array(when, pa.timestamp("us", "UTC")),
            "language": language,
            "topic": topic,
            "title": title,
            "body": body,
        }
    )


def clicks_table(articles: pa.Table, people: list[Person], rng: random.Random) -> pa.Table:
    """(clicks,) by time. A reader has one or two topics, and reads one article in eight of another."""
    rows = []
    every = articles.to_pylist()
    for person in rng.sample(people, READERS):
        language = "zh" if STORES[person.store].country == "CN" else "en"
        liked = rng.sample(sorted({row["topic"] for row in every}), rng.choice((1, 1, 2)))
        own = [row for row in every if row["language"] == language]
        likely = [row for row in own if row["topic"] in liked]
        for _ in range(rng.randint(2, 9)):
            article = rng.choice(likely if rng.random() > 0.125 else own)
            last = RUN_DATE + timedelta(days=_LATER_DAYS)
            at = article["published_at"] + timedelta(minutes=rng.randint(5, 60 * 24 * 12))
            if at.date() <= last:
                rows.append((at, person.id, article["article_id"], rng.randint(4, 300)))
    rows.sort()
    when, reader, article, seconds = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "click_id": [f"K{number + 1:05d}" for number in range(len(rows))],
            "reader_id": reader,
            "article_id": article,
            "clicked_at": pa.array(when, pa.timestamp("us", "UTC")),
            "seconds": pa.array(seconds, pa.int32()),
        }
    )


def products_table(products: list[Product]) -> pa.Table:
    """(products,) the catalogue."""
    return pa.table(
        {
            "product_id": [product.id for product in products],
            "name": [product.name["en"] for product in products],
            "name_zh": [product.name["zh"] for product in products],
            "kind": [product.kind for product in products],
            "description": [_described(product) for product in products],
            "gbp": [product.gbp for product in products],
        }
    )


def order_lines_table(products: list[Product], people: list[Person], rng: random.Random) -> pa.Table:
    """(lines,) by time, of the last 200 days. A customer likes two kinds of products, and comes back for food."""
    rows = []
    sold = [product for product in products if product.id not in _UNSOLD]
    kinds = sorted({product.kind for product in sold})
    for person in rng.sample(people, 500):
        liked = rng.sample(kinds, 2)
        likely = [product for product in sold if product.kind in liked or product.kind == "food"]
        for _ in range(rng.randint(1, 6)):
            at = _moment(rng, rng.randint(-_LATER_DAYS, 200))
            for product in rng.sample(likely, min(len(likely), rng.randint(1, 4))):
                other = rng.random() < 0.15
                rows.append((at, person.id, (rng.choice(sold) if other else product).id, rng.choice((1, 1, 1, 2))))
    for at, customer, product, _ in rng.sample(rows, 60):  # sent back a week later
        rows.append((at + timedelta(days=7), customer, product, -1))
    rows.sort()
    when, who, what, many = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "line_id": [f"L{number + 1:05d}" for number in range(len(rows))],
            "customer_id": who,
            "product_id": what,
            "ordered_at": pa.array(when, pa.timestamp("us", "UTC")),
            "quantity": pa.array(many, pa.int32()),
        }
    )


def _described(product: Product) -> str:
    """Its name, its kind, and what people like about it."""
    liked = [text.strip("()").split("|")[0] for text in product.pro["en"]]
    return f"{product.name['en']} ({product.name['zh']}), {product.kind}. {' '.join(liked)}"


def _moment(rng: random.Random, back: int) -> datetime:
    """So many days before the run date, in the day."""
    return datetime.combine(RUN_DATE, time(6), UTC) - timedelta(days=back) + timedelta(seconds=rng.randint(0, 57_600))
