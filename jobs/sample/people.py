"""Made-up customers and their orders: eight kinds of behaviour that a segmentation should find again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
from catalogue import RUN_DATE, STORES, read_yaml


@dataclass(frozen=True)
class Habit:
    """How one kind of customer buys. Days count back from the run date."""

    share: float
    first: tuple[int, int]  # the first order was this many days ago
    last: tuple[int, int]  # and nothing was bought in the last so many days
    gap_days: float  # mean days between orders; 0 means one single order
    gbp: float  # typical order
    items: float
    discount: float  # probability that an order used an offer
    returned: float  # probability that an order came back
    online: float


HABITS = {
    "loyal": Habit(0.12, (500, 725), (0, 6), 13, 140, 4.5, 0.15, 0.04, 0.5),
    "bargain": Habit(0.18, (300, 720), (0, 30), 34, 32, 3.0, 0.92, 0.07, 0.8),
    "new": Habit(0.13, (5, 55), (0, 4), 16, 55, 2.0, 0.35, 0.06, 0.85),
    "regular": Habit(0.19, (300, 720), (0, 30), 48, 62, 2.4, 0.25, 0.05, 0.4),
    "lapsing": Habit(0.12, (450, 720), (95, 180), 30, 75, 2.6, 0.30, 0.06, 0.45),
    "lost": Habit(0.10, (500, 728), (330, 480), 55, 48, 2.0, 0.30, 0.08, 0.4),
    "once": Habit(0.10, (60, 700), (0, 0), 0, 38, 1.4, 0.45, 0.06, 0.7),
    "returner": Habit(0.06, (250, 700), (0, 20), 24, 95, 3.2, 0.35, 0.55, 0.97),
}


@dataclass(frozen=True)
class Person:
    """A customer, with what the tickets need to know."""

    id: str
    name: str
    store: int
    habit: str
    joined: date


def make_people(rng: random.Random, count: int) -> list[Person]:
    names = read_yaml("names.yaml")
    first, last, given = (names[part].split() for part in ("first", "last", "given"))
    kinds = rng.choices(list(HABITS), [habit.share for habit in HABITS.values()], k=count)
    people = []
    for number, kind in enumerate(kinds):
        store = rng.choices(range(len(STORES)), [s.size for s in STORES])[0]
        chinese = STORES[store].country == "CN"
        name = (
            rng.choice(names["surnames"]) + rng.choice(given) if chinese else f"{rng.choice(first)} {rng.choice(last)}"
        )
        joined = RUN_DATE - timedelta(days=rng.randint(*HABITS[kind].first))
        people.append(Person(f"C{10001 + number * 7}", name, store, kind, joined))
    return people


def customers_table(people: list[Person], rng: random.Random) -> pa.Table:
    """(people,) one row a customer."""
    born = [None if rng.random() < 0.18 else int(rng.triangular(1940, 2007, 1986)) for _ in people]
    return pa.table(
        {
            "customer_id": [p.id for p in people],
            "name": [p.name for p in people],
            "city": [STORES[p.store].en for p in people],
            "country": [STORES[p.store].country for p in people],
            "joined": pa.array([p.joined for p in people], pa.date32()),
            "birth_year": pa.array(born, pa.int32()),
            "marketing_opt_in": [rng.random() < 0.55 for _ in people],
        }
    )


def _order_days(person: Person, rng: np.random.Generator) -> list[date]:
    """The first order falls on the day of joining; the later ones follow the habit's gap, until its last day."""
    habit = HABITS[person.habit]
    days = [person.joined]
    if not habit.gap_days:
        return days
    # Orders go on after the run date: a task that looks at them is caught by a test.
    quiet = int(rng.integers(*habit.last, endpoint=True))
    end = RUN_DATE - timedelta(days=quiet) if quiet > 60 else date(2026, 7, 5)
    own_gap = habit.gap_days * rng.lognormal(0, 0.25)
    while (day := days[-1] + timedelta(days=1 + int(rng.gamma(2.0, own_gap / 2.0)))) <= end:
        days.append(day)
    return days


def orders_table(people: list[Person], rng: np.random.Generator) -> pa.Table:
    """(orders,) by time. Amounts are in pounds, after `discount`, whatever the customer's country."""
    drafts: list[tuple[datetime, str | None, str, int, float, bool, float]] = []

    def order(day: date, customer: str | None, habit: Habit, scale: float) -> None:
        at = datetime.combine(day, time(), UTC) + timedelta(seconds=int(rng.normal(14.5, 3.4) % 24 * 3600))
        channel = str(rng.choice(["web", "app"], p=[0.45, 0.55])) if rng.random() < habit.online else "store"
        items = 1 + int(rng.poisson(habit.items - 1))
        full = habit.gbp * scale * rng.lognormal(0, 0.4) * (0.5 + 0.5 * items / habit.items)
        discount = round(full * rng.uniform(0.1, 0.35), 2) if rng.random() < habit.discount else 0.0
        returned = bool(rng.random() < habit.returned)
        drafts.append((at, customer, channel, items, round(full - discount, 2), returned, discount))

    for person in people:
        scale = float(rng.lognormal(0, 0.2))
        for day in _order_days(person, rng):
            order(day, person.id, HABITS[person.habit], scale)
    for back in rng.integers(-5, 725, 420):  # guest checkouts: nobody signed in
        order(RUN_DATE - timedelta(days=int(back)), None, HABITS["once"], 1.0)
    drafts.sort(key=lambda draft: (draft[0], draft[1] or "", draft[4]))
    when, who, channel, items, amount, returned, discount = (list(column) for column in zip(*drafts, strict=True))
    return pa.table(
        {
            "order_id": [f"FH-{4000000 + 37 * i}" for i in range(len(drafts))],
            "customer_id": pa.array(who, pa.string()),
            "ordered_at": pa.array(when, pa.timestamp("us", "UTC")),
            "channel": channel,
            "items": pa.array(items, pa.int32()),
            "amount": pa.array(amount, pa.float64()),
            "returned": returned,
            "discount": pa.array(discount, pa.float64()),
        }
    )
