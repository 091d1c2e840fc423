"""Row accounting, the reject budget, and what spares it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bizllm.infer.receipts import Receipt, reject_key
from bizllm.jobs.accounting import Counts, Refused


def answered(rows_in: int, rows_out: int, **rejected: int) -> list[Receipt]:
    """One unit's receipt with rejects of scope row by code."""
    named = {reject_key("row", code, "said why"): count for code, count in rejected.items()}
    return [Receipt("answer", "u00000", "run", rows_in, rows_out, records_out=rows_out, rejected=named)]


def held(receipts: list[Receipt], budget: float = 0.01) -> Counts:
    """The counts, held against the budget."""
    counts = Counts.of(receipts, receipts, "row", sum(r.rows_in for r in receipts))
    counts.hold({("row", k.split("|")[1], ""): n for r in receipts for k, n in r.rejected.items()}, budget)
    return counts


def test_rejects_of_the_data_spare_the_budget() -> None:
    counts = held(answered(100, 60, empty=40))
    assert (counts.rows_in, counts.rows_out, counts.rows_rejected) == (100, 60, 40)
    with pytest.raises(Refused, match=r"2 of 100 rows were rejected \(too_long 2\), over the reject_budget of 1.00%"):
        held(answered(100, 98, too_long=2))
    held(answered(100, 99, too_long=1))
    held(answered(100, 98, too_long=2), budget=0.02)


def test_every_row_rejected_always_fails() -> None:
    with pytest.raises(Refused, match="every row was rejected"):
        held(answered(3, 0, empty=3), budget=1.0)


def test_a_lost_row_is_noticed() -> None:
    with pytest.raises(Refused, match="row accounting: 10 in, 8 out, 1 rejected"):
        held(answered(10, 8, empty=1))


def test_a_unit_that_answers_twice_counts_once() -> None:
    receipts = answered(10, 10)
    assert Counts.of(receipts, receipts, "row", 10).tokens == 0
    first = [replace(receipts[0], stage="features", rows_in=10, rows_out=9, rows_skipped=1)]
    counts = Counts.of(first, answered(9, 9), "row", 10)
    assert (counts.rows_in, counts.rows_out) == (9, 9), "what the settings leave out did not come in"


def test_no_input_is_no_fault() -> None:
    held([])
