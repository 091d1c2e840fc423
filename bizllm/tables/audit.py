"""What must hold of the staged files before anyone may read them. Counts come back, never rows or keys."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bizllm.errors import RunError
from bizllm.tables import storage
from bizllm.tables.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_STAGED = "staged"


@dataclass(frozen=True)
class AuditResult:
    """One rule and how it went. checked, broken: rows (of the schema rule: files). detail: numbers in words, or ''."""

    name: str
    checked: int
    broken: int
    detail: str = ""


def audit(
    urls: Sequence[str],
    keys: Sequence[str],
    rules: Mapping[str, str],
    expected: Mapping[str, int],
    schema: pa.Schema,
    memory: str = "1GB",
    threads: int = 1,
) -> list[AuditResult]:
    """Check the staged Parquet files of one night's slice: schema, accounting, keys, and the task's own rules.

    keys: must be unique together and never null. rules: name: a DuckDB condition on a row; null counts as broken.
    expected: `rows_in`, `rows_out`, `rows_rejected` and `records_out` as the receipts add them up.
    memory: what DuckDB may hold (`1GB`); beyond that it spills into a temporary folder.
    Raises RunError where a rule is no condition on these columns. Where the schema differs, rows are not looked at.
    """
    results = [_schema(urls, schema)]
    if results[0].broken:
        return results
    with tempfile.TemporaryDirectory(prefix="bizllm-audit-") as spill, _database(spill, memory, threads) as database:
        database.register(_STAGED, schema.empty_table())
        _bind(database, rules)
        database.register(_STAGED, _dataset(urls, schema))
        nulls = [f"{quoted(key)} is null" for key in keys]
        broken = [f"not coalesce(({condition}\n), false)" for condition in rules.values()]
        records, *counts = _counts(database, [*nulls, *broken])
        results += _accounting(expected, records)
        results += [AuditResult(f"{key} is not null", records, n) for key, n in zip(keys, counts, strict=False)]
        if keys:
            results.append(AuditResult(f"{', '.join(keys)} is unique", records, *_duplicates(database, keys)))
        results += [AuditResult(name, records, n) for name, n in zip(rules, counts[len(keys) :], strict=True)]
    return results


def _schema(urls: Sequence[str], schema: pa.Schema) -> AuditResult:
    declared = list(zip(schema.names, schema.types, strict=True))
    differing = 0
    detail = ""
    for url in urls:
        with storage.open_input(url) as stream:
            found = pq.read_schema(stream)
        if (said := list(zip(found.names, found.types, strict=True))) != declared:
            differing += 1
            columns = sorted({name for name, _ in set(declared) ^ set(said)}) or ["their order"]
            detail = detail or f"{url.rsplit('/', 1)[-1]} differs in {', '.join(columns)}"
    return AuditResult("declared schema", len(urls), differing, detail)


def _accounting(expected: Mapping[str, int], records: int) -> list[AuditResult]:
    rows_in, out, rejected = (expected[name] for name in ("rows_in", "rows_out", "rows_rejected"))
    return [
        AuditResult(
            "rows in = rows out + rejected",
            rows_in,
            abs(rows_in - out - rejected),
            f"{rows_in:,} in, {out:,} out, {rejected:,} rejected",
        ),
        AuditResult(
            "every record is staged",
            expected["records_out"],
            abs(expected["records_out"] - records),
            f"{expected['records_out']:,} answered, {records:,} in the files",
        ),
    ]


def _duplicates(database: DuckDBPyConnection, keys: Sequence[str]) -> tuple[int, str]:
    """Rows beyond the first of their key, and how many keys they have."""
    columns = ", ".join(map(quoted, keys))
    rows, distinct = _one(
        database,
        f"select coalesce(sum(n - 1), 0)::bigint, count(*) from "
        f"(select count(*) as n from {_STAGED} group by {columns} having count(*) > 1)",
    )
    return rows, f"{distinct:,} keys stand more than once" if distinct else ""


def _counts(database: DuckDBPyConnection, conditions: Sequence[str]) -> tuple[int, ...]:
    """The number of rows, and of those for which each condition holds; one pass over the files."""
    counts = "".join(f",\ncount(*) filter (where {condition})" for condition in conditions)
    return _one(database, f"select count(*){counts}\nfrom {_STAGED}")


def _one(database: DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    import duckdb

    try:
        row = database.execute(sql).fetchone()
    except duckdb.Error as fault:  # its message may quote a value of a row
        raise RunError(f"the audit failed in DuckDB: {type(fault).__name__}") from None
    assert row is not None
    return tuple(row)


def _bind(database: DuckDBPyConnection, rules: Mapping[str, str]) -> None:
    """Try each rule on no rows, where a message can't hold any."""
    import duckdb

    for name, condition in rules.items():
        try:
            database.execute(f"select ({condition}\n)::boolean from {_STAGED}").fetchall()
        except duckdb.Error as fault:
            raise RunError(f"audit rule '{name}' is no condition on the step's columns: {_first(fault)}") from None


def _dataset(urls: Sequence[str], schema: pa.Schema) -> ds.Dataset | pa.Table:
    if not urls:
        return schema.empty_table()
    store, _ = storage.filesystem(urls[0])
    return ds.dataset([storage.filesystem(url)[1] for url in urls], schema=schema, filesystem=store, format="parquet")


def _database(spill: str, memory: str, threads: int) -> DuckDBPyConnection:
    import duckdb

    options = {
        "memory_limit": memory,
        "threads": str(threads),
        "temp_directory": spill,
        "preserve_insertion_order": "false",
    }
    return duckdb.connect(":memory:", config={**options, "autoload_known_extensions": "false"})


def _first(fault: Exception) -> str:
    return str(fault).splitlines()[0].rstrip("!.")
