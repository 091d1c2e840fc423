"""Learns the weights of the built-in sentiment model from made-up opinions: `make polarity-model`.

    python benchmarks/polarity_model.py [--out bizllm/methods/polarity/model.json]

Every text and its label come from polarity_opinions.yaml, whose sentences were written for this project; no review of
anybody is read. A part of the words is replaced by words that no lexicon knows, and stray praise and blame of other
things is mixed in, so that the model is not surer than a lexicon may be. The same libraries give the same file.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bizllm.methods.polarity import cues
from bizllm.methods.polarity.model import FILE, LABELS

SEED, TEXTS = 20260630, 6_000
# Share of words that no lexicon has: blame is told by facts ("the lid came off") more often than praise.
UNKNOWN = {1: 0.25, -1: 0.4}
STRAY = 0.15  # share of sentences with a stray opinion
ENOUGH = 0.35  # how far the clauses' sum must lean for a text to be good or bad
# What a clause of a kind comes to, for the truth of its text.
SAYS = {"plain": 1.0, "stressed": 1.5, "softened": 0.6, "negated": -0.7, "unreal": -0.6, "clause": 1.2}
OPINIONS = Path(__file__).with_name("polarity_opinions.yaml")


class Writer:
    """Makes texts of one language."""

    def __init__(self, language: str, rng: random.Random) -> None:
        self.chinese, self.rng = language == "zh", rng
        self.of: dict[str, list[str]] = yaml.safe_load(OPINIONS.read_text("utf-8"))[language]

    def opinion(self, sign: int) -> tuple[str, float]:
        """A clause whose words lean to that side, and what it comes to."""
        rng, said = self.rng, "good" if sign > 0 else "bad"
        kind = rng.choices([*SAYS], [5, 3, 2, 3, 1, 4])[0]
        if kind == "clause":
            return rng.choice(self.of[f"{said}_clauses"]), sign * SAYS[kind]
        word = self._unknown() if rng.random() < UNKNOWN[sign] else rng.choice(self.of[said])
        slots = {"t": rng.choice(self.of["things"]), "a": word}
        slots |= {"m": rng.choice(self.of["more"]), "l": rng.choice(self.of["less"])}
        # What blames by wishing blames whatever was wished for; a wish for something bad is nobody's.
        if kind == "unreal" and sign < 0:
            kind = "plain"
        return rng.choice(self.of[kind]).format(**slots), sign * SAYS[kind]

    def text(self) -> tuple[str, int]:
        """(a text of one to five clauses, its label)."""
        rng = self.rng
        if rng.random() < 0.2:
            parts = rng.sample(self.of["neutral"], rng.choice((1, 1, 2, 3)))
            if rng.random() < STRAY:
                parts.append(rng.choice(self.of["strays"]))
            return self._joined(parts), LABELS.index("neutral")
        leaning = rng.choice((1, -1))
        parts, total = [], 0.0
        for _ in range(rng.choices((1, 2, 3, 5), (5, 4, 3, 1))[0]):
            said, worth = self.opinion(leaning if rng.random() < 0.85 else -leaning)
            if rng.random() < 0.2:  # what follows a turn counts for more, and for the other side
                after, more = self.opinion(-1 if worth > 0 else 1)
                said, worth = f"{said}{rng.choice(self.of['turns'])}{after}", 0.6 * worth + 1.2 * more
            parts.append(said)
            total += worth
            if rng.random() < 0.35:
                parts.append(rng.choice(self.of["neutral"]))
            if rng.random() < STRAY:
                parts.append(rng.choice(self.of["strays"]))
        label = "neutral" if abs(total) < ENOUGH else "positive" if total > 0 else "negative"
        return self._joined(parts), LABELS.index(label)

    def _joined(self, parts: list[str]) -> str:
        text = parts[0]
        for part in parts[1:]:
            text += self.rng.choice(self.of["join"]) + part
        return text + self.rng.choice(("。", "", "！") if self.chinese else (".", "", "!"))

    def _unknown(self) -> str:
        if self.chinese:
            return "".join(self.rng.choices("峁嵯甍黻罍鬯", k=2))
        return "".join(self.rng.choice("bdfgklmnprstvz") + self.rng.choice("aeiou") for _ in range(3)) + "x"


def opinions(count: int = TEXTS, seed: int = SEED) -> list[tuple[str, int]]:
    """So many texts with their labels, half of each language."""
    writers = [Writer(language, random.Random(seed + i)) for i, language in enumerate(("en", "zh"))]
    return [writers[i % 2].text() for i in range(count)]


def learned(texts: list[tuple[str, int]]) -> dict[str, Any]:
    """The model as JSON."""
    from sklearn.linear_model import LogisticRegression

    matrix = np.stack([cues.features(text) for text, _ in texts])
    fitted = LogisticRegression(C=1.0, max_iter=2_000).fit(matrix, [label for _, label in texts])
    weights = {name: np.round(row, 4).tolist() for name, row in zip(cues.FEATURES, fitted.coef_.T, strict=True)}
    return {"labels": list(LABELS), "weights": weights, "offsets": np.round(fitted.intercept_, 4).tolist()}


def main() -> None:
    """Learn, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE)
    model = learned(opinions())
    parser.parse_args().out.write_text(json.dumps(model, indent=1) + "\n")


if __name__ == "__main__":
    main()
