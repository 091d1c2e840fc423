"""Turns fragments into sentences: draws them without early repetition, resolves choices and slots, and roughens."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from catalogue import Language

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_SLOT = re.compile(r"<([a-z0-9]+)>")


class Bags:
    """Draws from lists like cards from a shuffled deck, so that no fragment comes back before all were used."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._decks: dict[tuple[str, ...], list[str]] = {}

    def draw(self, fragments: Sequence[str]) -> str:
        deck = self._decks.setdefault(tuple(fragments), [])
        if not deck:
            deck.extend(fragments)
            self.rng.shuffle(deck)
        return deck.pop()

    def fill(self, fragment: str, slots: Mapping[str, Callable[[], str]]) -> str:
        """The fragment with every "(a|b)" decided and every <slot> filled, a capital letter first."""
        decided = _CHOICE.sub(lambda match: self.draw(match[1].split("|")), fragment)
        return _SLOT.sub(lambda match: slots[match[1]](), decided)


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _swap_letters(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    for i in rng.sample(range(len(words)), min(len(words), 1 + len(words) // 40)):
        word = words[i]
        if len(word) > 4 and word.isascii() and word.isalpha():
            at = rng.randrange(1, len(word) - 2)
            words[i] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def _rough_english(text: str, rng: random.Random) -> str:
    style = rng.randrange(5)
    if style == 0:
        return text.lower()
    if style == 1:
        return _swap_letters(text.replace("'", ""), rng)
    if style == 2:
        return text.replace("Please", "Pls").replace("please", "pls").replace(" you ", " u ").replace(" your ", " ur ")
    if style == 3:
        return re.sub(r"\.(?= |$)", "!", text, count=2)
    return _swap_letters(text, rng)


def _rough_chinese(text: str, rng: random.Random) -> str:
    style = rng.randrange(4)
    if style == 0:
        return text.replace("，", " ").replace("。", " ").rstrip()
    if style == 1:
        return text.replace("。", "！", 2)
    if style == 2:
        return text.replace("已经", "以经", 1).replace("好像", "好象", 1).replace("再", "在", 1)
    return text.replace("。", "……", 1)


def roughen(text: str, language: Language, rng: random.Random) -> str:
    """The text as typed in a hurry: lower case, swapped letters, left-out punctuation, usual misspellings."""
    return _rough_english(text, rng) if language == "en" else _rough_chinese(text, rng)
