"""Conditions that people write in YAML, such as `recency_days <= 30 and money > 500`, checked and run by DuckDB.

A condition is one expression over named numbers. Its syntax tree may hold only what is listed here, which is less than
`RowSql` lets through: nothing that fails on some row can run either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.errors import RunError
from bizllm.tables.select import RowSql
from bizllm.tables.sql import Refused, expressions, nodes, wrapped

_CLASSES = {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "FUNCTION"}
# No function that raises for some numbers (ln, sqrt, casts): a condition that passed the check answers every row.
_FUNCTIONS = {"+", "-", "*", "/", "abs", "round", "floor", "ceil", "ceiling", "least", "greatest", "isnan", "isfinite"}
LONGEST = 4_000


def fault(condition: str, columns: Sequence[str]) -> str | None:
    """What is wrong with a condition over these columns of numbers, in words; None where it is right."""
    wrong = _syntax_fault(condition, columns)
    if wrong:
        return wrong
    # A row of numbers and a row of nulls: types are wrong for every row or for none.
    probe = pa.table({c: pa.array([0.0, None], pa.float64()) for c in columns})
    sql = RowSql(probe.schema, filter=condition)
    if faults := sql.faults():
        said = faults[0].expected
        return said if said.startswith("expected") else f"expected a condition that DuckDB can run ({said})"
    try:
        sql.mask(probe)
    except RunError:
        return "expected a condition that DuckDB can run on any numbers"
    return None


def first_match(rows: pa.Table, conditions: Sequence[str], columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """(rows,) the position of the first condition that holds, or -1. A condition that is null doesn't hold.

    The conditions must have passed `fault` with the same columns.
    """
    for condition in conditions:
        assert _syntax_fault(condition, columns) is None, "conditions are checked before they run"
    numbers = pa.table({c: rows.column(c).cast(pa.float64()) for c in columns})
    arms = " ".join(f"when {wrapped(condition)} then {i}" for i, condition in enumerate(conditions))
    chosen = RowSql(numbers.schema, select=f"(case {arms} else -1 end)::bigint as i").project(numbers, ["i"])
    return np.asarray(chosen["i"].to_numpy(), dtype=np.int64)


def named(condition: str, columns: Sequence[str]) -> list[str]:
    """The columns that a condition names, each once, in their own order. It must have passed `fault`."""
    tree = expressions(condition, "condition")
    found = {node["column_names"][0].lower() for node in nodes(tree) if node["class"] == "COLUMN_REF"}
    return [column for column in columns if column.lower() in found]


def _syntax_fault(condition: str, columns: Sequence[str]) -> str | None:
    if not condition.strip() or len(condition) > LONGEST:
        return f"expected one SQL condition of at most {LONGEST} characters"
    try:
        tree = expressions(condition, "condition")
    except Refused as refused:
        return refused.expected
    known = {c.lower() for c in columns}
    for node in nodes(tree):
        kind = node["class"]
        if kind not in _CLASSES:
            return f"expected no {kind.lower().replace('_', ' ')} in a condition"
        if kind == "FUNCTION" and (node["function_name"] not in _FUNCTIONS or node.get("schema")):
            return f"expected no function {node['function_name']}; a condition may use {', '.join(sorted(_FUNCTIONS))}"
        if kind == "COLUMN_REF" and (len(node["column_names"]) != 1 or node["column_names"][0].lower() not in known):
            return f"expected features only, not {'.'.join(node['column_names'])}: {', '.join(columns)}"
    return None
