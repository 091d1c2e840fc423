"""Terms of texts, and which of them tell topics apart."""

from __future__ import annotations

import math

import numpy as np

from bizllm.methods.topic_terms import telling, terms


def test_terms_of_english_are_words_without_stop_words_and_numbers() -> None:
    assert terms("I don’t know where the Customer's 3 parcels are, x") == ["customer", "parcels"]
    assert terms("Ménage à trois: naïve café") == ["ménage", "trois", "naïve", "café"]
    assert terms("") == terms("12 + 7 = 19 !!!") == []


def test_terms_of_chinese_are_runs_between_the_glue() -> None:
    assert terms("我的退款") == ["退款"]
    assert terms("快递员没来") == ["快递", "递员", "快递员"]
    assert terms("订单 order 号码") == ["订单", "order", "号码"]


def test_the_weight_is_that_of_the_paper() -> None:
    """c-TF-IDF by hand: f times log(1 + A / f of all topics), with texts for counts."""
    said = [["apple", "ripe"], ["apple", "ripe"], ["apple", "box"], ["box", "tape"], ["box", "tape"], ["tape", "ripe"]]
    labels = np.array([0, 0, 0, 1, 1, 1])
    mean = 12 / 2
    first = {"apple": 3 * math.log(1 + mean / 3), "ripe": 2 * math.log(1 + mean / 3)}  # "box" stands in one text of it
    assert first["apple"] > first["ripe"]
    assert telling(said, labels, 2, 5) == [["apple", "ripe"], ["tape", "box"]]
    assert telling(said, np.where(labels == 1, -1, labels), 2, 5)[1] == []


def test_one_of_terms_that_say_the_same() -> None:
    said = [terms(text) for text in ["cards card ordering", "card cards ordered"] * 2 + ["我要开发票", "请开发票"]]
    first, second = telling(said, np.array([0, 0, 0, 0, 1, 1]), 2, 5)
    assert sorted(word[:4] for word in first) == ["card", "orde"]
    assert second == ["开发票"]
