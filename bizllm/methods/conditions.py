"""Conditions that people write in YAML, such as `recency_days <= 30 and money > 500`, checked and run by DuckDB.

A condition is one expression over named numbers. It is parsed by DuckDB itself and its syntax tree may hold only what
is listed here, so nothing that reads a file, a setting or another table, and nothing that fails on some row, can run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

_CLASSES = {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "FUNCTION"}
# No function that raises for some numbers (ln, sqrt, casts): a condition that passed the check answers every row.
_FUNCTIONS = {"+", "-", "*", "/", "abs", "round", "floor", "ceil", "ceiling", "least", "greatest", "isnan", "isfinite"}
LONGEST = 4_000
_CLAUSES = {"type", "aggregate_handling", "cte_map", "from_table", "select_list"}  # what `select x from t` has


def sandbox() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that reads no file, loads no extension and can't be told otherwise.

    One thread: Ray already runs one worker for each core.
    """
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": 1,
            "lock_configuration": "true",
        },
    )


def fault(condition: str, columns: Sequence[str]) -> str | None:
    """What is wrong with a condition over these columns of numbers, in words; None where it is right."""
    with sandbox() as con:
        wrong = _syntax_fault(con, condition, columns)
        if wrong:
            return wrong
        # A row of numbers and a row of nulls: types are wrong for every row or for none.
        probe = pa.table({c: pa.array([0.0, None], pa.float64()) for c in columns})
        con.register("subjects", probe)
        try:
            answer = con.sql(f"select {_wrapped(condition)} from subjects").to_arrow_table()
        except _errors() as error:
            return f"expected a condition that DuckDB can run ({_first_line(error)})"
        kind = answer.schema.types[0]
        return None if pa.types.is_boolean(kind) else f"expected a condition that is true or false, not {kind}"


def first_match(rows: pa.Table, conditions: Sequence[str], columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """(rows,) the position of the first condition that holds, or -1. A condition that is null doesn't hold.

    The conditions must have passed `fault` with the same columns.
    """
    arms = " ".join(f"when {_wrapped(condition)} then {i}" for i, condition in enumerate(conditions))
    numbers = pa.table({c: rows.column(c).cast(pa.float64()) for c in columns} | {"_row": np.arange(rows.num_rows)})
    with sandbox() as con:
        for condition in conditions:
            assert _syntax_fault(con, condition, columns) is None, "conditions are checked before they run"
        con.register("subjects", numbers)
        chosen = con.sql(f"select (case {arms} else -1 end)::bigint as i from subjects order by _row")
        return np.asarray(chosen.to_arrow_table()["i"].to_numpy(), dtype=np.int64)


def _errors() -> type[Exception]:
    """The base of DuckDB's exceptions, without importing DuckDB at module level."""
    import duckdb

    return duckdb.Error


def _wrapped(condition: str) -> str:
    return f"(\n{condition}\n)"  # on lines of its own, so that a comment at its end closes


def _syntax_fault(con: duckdb.DuckDBPyConnection, condition: str, columns: Sequence[str]) -> str | None:
    if not condition.strip() or len(condition) > LONGEST:
        return f"expected one SQL condition of at most {LONGEST} characters"
    sql = f"select {_wrapped(condition)} from subjects"
    ((serialized,),) = con.execute("select json_serialize_sql(?)", [sql]).fetchall()
    try:
        tree = json.loads(serialized)
    except RecursionError:
        return "expected a condition that is less deeply nested"
    if tree.get("error"):
        return f"expected one SQL condition ({_first_line(tree.get('error_message', ''))})"
    select = tree["statements"][0]["node"]
    plain = len(tree["statements"]) == 1 and {k for k, v in select.items() if v} <= _CLAUSES
    if not plain or select["type"] != "SELECT_NODE" or len(select["select_list"]) != 1 or select["cte_map"]["map"]:
        return "expected one SQL condition and nothing else"
    if select["from_table"].get("table_name") != "subjects" or select["select_list"][0].get("alias"):
        return "expected one SQL condition and nothing else"
    known = {c.lower() for c in columns}
    for node in _expressions(select["select_list"][0]):
        kind = node["class"]
        if kind not in _CLASSES:
            return f"expected no {kind.lower().replace('_', ' ')} in a condition"
        if kind == "FUNCTION" and (node["function_name"] not in _FUNCTIONS or node.get("schema")):
            return f"expected no function {node['function_name']}; a condition may use {', '.join(sorted(_FUNCTIONS))}"
        if kind == "COLUMN_REF" and (len(node["column_names"]) != 1 or node["column_names"][0].lower() not in known):
            return f"expected features only, not {'.'.join(node['column_names'])}: {', '.join(columns)}"
    return None


def _expressions(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression of DuckDB's syntax tree: the objects that have a class. Not recursive: the tree may be deep."""
    open_nodes = [tree]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, dict):
            if isinstance(node.get("class"), str):
                yield node
            open_nodes.extend(node.values())
        elif isinstance(node, list):
            open_nodes.extend(node)


def _first_line(error: object) -> str:
    return str(error).splitlines()[0] if str(error) else "no reason given"
