"""Customer-service tickets: stories put together from fragments, told as a line, a note, a mail, a chat or a thread."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from catalogue import STORES, Language, Product, fault_fits, suits
from people import Person
from prose import Bags, capital, roughen

Slots = dict[str, Callable[[], str]]

_AGENTS = {
    "en": ["Maya", "Tom", "Priya", "Oliver", "Grace", "Dennis", "Ines", "Kwame"],
    "zh": ["小林", "小周", "小许", "阿宁", "小何", "小唐"],
}
_CARRIERS = {"en": ["Northline", "ParcelHare", "Swiftway"], "zh": ["飞鹿快递", "迅达速运", "百川快运"]}
_CUSTOMER = {"en": "Customer", "zh": "顾客"}
_TEAM = {"en": "Fernhollow Customer Service", "zh": "蕨谷生活客服"}
_WITHOUT_ORDER = frozenset({"product_question", "praise", "store_service"})
CALM = frozenset({"product_question", "praise"})  # nothing went wrong, so nobody complains of having waited
_SECOND_MATTERS = ("billing", "account", "voucher", "store_service")


_TAGS = re.compile(r"^#(\w+) ")


def _tags(fragment: str) -> frozenset[str]:
    """The letters after a "#": the sorts of story that the fragment belongs to; none fits all."""
    match = _TAGS.match(fragment)
    return frozenset(match[1]) if match else frozenset()


def _day_writer(rng: random.Random, language: Language) -> Callable[[date], str]:
    """One writer keeps to one way of writing dates."""
    if language == "zh":
        style = rng.choice(["{0.month}月{0.day}日", "{0.month}月{0.day}号", "{0.month}.{0.day}"])
        return style.format
    style = rng.choice(["{0.day} {0:%B}", "{0:%B} {0.day}", "{0.day} {0:%b}", "{0:%A}, {0.day} {0:%B}"])
    return style.format


@dataclass
class Story:
    """One matter of one customer: the facts stay the same wherever they are mentioned."""

    intent: str
    language: Language
    product: Product
    slots: Slots
    bags: Bags
    material: dict[str, Any]  # fragments of the intent
    voices: dict[str, Any]  # fragments that all intents share
    sort: frozenset[str] | None = None  # the letters of the opening, once it is told
    told: set[int] = field(default_factory=set)  # aspects

    def say(self, fragment: str) -> str:
        return capital(self.bags.fill(_TAGS.sub("", fragment), self.slots))

    def voice(self, role: str) -> str:
        pool = self.voices[role]
        if self.intent == "praise":  # who only says thanks does not wait for an answer
            pool = [text for text in pool if "w" not in _tags(text)]
        return self.say(self.bags.draw(pool))

    def voices_of(self, role: str, count: int) -> list[str]:
        """Up to `count` different fragments of a role, in the order of the file where that is an order of events."""
        pool = self.voices[role]
        drawn = list(dict.fromkeys(self.bags.draw(pool) for _ in range(count)))
        if role in ("timeline", "reply_agent"):
            drawn.sort(key=pool.index)
        return [self.say(fragment) for fragment in drawn]

    def one(self, role: str) -> str:
        return self.say(self.bags.draw(self._usable(self.material[role])))

    def open(self, chat: bool = False) -> str:
        """What it is about; decides which facts and wishes go with it."""
        openings = self._usable(self.material["open"])
        suited = [text for text in openings if "c" in _tags(text)] if chat else []
        opening = self.bags.draw(suited or openings)
        self.sort = _tags(opening)
        return self.say(opening)

    def background(self, count: int) -> list[str]:
        """Up to `count` sentences about the writer; where something went wrong, about the wrong too."""
        roles = ["context"] if self.intent in CALM else ["context", "grievance"]
        halves = [self.voices_of(role, count // 2 + (count % 2 if i == 0 else 0)) for i, role in enumerate(roles)]
        return [sentence for half in halves for sentence in half]

    def effort(self, count: int) -> list[str]:
        return [] if self.intent in CALM else self.voices_of("effort", count)

    def asks(self, count: int) -> list[str]:
        usable = self._usable(self.material["ask"])
        return [self.say(text) for text in dict.fromkeys(self.bags.draw(usable) for _ in range(count))]

    def facts(self, count: int) -> list[str]:
        """Up to `count` untold aspects, in the order in which one tells them, one fragment of each.

        The fragments of an aspect exclude each other, so a story tells each aspect once, wherever that is.
        """
        aspects = {i: usable for i, aspect in enumerate(self.material["facts"]) if (usable := self._usable(aspect))}
        untold = [i for i in aspects if i not in self.told]
        chosen = sorted(self.bags.rng.sample(untold, min(count, len(untold))))
        self.told |= set(chosen)
        return [self.say(self.bags.draw(aspects[i])) for i in chosen]

    def _usable(self, fragments: list[str]) -> list[str]:
        fits = [text for text in fragments if self.sort is None or not _tags(text) or self.sort & _tags(text)]
        return fits if fault_fits(self.product, self.intent) else [text for text in fits if "<fault>" not in text]

    def join(self, sentences: list[str]) -> str:
        return (" " if self.language == "en" else "").join(sentence for sentence in sentences if sentence)


class Desk:
    """The customer-service desk: takes people and days, gives tickets."""

    def __init__(self, rng: random.Random, products: list[Product], material: dict[str, Any], voices: Any) -> None:
        self.rng, self.products, self.material, self.voices = rng, products, material, voices
        self.bags = Bags(rng)

    def story(self, intent: str, language: Language, person: Person, today: date, days: tuple[int, int]) -> Story:
        """A matter that came up between `days` days ago."""
        rng, store = self.rng, STORES[person.store]
        suited = [p for p in self.products if suits(p, intent)]
        product = rng.choice(suited)
        others = [p for p in suited if p.id != product.id]
        other = rng.choice([p for p in others if p.kind == product.kind] or others)
        agent, helper = rng.sample(_AGENTS[language], 2)
        when = _day_writer(rng, language)
        due = today - timedelta(days=rng.randint(*days))
        ordered = due - timedelta(days=rng.randint(2, 6))
        price, sign = product.price(store), {"GB": "£", "US": "$", "CN": ""}[store.country]

        def money(value: float) -> str:
            return f"{sign}{value:.2f}" if sign else f"{value:g}元"

        small = rng.choice([10, 15, 20, 25, 30, 50]) * (5 if store.country == "CN" else 1)
        past = date(2024, 9, 1) + timedelta(days=rng.randint(0, 520))
        fixed = {
            "product": product.name[language],
            "other": other.name[language],
            "fault": product.fault[language],
            "order": f"FH-{rng.randint(5500000, 5999999)}",
            "order2": f"FH-{rng.randint(6000000, 6099999)}",
            "date": when(ordered),
            "due": when(due),
            "late": str((today - due).days),
            "olddate": f"{past:%B %Y}" if language == "en" else f"{past.year}年{past.month}月",
            "price": money(price),
            "amount": money(small),
            "card": f"{rng.randint(1000, 9999)}",
            "slip": f"{rng.randint(1000, 9999)}",
            "points": str(rng.randint(40, 900) * 10),
            "city": getattr(store, language),
            "carrier": rng.choice(_CARRIERS[language]),
            "agent": agent,  # whom one spoke to before
            "helper": helper,  # who answers now
            "name": person.name,
            "first": person.name.split(" ")[0],
            "customer": person.id,
        }
        slots: Slots = {key: (lambda value=value: value) for key, value in fixed.items()}  # type: ignore[misc]
        slots["n"] = lambda: str(rng.choice([5, 6, 7, 8, 10, 12, 15, 20, 25]))
        slots["m"] = lambda: str(rng.randint(2, 6))
        slots["cm"] = lambda: str(rng.randint(22, 48))
        step = [due]

        def next_day() -> str:
            step[0] = min(today, step[0] + timedelta(days=rng.randint(0, 2)))
            return when(step[0])

        slots["day"] = next_day
        slots["time"] = lambda: f"{rng.randint(8, 19)}:{rng.randint(0, 59):02d}"
        slots["who"] = lambda: _TEAM[language]
        material, voices = self.material[language][intent], self.voices[language]
        return Story(intent, language, product, slots, self.bags, material, voices)

    def tell(self, form: str, story: Story, person: Person, today: date) -> str:
        if form == "chat":
            return _chat(story)
        if form == "thread":
            return _thread(story)
        if form == "saga":
            intents = self.rng.sample([intent for intent in _SECOND_MATTERS if intent != story.intent], 2)
            return _saga(story, [self.story(intent, story.language, person, today, (2, 14)) for intent in intents])
        text = {"line": _line, "note": _note, "mail": _mail}[form](story)
        return roughen(text, story.language, self.rng) if self.rng.random() < 0.18 else text


def _line(story: Story) -> str:
    return story.one("short")


def _note(story: Story) -> str:
    """A short message: sometimes with some background before it comes to the point."""
    rng = story.bags.rng
    parts = [story.voice("greeting")] if rng.random() < 0.5 else []
    parts += story.background(1) if rng.random() < 0.3 else []
    parts += [story.open(), *story.facts(rng.choice((0, 1, 1, 2, 2)))]
    if rng.random() < 0.8:
        parts += story.asks(1)
    if rng.random() < 0.45:
        parts.append(story.voice("closing"))
    return story.join(parts)


def _mail(story: Story) -> str:
    rng = story.bags.rng
    opening = story.background(rng.choice((0, 1, 1, 2)))
    if rng.random() < 0.3 and story.intent not in CALM:
        opening.append(story.voice("apology"))
    middle = [story.open(), *story.facts(rng.choice((2, 3, 4, 5)))]
    if len(middle) > 1 and rng.random() < 0.25:  # what happened first, what it is about later
        middle[0], middle[1] = middle[1], middle[0]
    end = story.effort(rng.choice((0, 1, 2))) + story.asks(rng.choice((1, 1, 2)))
    paragraphs = [story.voice("greeting"), *map(story.join, (opening, middle, end)), story.voice("closing")]
    if rng.random() < 0.2:
        paragraphs.append(story.voice("device"))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _turns(story: Story, talkative: bool) -> list[tuple[str, str]]:
    """A chat as (speaker, text): "system", "agent" or "customer"."""
    rng = story.bags.rng
    turns = [("system", story.voice("system"))] if rng.random() < 0.3 else []
    turns.append(("agent", story.voice("hello_agent")))
    if rng.random() < 0.6:
        turns.append(("customer", story.voice("hello_customer")))
    turns.append(("customer", opening := story.open(chat=True)))
    if story.intent not in _WITHOUT_ORDER and story.slots["order"]() not in opening:
        turns += [("agent", story.voice("ask_order")), ("customer", story.voice("give_order"))]
    if rng.random() < 0.5:
        turns += [("agent", story.voice("wait")), ("customer", story.voice("waited"))]
    facts = story.facts(3 if talkative else rng.choice((1, 2, 3)))
    exchanges = list(zip(story.material["agent"], story.material["reply"], strict=True))
    for number, (agent, reply) in enumerate(exchanges[: rng.choice((2, 3, 3, 3, 3, 3))]):
        turns += [("customer", fact) for fact in facts[number::3]] if number else []
        turns += [("agent", story.say(agent)), ("customer", story.bags.fill(reply, story.slots))]
        turns += [("customer", fact) for fact in facts[0::3]] if not number else []
    turns.append(("agent", story.voice("bye_agent")))
    if rng.random() < 0.7:
        turns.append(("customer", story.voice("bye_customer")))
    return turns


def _chat(story: Story, talkative: bool = False) -> str:
    rng = story.bags.rng
    colon = ": " if story.language == "en" else "："
    names = {"customer": _CUSTOMER[story.language], "agent": story.slots["helper"]()}
    casual = story.language == "en" and rng.random() < 0.35
    clock = datetime(2000, 1, 1, rng.randint(8, 20), rng.randint(0, 59)) if rng.random() < 0.4 else None
    lines = []
    for speaker, text in _turns(story, talkative):
        text = text.lower().rstrip(".") if casual and speaker == "customer" else text
        stamp = f"[{clock:%H:%M}] " if clock else ""
        clock = clock + timedelta(seconds=rng.randint(15, 150)) if clock else None
        lines.append(stamp + (text if speaker == "system" else names[speaker] + colon + text))
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _header(story: Story, who: str) -> str:
    return story.bags.fill(story.voices["quote"], {**story.slots, "who": lambda: who})


def _agents_mail(story: Story, count: int) -> str:
    slots = story.slots
    hello = f"Dear {slots['name']()}," if story.language == "en" else f"{slots['name']()}您好："
    agent = slots["helper"]()
    sign = f"Kind regards,\n{agent}, {_TEAM['en']}" if story.language == "en" else f"{_TEAM['zh']} {agent}"
    return "\n\n".join([hello, story.join(story.voices_of("reply_agent", count)), sign])


def _subject(story: Story) -> str:
    label = "Subject: Re: " if story.language == "en" else "主题：回复："
    return label + story.say(story.voices["subject"][story.intent])


def _thread(story: Story) -> str:
    """The newest mail on top, then what it answers: often the point is only made in the oldest."""
    rng = story.bags.rng
    oldest = _quoted(_mail(story))  # its opening decides what the later mails can be about
    first, answer = _header(story, story.slots["name"]()), _header(story, _TEAM[story.language])
    newest = [*story.effort(rng.choice((1, 2))), *story.facts(rng.choice((1, 2, 3))), *story.asks(1)]
    top = [story.voice("greeting"), story.join(newest), story.voice("closing")]
    if rng.random() < 0.5:
        top.insert(0, _subject(story))
    older = [answer, _quoted(_agents_mail(story, rng.choice((2, 3, 4)))), first, oldest]
    return "\n\n".join([*top, *older])


def _saga(story: Story, others: list[Story]) -> str:
    """Weeks of correspondence in one ticket, with other matters and a pasted chat."""
    first, answer = _header(story, story.slots["name"]()), _header(story, _TEAM[story.language])
    english = story.language == "en"
    pasted = "Here is the chat that I saved:" if english else "下面是我保存的聊天记录："
    top = [
        _subject(story),
        story.voice("greeting"),
        story.join([*story.background(12 if english else 6), story.voice("apology")]),
        story.join([story.open(chat=True), *story.facts(3)]),
        "\n".join([story.voice("timeline_open"), *story.voices_of("timeline", 12)]),
        story.join([*story.effort(8), *story.asks(2)]),
        *(story.join([story.voice("aside"), s.open(), *s.facts(6), *s.asks(2)]) for s in others),
        story.voice("closing"),
        f"{pasted}\n{_chat(story, talkative=True)}",
    ]
    return "\n\n".join([*top, answer, _quoted(_agents_mail(story, 9)), first, _quoted(_mail(story))])


def created_at(rng: random.Random, day: date) -> datetime:
    """A moment of the day, UTC: two peaks, the Chinese working day and the western one."""
    hour = rng.gauss(5.5, 3) if rng.random() < 0.4 else rng.gauss(14.5, 4)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=min(max(hour, 0.0), 23.9) * 3600)
