"""Hashes: equal for equal rows, however they are typed, cut or ordered; different for different ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from bizllm.tables import hashing

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "k": st.sampled_from(["a", "b", "客户", "", None]),
            "i": st.none() | st.integers(-(2**40), 2**40),
            "f": st.none() | st.floats(width=64),
            "s": st.none() | st.text(max_size=6),
            "l": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
        }
    ),
    min_size=1,
    max_size=12,
)
SCHEMA = pa.schema(
    [("k", pa.string()), ("i", pa.int64()), ("f", pa.float64()), ("s", pa.string()), ("l", pa.list_(pa.string()))]
)
COLUMNS = ["i", "f", "s", "l"]


def hexes(values: list[Any], kind: pa.DataType) -> list[str]:
    return hashing.hex(*hashing.row_hashes(pa.table({"x": pa.array(values, kind)}), ["x"])).to_pylist()


def tally(table: pa.Table) -> dict[Any, tuple[int, int, int]]:
    return {row["k"]: (row["__n"], row["__hi"], row["__lo"]) for row in table.to_pylist()}


def test_a_hash_is_the_md5_of_the_canonical_text() -> None:
    table = pa.table({"a": [5, None], "s": ["né", None]})
    expected = [hashlib.md5(text.encode()).hexdigest() for text in ("5:3:né", "~:~:~")]
    assert hashing.hex(*hashing.row_hashes(table, ["a", "s"])).to_pylist() == expected


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 12))
def test_cutting_a_table_changes_no_hash(rows: list[dict[str, Any]], cut: int) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    whole = hashing.hex(*hashing.row_hashes(table, COLUMNS)).to_pylist()
    parts = [table.slice(0, cut), table.slice(cut)]
    assert [h for part in parts for h in hashing.hex(*hashing.row_hashes(part, COLUMNS)).to_pylist()] == whole
    assert hashing.hex(*hashing.row_hashes(pa.concat_tables(parts), COLUMNS)).to_pylist() == whole


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 12), seed=st.randoms(use_true_random=False))
def test_a_groups_tally_is_free_of_order_and_adds_up(rows: list[dict[str, Any]], cut: int, seed: Any) -> None:
    whole = tally(hashing.group_tallies(pa.Table.from_pylist(rows, SCHEMA), ["k"], COLUMNS))
    seed.shuffle(rows)
    table = pa.Table.from_pylist(rows, SCHEMA)
    parts = [hashing.group_tallies(part, ["k"], COLUMNS) for part in (table.slice(0, cut), table.slice(cut))]
    assert tally(hashing.merge_tallies(parts, ["k"])) == whole
    for key, (n, hi, lo) in whole.items():  # against Python's own integers
        own = pa.Table.from_pylist([row for row in rows if row["k"] == key], SCHEMA)
        words = hashing.row_hashes(own, COLUMNS)
        assert (n, hi, lo) == (len(own), *(sum(map(int, word)) % 2**64 for word in words))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), [None, "", "0", "a", "~", "-"]),
        (pa.float64(), [None, 0.0, 1.0, float("nan"), float("inf"), -1.0, 1e-300]),
        (pa.bool_(), [None, True, False]),
        (pa.decimal128(20, 2), [None, Decimal("0.00"), Decimal("1.50"), Decimal("-1.50")]),
        (pa.list_(pa.string()), [None, [], [None], [""], ["ab"], ["a", "b"], ["a", None, "b"]]),
        (pa.struct([("a", pa.int64()), ("b", pa.string())]), [None, {}, {"a": 1}, {"b": "1"}, {"a": 1, "b": ""}]),
        (pa.map_(pa.string(), pa.int64()), [None, [], [("a", 1)], [("a", None)], [("a", 1), ("b", 2)]]),
        (pa.binary(), [None, b"", b"\x00", b"\xff\xfe", b":"]),
        (pa.date32(), [None, date(1970, 1, 1), date(2024, 2, 29)]),
    ],
)
def test_different_values_differ(kind: pa.DataType, values: list[Any]) -> None:
    assert len(set(hexes(values, kind))) == len(values)


def test_neighbouring_columns_do_not_run_into_each_other() -> None:
    table = pa.table({"a": ["x", "x:1", "", None], "b": [":1:y", "y", "x", "x"]})
    assert len(set(hashing.hex(*hashing.row_hashes(table, ["a", "b"])).to_pylist())) == 4
    assert hashing.row_hashes(table, ["a", "b"])[0][0] != hashing.row_hashes(table, ["b", "a"])[0][0]


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([1, None, -7], [pa.int8(), pa.int32(), pa.int64()]),
        ([7, None], [pa.uint8(), pa.uint32(), pa.uint64(), pa.int16()]),
        (["a", None, "客"], [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]),
        ([1.5, None, -0.25], [pa.float32(), pa.float64()]),
        ([datetime(2024, 1, 1, tzinfo=UTC)], [pa.timestamp(unit, "UTC") for unit in ("s", "ms", "us", "ns")]),
        ([["a", None], None, []], [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.large_string())]),
    ],
)
def test_how_a_value_is_stored_does_not_matter(values: list[Any], kinds: list[pa.DataType]) -> None:
    assert all(hexes(values, kind) == hexes(values, kinds[0]) for kind in kinds)


def test_one_nan_and_one_zero() -> None:
    odd_nan = np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0]
    assert len(set(hexes([float("nan"), odd_nan], pa.float64()))) == 1
    assert len(set(hexes([0.0, -0.0], pa.float64()))) == 1


def test_a_slice_of_nested_rows_hashes_as_itself() -> None:
    table = pa.table({"l": pa.array([["a"], None, ["b", "c"], []]), "t": [{"x": 1}, None, {"x": None}, {"x": 2}]})
    whole = hashing.hex(*hashing.row_hashes(table, ["l", "t"])).to_pylist()
    assert hashing.hex(*hashing.row_hashes(table.slice(2, 2), ["l", "t"])).to_pylist() == whole[2:]


def test_buckets_are_the_same_in_another_process_and_for_any_integer_width() -> None:
    keys = list(range(1000))
    here = hashing.bucket_of(pa.table({"k": pa.array(keys, pa.int64())}), ["k"], 16)
    narrow = hashing.bucket_of(pa.table({"k": pa.array(keys, pa.int16())}), ["k"], 16)
    assert here.dtype == np.int32 and (here == narrow).all()
    expected = [int.from_bytes(hashlib.md5(str(k).encode()).digest()[8:], "big") % 16 for k in keys]
    assert here.tolist() == expected
    assert np.bincount(here, minlength=16).min() > 30  # evenly enough: 62.5 on average
    script = (
        "import pyarrow as pa; from bizllm.tables import hashing;"
        "print(hashing.bucket_of(pa.table({'k': list(range(1000))}), ['k'], 16).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(here.tolist())


def test_no_rows() -> None:
    table = SCHEMA.empty_table()
    assert len(hashing.row_hashes(table, COLUMNS)[0]) == 0
    assert hashing.hex(*hashing.row_hashes(table, COLUMNS)).to_pylist() == []
    assert hashing.group_tallies(table, ["k"], COLUMNS).num_rows == 0
