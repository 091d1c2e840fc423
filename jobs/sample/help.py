"""The help centre: its articles, past exchanges with their ratings, and the messages of the night."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

_DAYS = 60  # of past exchanges, before the night


def help_tables(topics: dict[str, Any], night: date, rng: random.Random) -> dict[str, pa.Table]:
    """articles, exchanges and messages, each by its file. topics: by name and language."""
    articles, exchanges, messages = [], [], []
    for number, (topic, by_language) in enumerate(topics.items(), 1):
        for language, told in by_language.items():
            if "article" in told:
                title, body = told["article"]
                articles.append((f"H{number:02d}-{language}", language, topic, title, body))
            for asked in told["asked"]:
                for place in rng.sample(range(len(told["replies"])), 2):
                    day = night - timedelta(days=rng.randint(1, _DAYS))
                    exchanges.append((day, language, topic, asked, told["replies"][place], rng.choice((4, 5, 5))))
            if told["asked"]:  # one bad answer for each topic, as it happens
                day = night - timedelta(days=rng.randint(1, _DAYS))
                said = "Please read our terms." if language == "en" else "请看条款。"
                exchanges.append((day, language, topic, told["asked"][0], said, 1))
            messages += [(language, text) for text in told["new"]]
    exchanges.sort(key=lambda row: row[0])
    rng.shuffle(messages)
    minutes = sorted(rng.sample(range(1, 15 * 60), len(messages)))
    at = [datetime.combine(night, time(), UTC) + timedelta(minutes=minute) for minute in minutes]
    return {
        f"messages/dt={night}/part-0.parquet": pa.table(
            {
                "message_id": [f"M{night:%y%m%d}-{i + 1:03d}" for i in range(len(messages))],
                "created_at": pa.array(at, pa.timestamp("us", "UTC")),
                "language": [language for language, _ in messages],
                "body": [text for _, text in messages],
            }
        ),
        "exchanges/part-0.parquet": _table(
            ("day", "language", "intent", "message", "reply", "rating"), exchanges
        ).add_column(0, "exchange_id", pa.array([f"E{i + 1:04d}" for i in range(len(exchanges))])),
        "articles/part-0.parquet": _table(("article_id", "language", "topic", "title", "body"), articles),
    }


def _table(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
