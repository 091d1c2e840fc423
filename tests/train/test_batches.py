"""Who computes which rows in which step."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.train.batches import BatchPlan, accumulation, share
from bizllm.train.work import take

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=300).map(lambda some: np.array(some, np.int64))
PLANS = st.builds(BatchPlan, LENGTHS, st.integers(1, 40), st.integers(0, 5), st.booleans())


@given(PLANS, st.integers(0, 3))
def test_an_epoch_has_each_example_once(plan: BatchPlan, epoch: int) -> None:
    batches = plan.epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(plan.lengths)))
    assert len(batches) == plan.steps_per_epoch
    sizes = sorted(map(len, batches))
    assert sizes[1:] == [plan.batch] * (len(sizes) - 1), "only one may be smaller"


@given(PLANS, st.integers(0, 30))
def test_to_go_on_at_a_step_is_to_skip_the_ones_before(plan: BatchPlan, start: int) -> None:
    whole = list(islice(plan.from_step(0), start + 5))
    later = list(islice(plan.from_step(start), 5))
    assert [step for step, _ in later] == list(range(start, start + 5))
    for (_, one), (_, other) in zip(whole[start:], later, strict=True):
        np.testing.assert_array_equal(one, other)


@given(PLANS, st.integers(1, 6), st.integers(1, 5))
def test_all_shares_together_are_the_batch(plan: BatchPlan, workers: int, parts: int) -> None:
    for _, rows in islice(plan.from_step(0), 3):
        shares = [share(rows, plan.lengths, rank, workers, parts) for rank in range(workers)]
        assert all(len(mine) == parts for mine in shares)
        assert sorted(np.concatenate([part for mine in shares for part in mine])) == sorted(rows)
        sizes = [len(part) for mine in shares for part in mine]
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 50))
def test_no_micro_batch_is_larger_than_asked(batch: int, workers: int, micro_batch: int) -> None:
    parts = accumulation(batch, workers, micro_batch)
    rows = np.arange(batch)
    sizes = [len(part) for rank in range(workers) for part in share(rows, rows, rank, workers, parts)]
    assert max(sizes) <= micro_batch
    if parts > 1:  # and no more of them than it takes
        fewer = [len(part) for rank in range(workers) for part in share(rows, rows, rank, workers, parts - 1)]
        assert max(fewer) > micro_batch


def test_epochs_differ_and_lengths_are_grouped() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 4000)
    padding = {}
    for grouped in (True, False):
        plan = BatchPlan(lengths, 32, 1, grouped)
        first, second = plan.epoch(0), plan.epoch(1)
        assert any(set(a) != set(b) for a, b in zip(first, second, strict=True))
        longest = [lengths[rows].max() for rows in first]
        padding[grouped] = sum(most * len(rows) for most, rows in zip(longest, first, strict=True)) / lengths.sum()
        assert not all(a >= b for a, b in pairwise(longest)), "lengths come in no order"
    assert padding[True] < 1.05 < 1.5 < padding[False]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.data())
def test_take_is_arrows_take(chunks: list[int], data: st.DataObject) -> None:
    rows = sum(chunks)
    if not rows:
        return
    whole = pa.table({"list": [[i] * (i % 4) for i in range(rows)], "text": [str(i) for i in range(rows)]})
    ends = np.cumsum([0, *chunks])
    table = pa.concat_tables([whole.slice(a, b - a) for a, b in pairwise(ends.tolist())])
    picked = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20)))
    assert take(table, picked).to_pylist() == whole.take(pa.array(picked)).to_pylist()


@pytest.mark.parametrize(("batch", "workers", "micro_batch", "parts"), [(32, 2, None, 1), (32, 2, 8, 2), (33, 2, 8, 3)])
def test_accumulation(batch: int, workers: int, micro_batch: int | None, parts: int) -> None:
    assert accumulation(batch, workers, micro_batch) == parts
