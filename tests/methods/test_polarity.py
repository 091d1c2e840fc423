from __future__ import annotations

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bizllm.methods.polarity import aspects, cues, lexicon, model, taught
from bizllm.methods.polarity.lists import sections

SCRIPT = Path(__file__).parents[2] / "benchmarks/polarity_model.py"


def said(text: str) -> list[tuple[str, float, bool, bool]]:
    """What was found in a text: the words, what they say unchanged, negated, unreal."""
    return [
        (text[cue.start : cue.end], cue.valence, cue.negated, cue.unreal)
        for clause in cues.clauses(text)
        for cue in clause.cues
    ]


@pytest.mark.parametrize("language", lexicon.LANGUAGES)
def test_an_entry_says_one_thing(language: str) -> None:
    found = sections(language)
    assert {*found} == {*lexicon.VALENCES, *lexicon.MODIFIERS}
    entries = [entry.casefold() for section in lexicon.VALENCES for entry in found[section]]
    assert len(entries) == len({*entries}) > 1_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is good.", [("good", 1, False, False)]),
        ("It is not very good.", [("good", 1.5, True, False)]),
        ("It isn’t GOOD", [("GOOD", 1, True, False)]),
        ("Not the lid, which is good", [("good", 1, False, False)]),  # another clause
        ("I wish it were good", [("good", 1, False, True)]),
        ("slightly slow", [("slow", -0.6, False, False)]),
        ("no problems", [("no problems", 1, False, False)]),  # the longest entry counts
        ("a good deal of snow, goodbye", []),
        ("disappointingly bad", [("disappointingly", -1, False, False), ("bad", -1, False, False)]),
        ("味道不错", [("不错", 1, False, False)]),
        ("不是很好吃", [("很好", 1, True, False)]),
        ("有点慢", [("慢", -0.6, False, False)]),
        ("好喜欢", [("喜欢", 1.5, False, False)]),  # 好 before praise stresses it
        ("味道好", [("好", 1, False, False)]),
        ("好像是快递", []),
        ("希望味道好", [("好", 1, False, True)]),
    ],
)
def test_cues(text: str, expected: list[tuple[str, float, bool, bool]]) -> None:
    assert said(text) == [(word, pytest.approx(value), *flags) for word, value, *flags in expected]


def test_a_turn_begins_a_clause() -> None:
    for text, parts in (
        ("The food was cold but the staff was kind.", ["The food was cold", "but the staff was kind"]),
        ("味道好但是贵。送得快", ["味道好", "但是贵", "送得快"]),
    ):
        found = cues.clauses(text)
        assert [text[clause.start : clause.end] for clause in found] == parts
        assert [clause.turned for clause in found[:2]] == [False, True]
    assert cues.clauses("") == [] and cues.clauses(" \n ") == []


def test_every_character_of_a_clause_is_in_one_clause() -> None:
    text = "Good lid, bad box; 味道不错！但是慢……no :( ok?" * 3
    spans = [(clause.start, clause.end) for clause in cues.clauses(text)]
    assert spans == sorted(spans) and all(a[1] <= b[0] for a, b in pairwise(spans))
    kept = {i for start, end in spans for i in range(start, end)}
    assert not [c for i, c in enumerate(text) if i not in kept and c.isalnum()]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("It is good.", "It is not good."),
        ("It is excellent.", "It is good."),
        ("It is not bad.", "It is bad."),
        ("It was slow, but the food is great.", "The food is great, but it was slow."),
        ("味道不错。", "味道不好。"),
        ("慢，但是味道很好", "味道很好，但是慢"),
        ("质量好", "要是质量好就行了"),
        ("Thanks, it works 👍", "It leaks 👎"),
    ],
)
def test_order(better: str, worse: str) -> None:
    high, low = model.probabilities([better, worse]) @ model.SIGNS
    assert high > low


