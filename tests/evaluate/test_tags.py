"""Against seqeval, over random tag sequences, broken ones too."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from bizllm.evaluate import tags

TAG = st.sampled_from(["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in ("PER", "LOC", "CARD-NO"))])
SEQUENCE = st.lists(TAG, max_size=12)
PAIRS = st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=8), min_size=1, max_size=5)


@settings(deadline=None, max_examples=300)
@given(SEQUENCE)
def test_spans_are_those_of_seqeval(sequence: list[str]) -> None:
    expected = [(start, end + 1, kind) for kind, start, end in get_entities(sequence)]
    assert tags.spans(sequence) == expected


@settings(deadline=None, max_examples=80)
@given(PAIRS)
def test_scores_are_those_of_seqeval(pairs: list[list[tuple[str, str]]]) -> None:
    truth = [[true for true, _ in row] for row in pairs]
    predicted = [[given_ for _, given_ in row] for row in pairs]
    scores = tags.scores(truth, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores["precision"] == pytest.approx(precision_score(truth, predicted, zero_division=0))
        assert scores["recall"] == pytest.approx(recall_score(truth, predicted, zero_division=0))
        assert scores["f1"] == pytest.approx(f1_score(truth, predicted, zero_division=0))
        if not scores["types"]:
            assert scores["macro_f1"] == 0.0
            return
        report = classification_report(truth, predicted, output_dict=True, zero_division=0)
    assert scores["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    for row in scores["types"]:
        expected = report[row["type"]]
        assert row["support"] == expected["support"]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"])
        )
    assert tags.f1_of_counts(tags.span_counts(truth, predicted)) == pytest.approx(scores["f1"])


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], [(0, 2, "PER"), (3, 4, "LOC")]),
        (["I-PER", "I-PER", "B-PER"], [(0, 2, "PER"), (2, 3, "PER")]),  # IOB1: B only where two spans touch
        (["O", "I-LOC", "I-PER"], [(1, 2, "LOC"), (2, 3, "PER")]),  # I after another type begins one
        (["B-PER", "E-PER", "S-LOC", "S-LOC"], [(0, 2, "PER"), (2, 3, "LOC"), (3, 4, "LOC")]),
        (["B-PER", "M-PER", "L-PER", "U-LOC"], [(0, 3, "PER"), (3, 4, "LOC")]),  # BMES and BILOU
        (["PER", "PER", "O", "LOC"], [(0, 2, "PER"), (3, 4, "LOC")]),  # types alone
        (["B", "E", "S"], [(0, 2, "_"), (2, 3, "_")]),  # marks alone
        ([], []),
    ],
)
def test_spans_by_hand(sequence: list[str], expected: list[tuple[int, int, str]]) -> None:
    assert tags.spans(sequence) == expected


def test_counts_are_of_each_row() -> None:
    truth = [["B-A", "I-A", "B-B"], ["O", "O"], ["B-A", "O"]]
    predicted = [["B-A", "I-A", "B-A"], ["O", "O"], ["O", "O"]]
    np.testing.assert_array_equal(tags.span_counts(truth, predicted), [[1, 2, 2], [0, 0, 0], [0, 0, 1]])
    assert tags.span_counts([], []).shape == (0, 3)
