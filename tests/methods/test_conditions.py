"""Conditions from YAML: what is right runs as SQL says, and nothing else runs at all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from bizllm.methods.conditions import fault, first_match

COLUMNS = ["money", "recency_days"]


@pytest.mark.parametrize(
    "condition",
    [
        "money > 3 and recency_days <= 2",
        "not (money < 1 or recency_days is null)",
        "coalesce(money, 0) between 1 and 2",
        "case when money > 1 then recency_days < 3 else false end",
        "round(abs(money - 1) * 2 / 3) in (1, 2)",
        "MONEY > 1e3 -- the big ones",
        "true",
    ],
)
def test_sound_conditions_pass(condition: str) -> None:
    assert fault(condition, COLUMNS) is None


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("", "one SQL condition"),
        ("money >", "one SQL condition"),
        ("money", "true or false"),
        ("moneyy > 1", "features only, not moneyy"),
        ("money > 'much'", "DuckDB can run"),
        ("money > 1; drop table subjects", "one SQL condition"),
        ("money > 1) from subjects; drop table subjects; select (true", "one SQL condition"),
        ("true) union select (true", "nothing else"),
        ("true) as x, (true", "nothing else"),
        ("true) from read_csv('/etc/passwd') where (true", "one SQL condition"),
        ("money > 1 limit 1", "one SQL condition"),
        ("exists (select 1)", "no subquery"),
        ("money in (select 1)", "no subquery"),
        ("money > (from read_text('/etc/passwd'))", "no subquery"),
        ("read_text('/etc/passwd') is null", "no function read_text"),
        ("getenv('HOME') = 'x'", "no function getenv"),
        ("current_setting('threads') > 1", "no function current_setting"),
        ("main.abs(money) > 1", "no function"),
        ("random() > 0.5", "no function random"),
        ("sum(money) > 1", "no function sum"),
        ("ln(money) > 1", "no function ln"),
        ("row_number() over () > 1", "no window"),
        ("[x for x in [1]] is null", "no function"),
        ("columns('m.*') > 1", "no star"),
        ("$1 > money", "no parameter"),
        ("money::int > 1", "no cast"),
        ("subjects.money > 1", "features only"),
    ],
)
def test_hostile_and_broken_conditions_are_refused(condition: str, said: str) -> None:
    wrong = fault(condition, COLUMNS)
    assert wrong is not None
    assert said in wrong
    assert "\n" not in wrong


@pytest.mark.parametrize("deep", [900, 100_000])
def test_deep_conditions_are_answered_not_crashed(deep: int) -> None:
    wrong = fault(" + ".join(["money"] * deep) + " > 1", COLUMNS)
    assert wrong is not None
    assert wrong.startswith("expected")


def test_the_first_condition_that_holds_wins_and_null_holds_for_none() -> None:
    rows = pa.table({"money": [5.0, 50.0, None, 0.5], "recency_days": pa.array([1, 90, 1, 400], pa.int32())})
    chosen = first_match(rows, ["money > 10", "recency_days < 30 and money > 0", "money is null"], COLUMNS)
    np.testing.assert_array_equal(chosen, [1, 0, 2, -1])


def test_rows_keep_their_order_in_large_tables() -> None:
    values = np.random.default_rng(0).normal(size=300_000)
    rows = pa.table({"money": values, "recency_days": np.zeros(len(values))})
    np.testing.assert_array_equal(first_match(rows, ["money > 0"], COLUMNS), np.where(values > 0, 0, -1))


def test_a_condition_that_was_not_checked_never_runs() -> None:
    with pytest.raises(AssertionError):
        first_match(pa.table({"money": [1.0]}), ["exists (select 1)"], ["money"])
