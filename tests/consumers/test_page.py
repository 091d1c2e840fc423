"""docs/consumers.md: its Python runs on published tables, its SQL is of its dialect and names columns that exist."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

from bizllm import api
from tests.published import Tables, demo

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/consumers.md"
# What sqlglot does not parse but hands through as it is; the page says so.
UNKNOWN = ("create external volume", "create catalog integration", "create or replace external table")


def sql_blocks() -> list[tuple[str, str]]:
    """(dialect, statement) of every SQL block, with the places that a reader fills in filled in."""
    found = re.findall(r"^<!-- (\w+) -->\n```sql\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(found) == PAGE.read_text().count("```sql"), "each SQL block says whose it is"
    return [(dialect, one.strip()) for dialect, text in found for one in text.split(";") if one.strip()]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "jobs").symlink_to(ROOT / "jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BIZLLM_WAREHOUSE", str(folder / "out/warehouse"))
        yield demo()


@pytest.mark.filterwarnings("ignore")
def test_the_python_of_the_page(tables: Tables) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["newest"] == date(2026, 6, 30), "the failed night of July 1 does not count"
    night = names["night"].set_index("customer_id")
    assert night.segment.to_dict() == {"C1": "loyal", "C2": "loyal", "C3": "new"}
    assert names["sizes"].rows() == [("loyal", 2), ("new", 1)] == names["counts"]
    assert names["then"].segment.tolist() == ["loyal", "new"], "as run r1 published June 29, before its rerun"
    assert (names["nights"], names["again"]) == (["2026-06-29", "2026-06-30"], [])
    tables.publish("customer_segment", date(2026, 6, 29), "r5", [{"customer_id": "C1", "segment": "lost"}])
    assert names["changed_nights"](names["table"].refresh(), names["seen"])[0] == ["2026-06-29"]
    with pytest.raises(LookupError, match="has expired"):
        names["changed_nights"](names["table"], since=42)
    assert [(key, summary) for key, _, summary in names["answered"]] == [
        ("T260630-0001", "孩子睡不好。"),
        ("T260630-0002", "想退货。"),
    ]
    assert all(body for _, body, _ in names["answered"])
    assert names["why"] == [("empty", 1)]
    assert names["lineage"] == [("r2", "summarize", "builtin:minilm", "done")]


def test_freshness_by_show(tables: Tables) -> None:
    (sql,) = re.findall(r'^bizllm show jobs/demo.yaml --sql "([^"]*)"$', PAGE.read_text(), re.M)
    newest = date(2026, 6, 30)
    found = api.show("jobs/demo.yaml", sql=f"{sql} order by 1").to_pylist()
    assert found == [{"step": "customer_segment", "newest": newest}, {"step": "ticket_summary", "newest": newest}]


@pytest.fixture(scope="module")
def columns(tables: Tables) -> dict[str, dict[str, str]]:
    """By table, as sqlglot wants them; Iceberg's own tables of snapshots too."""
    promised = api.contract("jobs/demo.yaml")["tables"]
    found = {name: dict.fromkeys(table["columns"], "text") for name, table in promised.items()}
    snapshots = dict.fromkeys(("snapshot_id", "committed_at", "summary"), "text")
    return {**found, "snapshots": snapshots, "customer_segment$snapshots": snapshots}


@pytest.mark.parametrize(("dialect", "statement"), sql_blocks())
def test_the_sql_of_the_page(
    columns: dict[str, dict[str, str]], caplog: pytest.LogCaptureFixture, dialect: str, statement: str
) -> None:
    filled = statement.replace("{metadata}", "x.metadata.json").replace("{snapshot}", "42")
    with caplog.at_level(logging.ERROR, "sqlglot"):
        tree = sqlglot.parse_one(filled, dialect=dialect)
    known = not isinstance(tree, exp.Command)
    assert known != filled.startswith(UNKNOWN), f"{type(tree).__name__}: {filled}"
    query = tree.find(exp.Select)
    if query is None or "iceberg_" in filled:
        return
    for table in query.find_all(exp.Table):  # whatever a catalog and a namespace are called
        table.set("db", None)
        table.set("catalog", None)
    views = {"customer_segment_newest": columns["customer_segment"]}
    checked = qualify(query, schema=MappingSchema({**columns, **views}, dialect=dialect), dialect=dialect)
    assert checked.selects


def test_a_column_that_is_not_there_is_found(columns: dict[str, dict[str, str]]) -> None:
    with pytest.raises(SqlglotError):
        qualify(sqlglot.parse_one("select segmnt from customer_segment"), schema=MappingSchema(columns))
