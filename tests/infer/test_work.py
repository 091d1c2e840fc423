"""Answers lose no subject, whatever one bad row does to a library."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.errors import RunError
from bizllm.infer.groups import cut
from bizllm.infer.subjects import answered
from bizllm.tasks.base import Groups, Outcome, Reject


def double(rows: pa.Table) -> Outcome:
    """Doubles x; refuses negative numbers by a reject, and blows up on 13."""
    values = rows["x"].to_numpy()
    if (values == 13).any():
        raise ValueError("Jane Doe is no number")
    good = np.flatnonzero(values >= 0)
    rejects = [Reject(int(i), "negative", "below zero") for i in np.flatnonzero(values < 0)]
    return Outcome(good, pa.table({"twice": values[good] * 2}), rejects, tokens=len(values))


@given(st.lists(st.integers(-3, 20), max_size=40))
def test_every_row_is_answered_or_rejected_once(values: list[int]) -> None:
    rows = pa.table({"x": pa.array(values, pa.int64())})
    outcome = answered(double, rows, len(values), lambda a, b: rows.slice(a, b - a))
    rejected = {r.subject: r for r in outcome.rejects}
    assert sorted([*outcome.subject, *rejected]) == list(range(len(values)))
    assert [values[i] * 2 for i in outcome.subject] == (
        outcome.columns["twice"].to_pylist() if outcome.columns.num_columns else []
    )
    assert {i for i, r in rejected.items() if r.code == "failed"} == {i for i, v in enumerate(values) if v == 13}
    assert not any("Jane" in r.message for r in outcome.rejects), "a library's message may hold row text"


def test_errors_of_the_run_go_through() -> None:
    def broken(rows: pa.Table) -> Outcome:
        raise RunError("the bucket is gone")

    with pytest.raises(RunError, match="bucket"):
        answered(broken, pa.table({"x": [1, 2]}), 2, lambda a, b: pa.table({"x": [1]}))


def test_what_does_not_fit_into_memory_is_halved() -> None:
    """Down to the row that alone is too much."""
    rows = pa.table({"x": [1, 2, 100, 3]})

    def narrow(batch: pa.Table) -> Outcome:
        if len(batch) > 2 or 100 in batch["x"].to_pylist():
            raise MemoryError
        return double(batch)

    outcome = answered(narrow, rows, 4, lambda a, b: rows.slice(a, b - a))
    assert outcome.subject.tolist() == [0, 1, 3] and outcome.columns["twice"].to_pylist() == [2, 4, 6]
    assert [(r.subject, r.code, r.message.split()[0]) for r in outcome.rejects] == [(2, "failed", "MemoryError")]


def test_a_task_that_forgets_a_row_is_caught() -> None:
    def forgets(rows: pa.Table) -> Outcome:
        return Outcome(np.array([0]), pa.table({"y": [1]}))

    with pytest.raises(AssertionError, match="every subject once"):
        answered(forgets, pa.table({"x": [1, 2]}), 2, lambda a, b: pa.table({"x": [1]}))


def test_cutting_groups_keeps_rows_with_their_group() -> None:
    groups = Groups(
        pa.table({"v": [1, 2, 3, 4, 5]}),
        np.array([0, 2, 2, 4, 5]),
        pa.table({"k": ["a", "b", "c", "d"]}),
        pa.table({"before": ["p", "q", "r", "s"]}),
    )
    part = cut(groups, 1, 4)
    assert part.keys["k"].to_pylist() == ["b", "c", "d"]
    assert part.starts.tolist() == [0, 0, 2, 3]
    assert part.rows["v"].to_pylist() == [3, 4, 5]
    assert part.prior is not None and part.prior["before"].to_pylist() == ["q", "r", "s"]
