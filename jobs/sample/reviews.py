"""Product reviews: stars and words agree, and each product has themes that many of its reviewers come back to."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pyarrow as pa
from catalogue import RUN_DATE, STORES, Language, Product, lasts, read_yaml
from prose import Bags, roughen


def _review(product: Product, stars: int, language: Language, bags: Bags, material: dict[str, Any]) -> str:
    rng = bags.rng
    shared = material[language]
    but = material["but"]
    cities = [getattr(store, language) for store in STORES if (store.country == "CN") == (language == "zh")]
    slots = {"city": lambda: rng.choice(cities)}
    praises = {5: rng.choice((1, 2, 3)), 4: 2, 3: 1, 2: rng.choice((0, 1)), 1: 0}[stars]
    praise = rng.sample(product.pro[language], praises)
    # The first complaint is the product's known weakness: most critics mention it.
    blame = list(product.con[language]) if rng.random() < 0.4 else [rng.choices(product.con[language], [3, 1])[0]]
    blame = {5: [], 4: blame[:1], 3: blame[:1], 2: blame, 1: blame}[stars]
    contexts = [text for text in shared["context"] if lasts(product) or not text.startswith("#d ")]
    context = [bags.draw(contexts).removeprefix("#d ")] if rng.random() < (0.6 if stars > 2 else 0.3) else []
    verdict = [bags.draw(shared["verdict"][stars])] if rng.random() < 0.75 else []
    complaint = [bags.fill(text, slots) for text in blame]
    if complaint and praise:
        turn = rng.choice(but[language])
        first = complaint[0]
        complaint[0] = turn + (first if not turn or first.startswith("I ") else first[0].lower() + first[1:])
    parts = [bags.fill(text, slots) for text in (*context, *praise)] + complaint + verdict
    if rng.random() < 0.2 and verdict:
        parts = [parts[-1], *parts[:-1]]
    text = (" " if language == "en" else "").join(parts)
    return roughen(text, language, rng) if rng.random() < 0.1 else text


def reviews_table(products: list[Product], rng: random.Random) -> pa.Table:
    """(reviews,) 5 to 30 of each product."""
    bags, material = Bags(rng), read_yaml("reviews.yaml")
    seen: set[str] = set()
    rows = []
    for product in products:
        liking = rng.uniform(0.25, 0.95)
        for _ in range(rng.randint(9, 30) if rng.random() < 0.9 else 5):
            language: Language = "en" if rng.random() < 0.6 else "zh"
            weights = [(1 - liking) * 2.2, 1 - liking, 1.0, 1 + liking, 4 * liking]
            stars = rng.choices((1, 2, 3, 4, 5), weights)[0]
            while (text := _review(product, stars, language, bags, material)) in seen:
                pass
            seen.add(text)
            day = RUN_DATE - timedelta(days=int(rng.expovariate(1 / 150)) % 700)
            rows.append((product.id, product.name[language], stars, language, day, text))
    product_id, name, star, languages, days, texts = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "review_id": [f"R{20001 + i}" for i in range(len(rows))],
            "product_id": product_id,
            "product_name": name,
            "stars": pa.array(star, pa.int8()),
            "language": languages,
            "day": pa.array(days, pa.date32()),
            "text": texts,
        }
    )
