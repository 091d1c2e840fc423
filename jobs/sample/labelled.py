"""Tickets that the service desk labelled by hand: short, English; validation and test in words that train never has."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from catalogue import STORES
from people import Person
from tickets import Desk, Story, created_at

_TEMPLATED = 600  # of train: tickets such as those of the nights
_EACH = {"train": 2, "validation": 1, "test": 1}  # tickets of each wording
_DAYS = {"train": 40, "validation": 5, "test": 14}
_FIRST_DAY = {"train": date(2026, 5, 1), "validation": date(2026, 6, 10), "test": date(2026, 6, 15)}
PARTS = tuple(_EACH)


def labelled_table(
    part: str, intents: dict[str, int], desk: Desk, wordings: dict[str, Any], people: list[Person], rng: random.Random
) -> pa.Table:
    """(rows,) one of PARTS, by time. wordings: by intent and part."""
    english = [person for person in people if STORES[person.store].country != "CN"]
    bodies: dict[str, tuple[date, str]] = {}  # body: day, intent
    wanted = [(intent, text) for intent in intents for text in wordings[intent][part] for _ in range(_EACH[part])]
    if part == "train":
        wanted += [(intent, "") for intent in rng.choices(list(intents), list(intents.values()), k=_TEMPLATED)]
    for intent, text in wanted:
        while True:
            person, day = rng.choice(english), _FIRST_DAY[part] + timedelta(days=rng.randrange(_DAYS[part]))
            story = desk.story(intent, "en", person, day, (2, 14))
            body = _told(story, text) if text else desk.tell(rng.choice(("line", "note", "note")), story, person, day)
            if body not in bodies:
                break
        bodies[body] = (day, intent)
    rows = sorted((created_at(rng, day), intent, body) for body, (day, intent) in bodies.items())
    when, labels, texts = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "ticket_id": [f"L{moment:%y%m%d}-{i + 1:04d}" for i, moment in enumerate(when)],
            "created_at": pa.array(when, pa.timestamp("us", "UTC")),
            "channel": [rng.choice(("app", "web_form", "email", "chat")) for _ in rows],
            "language": ["en"] * len(rows),
            "intent": labels,
            "body": texts,
        }
    )


def _told(story: Story, text: str) -> str:
    """The wording, sometimes with a greeting, a sentence about the writer, and an end."""
    rng = story.bags.rng
    parts = [story.voice("greeting")] if rng.random() < 0.4 else []
    parts += story.background(1) if rng.random() < 0.3 else []
    parts.append(story.say(text))
    if rng.random() < 0.3:
        parts.append(story.voice("closing"))
    return story.join(parts)
