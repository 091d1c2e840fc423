"""Every row is in one value of each slice, and each value's score is that of its rows alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.evaluate import resample, slices


def test_scores_are_of_the_slices_rows() -> None:
    truth = np.array([0, 0, 1, 1, 1, 0])
    predicted = np.array([0, 1, 1, 1, 0, 1])
    source = ["mail", "mail", "chat", None, "mail", "chat"]
    lengths = ["13–20 tokens", "1–12 tokens", "1–12 tokens", "1–12 tokens", "1–12 tokens", "102–300 tokens"]
    table = slices.slice_scores(resample.accuracy, [truth, predicted], {"source": source, "length": lengths})
    assert [(row["slice"], row["value"], row["rows"], row["score"]) for row in table] == [
        ("source", "mail", 3, pytest.approx(1 / 3)),
        ("source", "chat", 2, 0.5),
        ("source", "(none)", 1, 1.0),
        ("length", "1–12 tokens", 4, 0.5),
        ("length", "13–20 tokens", 1, 1.0),
        ("length", "102–300 tokens", 1, 0.0),
    ]
    mail = table[0]
    assert mail["interval"] == resample.interval(
        resample.accuracy, [truth[[0, 1, 4]], predicted[[0, 1, 4]]], samples=500
    )
    assert mail["interval"][0] < mail["score"] < mail["interval"][1]


def test_length_bins_are_quartiles() -> None:
    names = slices.length_bins(np.arange(1, 101))
    assert sorted(set(names), key=names.index) == ["1–25 tokens", "26–50 tokens", "51–75 tokens", "76–100 tokens"]
    assert slices.length_bins(np.array([1, 1, 1, 9])) == ["1 token", "1 token", "1 token", "9 tokens"]


@given(st.lists(st.integers(0, 512), min_size=1, max_size=60))
def test_length_bins_hold_their_rows_and_do_not_overlap(lengths: list[int]) -> None:
    names = slices.length_bins(np.array(lengths))
    ranges = {name: [int(part) for part in name.split(" ")[0].split("–")] for name in names}
    for length, name in zip(lengths, names, strict=True):
        assert ranges[name][0] <= length <= ranges[name][-1]
    ordered = sorted(ranges.values())
    assert len(ordered) <= 4
    assert all(before[-1] < after[0] for before, after in pairwise(ordered))


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Where is my refund?", "latin"),
        ("¿Dónde está mi teléfono?", "latin"),
        ("我的iPhone坏了，怎么办", "cjk"),
        ("スマホが壊れた", "cjk"),
        ("휴대폰이 고장났어요", "cjk"),
        ("Крышка течёт", "other"),
        ("12:30 !!", "other"),
        ("", "other"),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert slices.script_of(text) == script