def test_probabilities() -> None:
    texts = ["", "a", "good " * 5_000, "差" * 5_000, "I bought it in May. 五月买的。", "!?" * 100]
    found = model.probabilities(texts)
    assert np.isfinite(found).all() and found.sum(axis=1) == pytest.approx(1)
    assert [model.LABELS[i] for i in found.argmax(axis=1)] == [
        "neutral", "neutral", "positive", "negative", "neutral", "neutral",
    ]  # fmt: skip
    assert model.probabilities([]).shape == (0, 3)
    assert (model.probabilities(texts[::-1])[::-1] == found).all()


def test_aspects() -> None:
    of = aspects.terms({"food": ["food", "菜"], "staff": ["waiter", "服务"]})

    def judged(text: str) -> list[tuple[str, str, str]]:
        return [(s.aspect, s.label, text[s.start : s.end]) for s in aspects.said(text, cues.clauses(text), of)]

    assert judged("Great food and a rude waiter.") == [
        ("food", "positive", "Great food and a rude waiter"),
        ("staff", "negative", "Great food and a rude waiter"),
    ]
    assert judged("The waiters, as always, were friendly. Bad luck.") == [
        ("staff", "positive", "The waiters, as always, were friendly")
    ]
    assert judged("菜，很好，但是服务太差了。") == [
        ("food", "positive", "菜，很好"),
        ("staff", "negative", "但是服务太差了"),
    ]
    assert judged("The food is here.") == [("food", "neutral", "The food is here")]
    assert judged("Nice lid.") == [] and judged("") == []
    with pytest.raises(ValueError, match="stands in two"):
        aspects.terms({"a": ["food"], "b": ["Food"]})
    assert len(aspects.built_in()) == 14 and aspects.terms(aspects.built_in())


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("polarity_model", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_model_is_what_the_script_learns(script: Any) -> None:
    """A lexicon or a feature that was changed wants a new model: `make polarity-model`."""
    texts = script.opinions()
    assert len({text for text, _ in texts}) > 0.7 * len(texts)
    again, kept = script.learned(texts), json.loads(model.FILE.read_text())
    assert again["labels"] == kept["labels"] and again["weights"].keys() == kept["weights"].keys()
    for name, weights in again["weights"].items():
        assert weights == pytest.approx(kept["weights"][name], abs=2e-3), name
    fresh = script.opinions(1_000, seed=7)
    right = model.probabilities([text for text, _ in fresh]).argmax(axis=1) == [label for _, label in fresh]
    assert right.mean() > 0.7


# -- taught by examples ----------------------------------------------------------------------------------------------


def test_labels_of_one_sign_share_what_the_model_gives() -> None:
    texts = ["It is good.", "It is bad.", "I bought it in May."]
    bad, _, good = model.probabilities(texts).T
    two = taught.as_labels(texts, [-1.0, 1.0])
    assert two[:, 1] == pytest.approx(good / (good + bad), abs=1e-4)
    three = taught.as_labels(texts, [-1.0, 0.5, 1.0])
    assert three[:, 1] == pytest.approx(three[:, 2]) and three.sum(axis=1) == pytest.approx(1)


def test_the_built_in_model_has_a_say_where_it_is_right_and_none_where_it_is_not() -> None:
    lids = [f"{word} lid {i}" for i in range(12) for word in ("good", "bad")]
    truth = np.array([1, 0] * 12)
    right = taught.learn(lids, truth, ["neg", "pos"], [-1.0, 1.0], None)
    assert right.say > 0.5
    assert right.probabilities(["excellent", "awful"], None).argmax(axis=1).tolist() == [1, 0]
    wrong = taught.learn(lids, 1 - truth, ["neg", "pos"], [-1.0, 1.0], None)  # slang: bad is good
    assert wrong.say == 0.0
    assert wrong.probabilities(["good lid", "bad lid"], None).argmax(axis=1).tolist() == [0, 1]


def test_one_text_a_label_and_the_state() -> None:
    made = taught.learn(["nice", "hmpf"], np.array([1, 0]), ["n", "p"], [-1.0, 1.0], None)
    assert made.say == 1.0
    again = taught.Taught.of(made.state())
    texts = ["great", "bad", "hmpf"]
    assert (again.probabilities(texts, None) == made.probabilities(texts, None)).all()
