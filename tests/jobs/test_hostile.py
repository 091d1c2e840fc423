"""Rows and files as nobody should write them: each costs itself at most, never the rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError

NIGHT = "2026-03-10"
GOOD = "The parcel came late. The box was wet. I want my money back. Call me on Monday."
Job = Callable[..., str]
pytestmark = pytest.mark.usefixtures("local_ray")


def raw_strings(values: Sequence[bytes | None]) -> pa.Array:
    """A string column of these bytes, valid UTF-8 or not: as some writers leave it."""
    offsets = np.cumsum([0, *(len(value or b"") for value in values)]).astype(np.int32)
    there = np.packbits([value is not None for value in values], bitorder="little")
    data = b"".join(value or b"" for value in values)
    return pa.Array.from_buffers(pa.string(), len(values), [pa.py_buffer(part) for part in (there, offsets, data)])


@pytest.fixture
def night(job: Job, tmp_path: Path) -> Callable[..., tuple[Any, list[dict[str, Any]], dict[Any, str]]]:
    """night(table, step=…, key=…): the step's result, its rows, and the reject codes by key."""

    def run(table: pa.Table, key: Sequence[str] = ("id",), **step: Any) -> Any:
        (tmp_path / "hostile").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "hostile/a.parquet")
        pq.write_table(table.slice(0, 0), tmp_path / "hostile/no-rows.parquet")
        said = {"task": "summarize", "text": "body", "max_sentences": 1, **step}
        said = {name: value for name, value in said.items() if value is not None}
        said |= {"input": "hostile", "reject_budget": 1.0}
        path = job(sources={"hostile": {"path": "hostile", "key": list(key)}}, steps={"made": said})
        (result,) = api.run(path, date=NIGHT).steps
        rows = api.show(path, "made", limit=10_000).to_pylist()
        rejects = api.show(path, "made__rejects", limit=10_000).to_pylist()
        return result, rows, {row[key[0]]: row["code"] for row in rejects}

    return run


def test_texts(night: Any) -> None:
    texts = {
        "good": GOOD.encode(),
        "null": None,
        "empty": b"",
        "blank": b" \n\t\xe3\x80\x80",
        "surrogate": b"\xed\xa0\x80 lone. Second one here. Third one.",
        "broken": b"\xff\xfe broken. Next sentence. And more.",
        "cut": GOOD.encode() + "客".encode()[:2],
        "control": b"control \x00\x01\x1b[31m red. Next one. More.",
        "bidi": "\u202ertl override. Next. More here.".encode(),
        "emoji": "😀👩\u200d👩\u200d👧\u200d👦 came late. Next one. More here.".encode(),
        "wide": "ｆｕｌｌ　ｗｉｄｔｈ。次。もう一つ。".encode(),
        "large": b"Word one two three. " * 262_144,  # 5 MB
        "endless": b"a" * 5_000_000,
        "last": GOOD.encode(),
    }
    table = pa.table({"id": list(texts), "body": raw_strings(list(texts.values()))})
    result, rows, codes = night(table)
    assert (result.rows_in, result.rows_out, result.rows_rejected) == (len(texts), len(rows), len(codes))
    assert {row["id"] for row in rows} == {"good", "last", "bidi", "emoji", "wide"}
    assert codes == {
        **dict.fromkeys(("null", "empty", "blank"), "empty"),
        **dict.fromkeys(("surrogate", "broken", "cut", "control"), "undecodable"),
        **dict.fromkeys(("large", "endless"), "too_long"),
    }
    assert next(row for row in rows if row["id"] == "emoji")["summary"].startswith("😀👩\u200d👩\u200d👧\u200d👦")


