"""The audit: every kind of broken slice is told, by counts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import RunError
from bizllm.tables.audit import AuditResult, audit

SCHEMA = pa.schema([("store", pa.string()), ("day", pa.date32()), ("mean", pa.float64()), ("p", pa.float64())])
ROWS: dict[str, list[Any]] = {
    "store": ["oslo", "oslo", "北京"],
    "day": pa.array([1, 2, 1], pa.date32()),
    "mean": [1.0, 2.0, 3.0],
    "p": [0.0, 0.5, 1.0],
}
RULES = {"probabilities within [0, 1]": "p between 0 and 1", "no NaN": "not isnan(mean) -- a comment"}
COUNTS = {"rows_in": 4, "rows_out": 3, "rows_rejected": 1, "records_out": 3}


def staged(folder: Path, *tables: dict[str, Any], schema: pa.Schema = SCHEMA) -> list[str]:
    urls = [str(folder / f"part-{number}.parquet") for number in range(len(tables))]
    for url, table in zip(urls, tables, strict=True):
        pq.write_table(pa.table(table, schema=schema), url)
    return urls


def broken(results: list[AuditResult]) -> dict[str, int]:
    return {result.name: result.broken for result in results if result.broken}


def test_a_sound_slice(tmp_path: Path) -> None:
    results = audit(staged(tmp_path, ROWS), ["store", "day"], RULES, COUNTS, SCHEMA)
    assert broken(results) == {}
    assert {result.name: result.checked for result in results} == {
        "declared schema": 1,
        "rows in = rows out + rejected": 4,
        "every record is staged": 3,
        "store is not null": 3,
        "day is not null": 3,
        "store, day is unique": 3,
        "probabilities within [0, 1]": 3,
        "no NaN": 3,
    }


def test_duplicates_within_and_across_files_without_a_key_in_the_message(tmp_path: Path) -> None:
    urls = staged(tmp_path, ROWS, ROWS, {**ROWS, "day": pa.array([1, 1, 9], pa.date32())})
    results = audit(urls, ["store", "day"], {}, {**COUNTS, "records_out": 9}, SCHEMA)
    assert broken(results) == {"store, day is unique": 5}
    (unique,) = [result for result in results if result.broken]
    assert unique.detail == "3 keys stand more than once"
    assert not any("oslo" in str(result) or "北京" in str(result) for result in results)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"store": [None, "oslo", "x"]}, {"store is not null": 1}),
        ({"p": [-0.1, None, 1.1]}, {"probabilities within [0, 1]": 3}),
        ({"p": [float("nan"), 0.0, 1.0]}, {"probabilities within [0, 1]": 1}),
        ({"mean": [float("nan"), None, 1.0]}, {"no NaN": 2}),
    ],
)
def test_rules_and_nulls(tmp_path: Path, change: dict[str, Any], expected: dict[str, int]) -> None:
    assert broken(audit(staged(tmp_path, {**ROWS, **change}), ["store", "day"], RULES, COUNTS, SCHEMA)) == expected


def test_columns_of_any_name(tmp_path: Path) -> None:
    schema = pa.schema([('a"b', pa.string()), ("n", pa.int64())])
    urls = staged(tmp_path, {'a"b': ["x", "x", None], "n": [1, 2, 3]}, schema=schema)
    assert broken(audit(urls, ['a"b'], {}, COUNTS, schema)) == {'a"b is unique': 1, 'a"b is not null': 1}


def test_accounting(tmp_path: Path) -> None:
    urls = staged(tmp_path, ROWS)
    lost = audit(urls, [], {}, {**COUNTS, "rows_in": 6}, SCHEMA)
    assert broken(lost) == {"rows in = rows out + rejected": 2}
    unstaged = audit(urls, [], {}, {**COUNTS, "records_out": 5}, SCHEMA)
    assert broken(unstaged) == {"every record is staged": 2}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (SCHEMA.set(2, pa.field("mean", pa.float32())), "mean"),
        (SCHEMA.set(2, pa.field("average", pa.float64())), "average, mean"),
        (pa.schema([SCHEMA.field(i) for i in (1, 0, 2, 3)]), "their order"),
    ],
)
def test_another_schema_is_named_by_file_and_column(tmp_path: Path, schema: pa.Schema, named: str) -> None:
    (good,) = staged(tmp_path, ROWS)
    values = {name: ROWS.get(name, ROWS["mean"]) for name in schema.names}
    bad = str(tmp_path / "part-9.parquet")
    pq.write_table(pa.table(values, schema=schema), bad)
    (result,) = audit([good, bad], ["store"], RULES, COUNTS, SCHEMA)
    assert (result.checked, result.broken) == (2, 1)
    assert result.detail == f"part-9.parquet differs in {named}"


def test_no_files_at_all() -> None:
    counts = {"rows_in": 2, "rows_out": 0, "rows_rejected": 2, "records_out": 0}
    results = audit([], ["store"], RULES, counts, SCHEMA)
    assert broken(results) == {} and len(results) == 7 - 1 + 1


def test_a_rule_that_is_none_fails_by_name(tmp_path: Path) -> None:
    urls = staged(tmp_path, ROWS)
    with pytest.raises(RunError, match="audit rule 'bad' is no condition"):
        audit(urls, [], {"bad": "nothing > 1"}, COUNTS, SCHEMA)


def test_a_rule_that_fails_on_a_row_does_not_quote_it(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        audit(staged(tmp_path, ROWS), [], {"cast": "store::int > 1"}, COUNTS, SCHEMA)
    assert "oslo" not in str(caught.value)


def test_keys_beyond_the_memory_limit_spill(tmp_path: Path) -> None:
    count = 400_000
    table = pa.table({"k": pa.array([f"customer-{i:030d}" for i in range(count)] + ["customer-" + "0" * 30])})
    pq.write_table(table, tmp_path / "x.parquet")
    counts = {"rows_in": count + 1, "rows_out": count + 1, "rows_rejected": 0, "records_out": count + 1}
    results = audit([str(tmp_path / "x.parquet")], ["k"], {}, counts, table.schema, memory="30MB")
    assert broken(results) == {"k is unique": 1}
