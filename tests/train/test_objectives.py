"""Each objective learns a toy task through the loop, and its scores say so."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny
from figures import figures

FIRST = {topic: words.split()[0] for topic, words in tiny.TOPICS.items()}
NUMBER = {"home": 10.0, "money": 2_000.0, "travel": 900.0}


def rows_of(objective: str, rows: int = 96) -> pa.Table:
    """Rows of which the words decide the answer."""
    made = tiny.texts(rows, longest=8)
    texts, topics = [text for text, _ in made], [topic for _, topic in made]
    if objective == "multi_label":
        pairs = [(texts[i], {topics[i]}) for i in range(rows // 2)]
        pairs += [
            (f"{texts[i]} {texts[-i - 1]}" if i % 3 else "the of", {topics[i], topics[-i - 1]} if i % 3 else set())
            for i in range(rows // 2)
        ]
        return pa.table(
            {
                "text": [text for text, _ in pairs],
                "label": pa.array([sorted(labels) for _, labels in pairs], pa.list_(pa.string())),
            }
        )
    if objective == "pair":  # does the second text name the first one's topic?
        rng = random.Random(0)
        asked = [topic if rng.random() < 0.5 else rng.choice(sorted(FIRST)) for topic in topics]
        label = [str(a == topic) for a, topic in zip(asked, topics, strict=True)]
        return pa.table({"text": texts, "pair": [FIRST[topic] for topic in asked], "label": label})
    if objective in ("regression", "quantile"):
        return pa.table({"text": texts, "label": [NUMBER[topic] for topic in topics]})
    if objective == "token_classification":
        known = {word: topic for topic, words in tiny.TOPICS.items() for word in words.split()}
        words = [text.split() for text in texts]
        return pa.table(
            {"text": words, "label": [[f"B-{known[w]}" if w in known else "O" for w in ws] for ws in words]}
        )
    if objective == "embedding":  # each word belongs to another one, each digit to itself
        words = [word for topic in tiny.TOPICS.values() for word in topic.split()]
        pairs = random.Random(0).sample([(i, digit) for i in range(18) for digit in range(10)], rows)
        text, pair = [f"{words[i]} {d}" for i, d in pairs], [f"{d} {words[(i + 7) % 18]} the" for i, d in pairs]
        return pa.table({"text": text, "pair": pair})
    if objective in ("causal_lm", "seq2seq"):
        return pa.table({"text": texts, "label": [FIRST[topic] for topic in topics]})
    assert objective == "masked_lm"
    return pa.table({"text": [f"{text} {FIRST[topic]} {FIRST[topic]} {FIRST[topic]}" for text, topic in made]})


# objective: base, metric, what it must reach, of how bad a guess is
CASES = {
    "multi_label": ("bert", "micro_f1", ">", 0.85),
    "pair": ("bert", "accuracy", ">", 0.8),
    "regression": ("bert", "mae", "<", 250.0),  # the mean's: about 640
    "quantile": ("bert", "pinball", "<", 90.0),
    "token_classification": ("bert", "f1", ">", 0.9),
    "embedding": ("bert", "mrr", ">", 0.6),
    "causal_lm": ("gpt2", "token_accuracy", ">", 0.8),  # the answer and its end
    "seq2seq": ("t5", "token_accuracy", ">", 0.8),
    "masked_lm": ("bert", "perplexity", "<", 20.0),  # of 60 words
}


@pytest.mark.parametrize("objective", CASES)
def test_an_objective_learns_a_toy_task(objective: str, workers: Any, base: Any, tmp_path: Path) -> None:
    kind, metric, sign, bar = CASES[objective]
    more = {"levels": (0.1, 0.5, 0.9)} if objective == "quantile" else {}
    epochs = 18 if objective == "masked_lm" else 12  # at 12 it is near its bound
    optim = tiny.optim(lr=5e-3, head_lr=1e-2, epochs=epochs, batch=16)
    zero = {"stage": 2, "precision": "fp32"}
    tiny.work(tmp_path, base(kind), rows_of(objective), objective=objective, optim=optim, zero=zero, **more)
    workers(2).call("train", folder=tmp_path)
    scores = figures(tmp_path, metric, "validation")
    assert scores[-1] > bar if sign == ">" else scores[-1] < bar
    assert not (scores[0] > bar if sign == ">" else scores[0] < bar), "the task is no test"
    losses = figures(tmp_path, "loss", "validation")
    assert losses[-1] < 0.7 * losses[0]
