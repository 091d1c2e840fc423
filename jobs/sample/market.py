"""Posts about the retailer and its rivals: reviews of each, and news that name them, with shifts to be found."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from catalogue import RUN_DATE, Language
from prose import Bags, capital

DAYS = 180
_A_DAY = {"fernhollow": 3.0, "aldermoor": 2.2, "birchline": 2.0, "cobalt": 0.6}
_NEWS_A_DAY = 0.7
_LIKED = 0.62  # share of praise, but for these
_KNOWN_FOR = {
    ("fernhollow", "service"): 0.92, ("aldermoor", "price"): 0.9, ("birchline", "quality"): 0.88,
    ("cobalt", "look"): 0.95, ("cobalt", "price"): 0.2, ("aldermoor", "quality"): 0.35,
}  # fmt: skip
STRIKE = date(2026, 6, 8)  # from then on Birchline's deliveries go wrong
RECALL = date(2026, 6, 26)  # for three days the papers write of Aldermoor's kettle
ASPECTS = ("delivery", "price", "quality", "service", "look")


def _praised(brand: str, aspect: str, day: date) -> float:
    if (brand, aspect) == ("birchline", "delivery") and day >= STRIKE:
        return 0.08
    return _KNOWN_FOR.get((brand, aspect), _LIKED)


def _counted(rng: random.Random, mean: float) -> int:
    """Of a Poisson distribution."""
    left, count = 1.0, -1
    while left > 2.718281828459045**-mean:
        left *= rng.random()
        count += 1
    return count


def reviews_table(material: dict[str, Any], rng: random.Random) -> pa.Table:
    """(reviews,) key review_id: each of one brand, of one to three aspects."""
    bags, texts, rows = Bags(rng), material["review"], []
    seen: set[str] = set()
    for back in range(DAYS - 1, -1, -1):
        day = RUN_DATE - timedelta(days=back)
        for brand, mean in _A_DAY.items():
            for _ in range(_counted(rng, mean * (1.3 if day.weekday() >= 5 else 0.9))):
                language: Language = "en" if rng.random() < 0.6 else "zh"
                category = rng.choice(("kitchen", "bedroom"))
                weights = [4 if (brand, aspect) in _KNOWN_FOR else 2 for aspect in ASPECTS]
                if brand == "birchline" and day >= STRIKE:
                    weights[0] = 12
                while True:
                    text = _review(bags, texts, material, brand, language, category, weights, day)
                    if text not in seen or len(text) < 60:
                        break
                seen.add(text)
                rows.append((day, material["brands"][brand]["en"], category, language, text))
    when, brands, categories, languages, bodies = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "review_id": [f"M{30001 + i}" for i in range(len(rows))],
            "day": pa.array(when, pa.date32()),
            "brand": brands,
            "category": categories,
            "language": languages,
            "body": bodies,
        }
    )


def _review(
    bags: Bags,
    texts: dict[str, Any],
    material: dict[str, Any],
    brand: str,
    language: Language,
    category: str,
    weights: list[int],
    day: date,
) -> str:
    rng = bags.rng
    aspects = list(dict.fromkeys(rng.choices(ASPECTS, weights, k=rng.choice((1, 2, 2, 3)))))
    slots = {
        "brand": lambda: material["brands"][brand][language],
        "thing": lambda: bags.draw(texts["things"][language][category]),
        "city": lambda: bags.draw(material["cities"][language]),
    }
    parts = [bags.fill(bags.draw(texts["opener"][language]), slots)] if rng.random() < 0.6 else []
    for aspect in aspects:
        mood = "good" if rng.random() < _praised(brand, aspect, day) else "bad"
        parts.append(bags.fill(bags.draw(texts[language][aspect][mood]), slots))
    return (" " if language == "en" else "").join(map(capital, parts))


def news_table(material: dict[str, Any], rng: random.Random) -> pa.Table:
    """(items,) key news_id: each names one brand or two, in the text alone."""
    bags, texts, rows = Bags(rng), material["news"], []
    for back in range(DAYS - 1, -1, -1):
        day = RUN_DATE - timedelta(days=back)
        kinds = ["recall"] * (6 if RECALL <= day < RECALL + timedelta(days=3) else 0)
        kinds += rng.choices(("good", "bad", "plain", "both"), (3, 2, 2, 2), k=_counted(rng, _NEWS_A_DAY))
        for kind in kinds:
            language: Language = "en" if rng.random() < 0.6 else "zh"
            names = rng.sample(list(material["brands"]), 2)
            if kind == "recall":
                names = ["aldermoor", "cobalt"]
            brand, other = (material["brands"][name][language] for name in names)
            slots = {"brand": lambda brand=brand: brand, "other": lambda other=other: other}
            rows.append((day, language, bags.fill(bags.draw(texts[language][kind]), slots)))
    when, languages, bodies = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "news_id": [f"N{40001 + i}" for i in range(len(rows))],
            "day": pa.array(when, pa.date32()),
            "language": languages,
            "body": bodies,
        }
    )
