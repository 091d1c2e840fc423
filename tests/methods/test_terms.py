from __future__ import annotations

import random
import re

import pytest

from bizllm.infer.learned import load, to_bytes
from bizllm.methods.terms import Entry, Fact, Terms, tokens
from bizllm.tables import storage

NAMES: list[tuple[str, str, str | None]] = [
    ("power bank", "Beacon power bank", "product"),
    ("portable charger", "Beacon power bank", None),
    ("充电宝", "Beacon power bank", None),
    ("移动电源", "Beacon power bank", None),
    ("电源", "power supply", "part"),
    ("BPB-20", "Beacon power bank", None),
    ("C++", "C++", "language"),
    ("Löwe", "Lion", "brand"),
    ("iPhone 15", "iPhone 15", "product"),
]


def found(terms: Terms, text: str) -> list[tuple[str, str]]:
    return [(text[f.start : f.end], f.name) for f in terms.find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My POWER  BANKS died", [("POWER  BANKS", "Beacon power bank")]),
        ("a power-bank, please", [("power-bank", "Beacon power bank")]),
        ("overpower bank", []),
        ("power banking", []),
        ("两个移动电源和电源线", [("移动电源", "Beacon power bank"), ("电源", "power supply")]),
        ("充电宝20000毫安", [("充电宝", "Beacon power bank")]),
        ("ＢＰＢ－２０到了", [("ＢＰＢ－２０", "Beacon power bank")]),
        ("BPB-200 or 1.BPB-20", [("BPB-20", "Beacon power bank")]),
        ("I write C++ and C", [("C++", "C++")]),
        ("der LÖWE, der Lo\u0308we", [("LÖWE", "Lion"), ("Lo\u0308we", "Lion")]),
        ("买了iPhone15手机壳", [("iPhone15", "iPhone 15")]),
        ("iPhone 150", []),
        ("", []),
        ("\n \u3000", []),
    ],
)
def test_terms_are_found_where_they_stand(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(Terms.learn(NAMES), text) == expected


def test_digits_behind_a_point_are_the_rest_of_a_number() -> None:
    assert found(Terms.learn([("5 kg", "five", None)]), "1.5 kg, 1,5 kg, 5 kg") == [("5 kg", "five")]


def test_a_term_may_mean_several_things_and_says_so() -> None:
    terms = Terms.learn([("jaguar", "car", "product"), ("Jaguar", "cat", "animal"), ("panther", "cat", None)])
    (one,) = terms.find("a JAGUAR")
    assert one.entries == (Entry("car", "product"), Entry("cat", "animal")) and one.name == "car"
    assert terms.find("panthers")[0].kind == "animal", "what a name is holds at all of its terms"
    assert terms.canonical("a jaguar, a panther") == "a jaguar, a cat", "only what has one meaning"


def test_the_order_of_rows_does_not_matter() -> None:
    facts = [("a", "owns", "b"), ("b", "owns", "c"), ("a", "knows", "c"), ("d", "owns", "a")]
    expected = Terms.learn(NAMES, facts)
    for seed in range(5):
        rng = random.Random(seed)
        assert Terms.learn(rng.sample(NAMES, len(NAMES)), rng.sample(facts, len(facts))) == expected


def test_what_was_learned_is_the_same_when_loaded() -> None:
    terms = Terms.learn(NAMES, [("Beacon power bank", "made by", "Beacon"), ("Beacon", "sits in", "深圳")])
    assert Terms.of(terms.state()) == terms
    empty = Terms.learn([])
    assert Terms.of(empty.state()) == empty and empty.find("power bank") == []


def test_it_survives_the_file_beside_the_table(tmp_path: object) -> None:
    terms, url = Terms.learn(NAMES), f"{tmp_path}/learned.safetensors"
    storage.write_bytes(url, to_bytes(dict(terms.state())))
    assert Terms.of(load(url)) == terms


def test_neighbours_are_reached_by_hops_in_both_directions() -> None:
    terms = Terms.learn([], [("a", "owns", "b"), ("b", "owns", "c"), ("c", "knows", "a"), ("d", "owns", "a")])
    assert terms.neighbours("a") == [Fact("knows", "c", True), Fact("owns", "b"), Fact("owns", "d", True)]
    assert [f.name for f in terms.neighbours("d", 2)] == ["a", "c", "b"]
    assert [f.name for f in terms.neighbours("a", 3, ["owns"])] == ["b", "d", "c"]
    assert terms.neighbours("nobody") == []


def test_texts_are_expanded_by_what_they_do_not_say() -> None:
    terms = Terms.learn(NAMES, [("Beacon power bank", "has", "USB-C")])
    assert terms.expand("我的充电宝坏了") == "我的充电宝坏了 (Beacon power bank)"
    assert terms.expand("Beacon power bank 充电宝") == "Beacon power bank 充电宝"
    assert terms.expand("充电宝", hops=1) == "充电宝 (Beacon power bank, USB-C)"
    assert terms.expand("nothing here") == "nothing here"
    assert terms.canonical("两个充电宝和 portable chargers") == "两个Beacon power bank和 Beacon power bank"


def test_against_a_regular_expression_of_all_terms() -> None:
    """Leftmost, longest: what an alternation of all terms by falling length finds, on random texts."""
    rng = random.Random(7)
    words = ["red", "blue", "pan", "lid", "cup", "锅", "盖", "杯", "红"]
    for _ in range(300):
        chosen = {" ".join(rng.choices(words, k=rng.randint(1, 3))) for _ in range(6)}
        text = " ".join(rng.choices([*words, "panlid", "redo", ","], k=14))
        bounded = (rf"(?<![a-z]){re.escape(t)}(?![a-z])" for t in sorted(chosen, key=lambda t: (-len(t.split()), t)))
        expected = [(m.start(), m.end()) for m in re.finditer("|".join(bounded), text)]
        assert [(f.start, f.end) for f in Terms.learn([(t, t, None) for t in chosen]).find(text)] == expected


def test_plurals_are_folded_on_both_sides() -> None:
    for one, many in [
        ("box", "boxes"),
        ("battery", "batteries"),
        ("cup", "cups"),
        ("glass", "glasses"),
        ("bus", "bus"),
    ]:
        assert [t.text for t in tokens(one)] == [t.text for t in tokens(many)]