def test_keys_that_are_no_text(night: Any) -> None:
    """They are rejected without the key, which no table could hold; also where they name a group."""
    keys = raw_strings([b"ok", b"\xff\xfe", b"\xed\xa0\x80", None, "好".encode()])
    table = pa.table({"id": keys, "body": [GOOD] * 5})
    result, rows, codes = night(table)
    assert sorted(row["id"] for row in rows) == ["ok", "好"] and codes == {None: "no_key"}
    assert (result.rows_in, result.rows_rejected) == (5, 3)
    table = pa.table({"id": ["1", "2", "3", "4", "5"], "shop": keys, "body": [GOOD] * 5})
    result, rows, codes = night(table, per=["shop"])
    assert sorted(row["shop"] for row in rows) == ["ok", "好"] and result.rows_in == 2
    assert set(codes.values()) == {"no_key"} and set(codes) == {"2", "3", "4"}


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59), datetime(1969, 12, 31)], pa.timestamp("us")),
        pa.array([date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1)]),
        pa.array([Decimal("-0.0000000001"), Decimal("9" * 28 + ".1"), Decimal(0)], pa.decimal128(38, 10)),
        pa.array(["a", "b", "c"]).dictionary_encode(),
        pa.array(["a", "", "客"], pa.large_string()),
        pa.array([2**63 - 1, -(2**63), 0]),
        pa.array([b"\x00", b"\xff", b""]),
        pa.array([True, False, None]),
    ],
    ids=lambda keys: str(keys.type),
)
def test_keys_of_all_types(night: Any, keys: pa.Array) -> None:
    bodies = pa.array([GOOD, "One. Two. Three. Four.", None]).dictionary_encode()
    _, rows, codes = night(pa.table({"id": keys, "body": bodies}))
    assert [row["id"] for row in rows] == keys.to_pylist()[:2]
    assert codes == {keys.to_pylist()[2]: "no_key" if keys.null_count else "empty"}


def test_columns_beside(night: Any) -> None:
    """Nested values, NaN and infinities, and thousands of columns that nobody reads."""
    beside = {f"c{i}": pa.array([float("nan"), float("-inf")]) for i in range(10_000)}
    nested = pa.array([{"a": [1, None], "b": {"c": "x"}}, None])
    _, rows, codes = night(pa.table({"id": ["1", "2"], "body": [GOOD, GOOD], "nested": nested, **beside}))
    assert len(rows) == 2 and not codes


def test_numbers_that_are_none(night: Any) -> None:
    """A series with NaN, infinities and nulls among its values is forecast from the others."""
    days = [date(2026, 1, 1 + i) for i in range(28)] * 2
    values = [float(i % 7) for i in range(28)] + [float("nan"), float("inf"), float("-inf"), None] * 7
    table = pa.table({"id": [str(i) for i in range(56)], "shop": ["a"] * 28 + ["b"] * 28, "day": days, "units": values})
    result, rows, codes = night(
        table,
        task="forecast",
        series=["shop"],
        time="day",
        target="units",
        freq="D",
        horizon=3,
        text=None,
        max_sentences=None,
    )
    assert {row["shop"] for row in rows} == {"a"} and all(np.isfinite(row["mean"]) for row in rows)
    assert result.rows_in == 2 == result.rows_out + result.rows_rejected and codes


@pytest.mark.parametrize("damage", ["truncated", "encrypted", "empty", "other"])
def test_files_that_are_no_parquet(job: Job, tmp_path: Path, damage: str) -> None:
    """Named before anything is begun."""
    file = tmp_path / f"tickets/dt={NIGHT}/part-0.parquet"
    whole = file.read_bytes()
    file.with_name("part-1.parquet").write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "encrypted": whole[:-4] + b"PARE",
            "empty": b"",
            "other": b"id,body\n1,hello\n",
        }[damage]
    )
    with pytest.raises(UserError, match=r"sources\.tickets\.path: '.*part-1\.parquet': expected a Parquet file"):
        api.run(job(steps__segments=None, sources__orders=None), date=NIGHT)
    assert not (tmp_path / "wh/shop").exists()
