"""What a text's clauses hold of good and bad words, each with what negates, stresses or questions it.

Negation flips words within a few words after it in the same clause, and weakens them (Polanyi & Zaenen 2006; Taboada et
al. 2011: "not bad" praises less than "bad" blames). A clause after `but` tells more than the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bizllm.methods import sentences
from bizllm.methods.polarity.lexicon import Token, lexicon, tokens

Floats = npt.NDArray[np.float64]

NEGATION_REACH = 4  # words, or Chinese characters, between a negation and what it negates
STRESS_REACH = 2
_MORE, _LESS = 1.5, 0.6
_NEGATED, _UNREAL = 0.6, 0.3  # of a cue's weight, in a clause's sum
_BREAKS = frozenset(",，;；:：、。.!！?？…~～()（）")


@dataclass(frozen=True)
class Cue:
    """A word or phrase that praises (above 0) or blames, from -2 to 2, stress included; before it is negated."""

    start: int
    end: int
    valence: float
    negated: bool
    unreal: bool

    @property
    def said(self) -> float:
        """What it comes to in its clause."""
        turned = -_NEGATED * self.valence if self.negated else self.valence
        return _UNREAL * turned if self.unreal else turned


@dataclass
class Clause:
    """Characters [start, end) of a text. sentence: its number. turned: it begins with `but` or the like."""

    start: int
    end: int
    sentence: int
    turned: bool
    cues: list[Cue] = field(default_factory=list)

    @property
    def said(self) -> float:
        """The sum of its cues."""
        return sum(cue.said for cue in self.cues)


def clauses(text: str) -> list[Clause]:
    """The clauses of a text, in order; cut at commas, other marks, and before `but`."""
    found: list[Clause] = []
    for number, (start, end) in enumerate(sentences.split(text)):
        found += _of_sentence(tokens(text, start, end), number)
    return found


FEATURES = (
    "good", "very_good", "bad", "very_bad", "good_negated", "bad_negated", "good_unreal", "bad_unreal",
    "sum", "balance", "first", "last", "turned", "before_a_turn", "exclaimed", "asked", "length", "nothing",
)  # fmt: skip


def features(text: str, found: Sequence[Clause] | None = None) -> Floats:
    """(FEATURES,) of a text, or of those of its clauses that are given."""
    parts = clauses(text) if found is None else found
    cues = [cue for clause in parts for cue in clause.cues]
    real = [cue for cue in cues if not cue.negated and not cue.unreal]
    said = [clause.said for clause in parts if clause.cues]
    whole = "".join(text[clause.start : clause.end + 1] for clause in parts)
    good, bad = sum(v for v in said if v > 0), -sum(v for v in said if v < 0)
    turns = [clause for clause in parts if clause.turned]
    last_turn = {clause.sentence: clause.start for clause in turns}
    before = [c for c in parts if not c.turned and c.start < last_turn.get(c.sentence, -1)]
    total = float(np.tanh(sum(said) / 2))
    values = [
        np.log1p(sum(cue.valence for cue in real if 0 < cue.valence < 2)),
        np.log1p(sum(cue.valence for cue in real if cue.valence >= 2)),
        np.log1p(-sum(cue.valence for cue in real if -2 < cue.valence < 0)),
        np.log1p(-sum(cue.valence for cue in real if cue.valence <= -2)),
        np.log1p(sum(cue.valence for cue in cues if cue.negated and cue.valence > 0)),
        np.log1p(-sum(cue.valence for cue in cues if cue.negated and cue.valence < 0)),
        np.log1p(sum(cue.valence for cue in cues if cue.unreal and cue.valence > 0)),
        np.log1p(-sum(cue.valence for cue in cues if cue.unreal and cue.valence < 0)),
        total,
        (good - bad) / (good + bad + 1),
        np.tanh(said[0]) if said else 0.0,
        np.tanh(said[-1]) if said else 0.0,
        np.tanh(sum(clause.said for clause in turns)),
        np.tanh(sum(clause.said for clause in before)),
        total * np.log1p(sum(whole.count(mark) for mark in "!！")),
        np.log1p(sum(whole.count(mark) for mark in "?？")),
        np.log1p(sum(clause.end - clause.start for clause in parts)) / 5,
        float(not said),
    ]
    return np.array(values, np.float64)


def _of_sentence(found: list[Token], number: int) -> list[Clause]:
    made: list[Clause] = []
    current: Clause | None = None
    negated_at = stressed_at = softened_at = -99
    unreal = False
    words, place = 0, 0  # marks count as no word
    while place < len(found):
        token = found[place]
        if token.text in _BREAKS and not _is_cue(found, place):
            current, unreal, negated_at = None, False, -99
            place += 1
            continue
        length, valence, roles = _read(found, place)
        end = found[place + length - 1].end
        if current is None or ("but" in roles and current.end > current.start):
            current = Clause(token.start, end, number, "but" in roles)
            made.append(current)
            unreal, negated_at = False, -99
        current.end = end
        if valence:
            factor = (_MORE if words - stressed_at <= STRESS_REACH else 1.0) * (
                _LESS if words - softened_at <= STRESS_REACH else 1.0
            )
            negated = words - negated_at <= NEGATION_REACH
            current.cues.append(Cue(token.start, end, valence * factor, negated, unreal))
        words += length
        if "not" in roles or token.text.endswith("n't"):
            negated_at = words
        if "more" in roles:
            stressed_at = words
        if "less" in roles:
            softened_at = words
        unreal |= "if" in roles
        place += length
    return made


def _is_cue(found: Sequence[Token], place: int) -> bool:
    match = lexicon().valences.at(found, place)
    return match is not None and match[0] > 1


def _read(found: Sequence[Token], place: int) -> tuple[int, float, frozenset[str]]:
    """(tokens that belong together, what they say, how they change what follows)."""
    known = lexicon()
    word, change = known.valences.at(found, place), known.modifiers.at(found, place)
    if word is None and change is None:
        return 1, 0.0, frozenset()
    if change is None or (word is not None and word[0] > change[0]):
        assert word is not None
        return word[0], word[1], frozenset()
    if word is None or word[0] < change[0] or not word[1]:
        return change[0], 0.0, frozenset([change[1]])
    # "好" praises, unless what it stresses comes next; "unfortunately" turns and blames.
    after = known.valences.at(found, place + word[0]) if place + word[0] < len(found) else None
    if change[1] == "but":
        return word[0], word[1], frozenset(["but"])
    if after is not None and after[1]:
        return change[0], 0.0, frozenset([change[1]])
    return word[0], word[1], frozenset()
