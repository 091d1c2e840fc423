"""Rules that a written text must keep: lengths, facts, words, numbers, language. Each is checked, none is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bizllm.methods import claims, sentences
from bizllm.methods.prompts import FENCE

NAMES = (  # of the rules, in the order in which they are told
    *("finished", "min_chars", "max_chars", "min_words", "max_words", "must_have", "banned"),
    *("numbers", "values", "language", "no_prompt"),
)
LANGUAGES = {"en": "English", "zh": "Chinese"}


@dataclass(frozen=True)
class Rules:
    """What is asked of a text. None and empty: nothing.

    must_have: facts whose value must be named. banned: words that must not be. only_known_numbers: no number that no
    fact has. values: of a fact all that it can be: another one than the row's must not be named. language: of
    `LANGUAGES`.
    """

    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    must_have: Sequence[str] = ()
    banned: Sequence[str] = ()
    only_known_numbers: bool = True
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    language: str | None = None

    def broken(self, text: str, facts: Mapping[str, str], finished: bool = True) -> list[str]:
        """The names of the rules that a text breaks, in a fixed order. facts: value by name. finished: whether it came
        to its own end."""
        words = sentences.count_words(text)
        known = [*facts, *facts.values()]
        checks = {
            "finished": finished and bool(text) and not text.isspace(),
            "min_chars": self.min_chars is None or len(text) >= self.min_chars,
            "max_chars": self.max_chars is None or len(text) <= self.max_chars,
            "min_words": self.min_words is None or words >= self.min_words,
            "max_words": self.max_words is None or words <= self.max_words,
            "must_have": all(names(text, facts[name]) for name in self.must_have),
            "banned": not any(claims.holds(text, word) for word in self.banned),
            "numbers": not self.only_known_numbers or not claims.invented_numbers(text, known),
            "values": not any(
                claims.holds(text, value) and not any(claims.holds(own, value) for own in facts.values())
                for values in self.values.values()
                for value in values
            ),
            "language": self.language is None or speaks(text, self.language),
            # A model that gives its instructions back, or goes on with them.
            "no_prompt": f"<{FENCE}" not in text and f"</{FENCE}" not in text,
        }
        assert tuple(checks) == NAMES, "every rule has its check"
        return [name for name, kept in checks.items() if not kept]

    def in_words(self, wanted: Mapping[str, str]) -> list[str]:
        """What a model is told, a sentence a rule. wanted: value of each fact that must be named."""
        lengths = {"characters": (self.min_chars, self.max_chars), "words": (self.min_words, self.max_words)}
        told = []
        for unit, (least, most) in lengths.items():
            if least is not None and most is not None:
                told.append(f"Write {least} to {most} {unit}.")
            elif least is not None or most is not None:
                told.append(f"Write at least {least} {unit}." if most is None else f"Write at most {most} {unit}.")
        if wanted:
            told.append(f"Name the {', the '.join(wanted)}, as given.")
        if self.banned:
            told.append(f"Never use: {', '.join(self.banned)}.")
        if self.only_known_numbers:
            told.append("Use no number that is not given.")
        if self.language is not None:
            told.append(f"Write in {LANGUAGES[self.language]}.")
        return told


def names(text: str, value: str) -> bool:
    """Whether a text names a fact's value: its words, or, where it is a number, that number."""
    if claims.holds(text, value):
        return True
    wanted = claims.numbers(value)
    rest = "".join(char for char in value if char.isalpha())
    return bool(wanted) and not rest and wanted <= claims.numbers(text)


def mentioned(text: str, facts: Mapping[str, str]) -> float:
    """The share of the facts that a text names."""
    return sum(names(text, value) for value in facts.values()) / len(facts) if facts else 0.0


def speaks(text: str, language: str) -> bool:
    """Whether a text is in that language, by its script."""
    return sentences.is_cjk(text) if language == "zh" else sentences.is_latin([text])
