"""Row-wise SQL over batches of rows, run by DuckDB: a condition, and a select list.

A user's SQL is parsed before it runs, and its tree is walked: every row is answered from itself alone, so that batches,
units and retries can't change a result. Aggregates, windows, subqueries, other tables, clocks and chance are refused.
It runs in the sandbox of `sql`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa

from bizllm.errors import RunError, nearest
from bizllm.tables.sql import Refused, Shape, expressions, one_line, quoted, sandbox, wrapped
from bizllm.tables.types import normal_schema

_ROWS = "rows"
_ROW_WISE = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"}
_ROW_WISE |= {"FUNCTION", "LAMBDA", "OPERATOR", "STAR", "TYPE"}
_REFUSED = {"WINDOW": "a window function", "SUBQUERY": "a subquery", "PARAMETER": "a parameter"}
# DuckDB calls these consistent; they read the clock, the version or a plan all the same.
_UNSTEADY = frozenset({"current_localtime", "current_localtimestamp", "version", "json_serialize_plan"})
# Of a time with a zone they depend on the session's zone, from DuckDB 2.0.1 on: the sandbox's is UTC.
_STEADY = frozenset({"+", "-"})
_CLOCK_WORDS = frozenset({"now", "today", "tomorrow", "yesterday"})  # cast to a date or time


@dataclass(frozen=True)
class SqlFault:
    """What is wrong with a piece of SQL. key: `select` or `filter`."""

    key: str
    value: str
    expected: str
    suggestion: str = ""


@dataclass
class RowSql:
    """`select {select} from rows where {filter}`, the filter first. Either may be None.

    given: the schema of the rows. Instances pickle; their parse trees are made again where they are used.
    """

    given: pa.Schema
    select: str | None = None
    filter: str | None = None
    _faults: list[SqlFault] | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"given": self.given, "select": self.select, "filter": self.filter, "_faults": self._faults}

    def faults(self) -> list[SqlFault]:
        """Everything wrong with the two pieces: first by the tree, then by DuckDB's binder on an empty table."""
        if self._faults is None:
            self._faults = [fault for key in ("filter", "select") for fault in self._faults_of(key)]
        return self._faults

    @cached_property
    def schema(self) -> pa.Schema:
        """What comes out, in normal types. Only where there are no faults."""
        if self.select is None:
            return self.given
        return normal_schema(self._run(_query(self.select), self.given.empty_table()).schema)

    def reads(self, columns: Sequence[str]) -> list[str]:
        """The input columns that these output columns and the filter are made of, in the input's order."""
        needed: set[str] = set()
        if self.filter is not None:
            needed |= self._refs(expressions(self.filter, "condition"), None)
        if self.select is None:
            needed |= set(columns)
        else:
            needed |= self._refs(expressions(self.select, "select"), {name.lower() for name in columns})
        return [name for name in self.given.names if name in needed]

    def mask(self, rows: pa.Table) -> pa.ChunkedArray | None:
        """(rows,) whether the filter holds; null counts as no. None where there is no filter."""
        if self.filter is None:
            return None
        kept = self._run(_query(f"coalesce({wrapped(self.filter)}, false) as kept"), self._whole(rows))
        assert kept.num_rows == rows.num_rows, "a condition answers every row"
        return kept.column("kept")

    def project(self, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
        """The output columns asked for, a row for each row. `rows` holds at least `reads(columns)`."""
        if self.select is None or not columns:
            return rows.select(list(columns))
        wanted = ", ".join(quoted(name) for name in columns)
        made = self._run(f"select {wanted} from ({_query(self.select)})", self._whole(rows))
        assert made.num_rows == rows.num_rows, "a select list answers every row"
        return made.cast(pa.schema([self.schema.field(name) for name in columns]))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _whole(self, rows: pa.Table) -> pa.Table:
        """The rows with every input column, so that the SQL binds; what wasn't read is null, and nobody asks for it."""
        there = set(rows.column_names)
        arrays = [
            rows.column(f.name) if f.name in there else pa.chunked_array([pa.nulls(rows.num_rows, f.type)])
            for f in self.given
        ]
        return pa.table(arrays, schema=self.given)

    def _run(self, sql: str, rows: pa.Table) -> pa.Table:
        import duckdb

        try:
            with sandbox() as cursor:
                cursor.register(_ROWS, rows)
                return cursor.sql(sql).to_arrow_table()
        except duckdb.Error as fault:  # its message may quote a value of a row
            kind = type(fault).__name__
            raise RunError(
                f"the source's filter or select fails on a row ({kind}); try_cast gives null there"
            ) from None

    def _faults_of(self, key: str) -> Iterator[SqlFault]:
        import duckdb

        text: str | None = getattr(self, key)
        if text is None:
            return
        shape: Shape = "select" if key == "select" else "condition"
        lower = [name.lower() for name in self.given.names]
        if doubled := sorted({name for name in lower if lower.count(name) > 1}):
            yield SqlFault(key, text, f"SQL tells no columns apart by case alone: {', '.join(doubled)}", "use `rename`")
            return
        try:
            self._refs(expressions(text, shape), None)
        except Refused as refused:
            yield SqlFault(key, text, refused.expected, refused.suggestion)
            return
        except RecursionError:
            yield SqlFault(key, text, "expected SQL that is less deeply nested")
            return
        sql = _query(text if key == "select" else wrapped(text))
        try:
            with sandbox() as cursor:
                cursor.register(_ROWS, self.given.empty_table())
                made = cursor.sql(sql).to_arrow_table().schema
        except duckdb.Error as fault:
            yield SqlFault(key, text, one_line(str(fault)))
            return
        if key == "filter" and made.types != [pa.bool_()]:
            yield SqlFault(key, text, f"expected a condition that is true or false, not {made.types[0]}")
        names = [name.lower() for name in made.names]
        if key == "select":
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                hint = "use `* replace (… as name)` or `* exclude (name)`"
                yield SqlFault(key, text, f"it gives two columns of one name: {', '.join(doubled)}", hint)
            for made_field in made:
                if pa.types.is_null(made_field.type) or pa.types.is_interval(made_field.type):
                    what = f"column '{made_field.name}' has no type that a table can hold"
                    yield SqlFault(key, text, what, "cast it")

    def _refs(self, items: Sequence[dict[str, Any]], wanted: set[str] | None) -> set[str]:
        """The input columns that the items named in `wanted` (None: all items) are made of. Raises Refused."""
        columns = {name.lower(): name for name in self.given.names}
        aliases = {item["alias"].lower(): item for item in items if item.get("alias")}
        walk = _Walk(columns, aliases)
        for item in items:
            simple_star = item["class"] == "STAR" and not any(
                item[part] for part in ("expr", "replace_list", "rename_list", "columns")
            )
            if simple_star and wanted is not None:
                walk.refs |= {name for low, name in columns.items() if low in wanted}
            elif item["class"] == "STAR" or wanted is None or _name(item) is None or _name(item) in wanted:
                walk.visit(item, frozenset())
        return walk.refs


class _Walk:
    """Collects the columns that a tree reads, and refuses what is not row-wise."""

    def __init__(self, columns: dict[str, str], aliases: dict[str, dict[str, Any]]) -> None:
        self.columns, self.aliases = columns, aliases
        self.refs: set[str] = set()
        self._expanding: set[str] = set()

    def visit(self, node: Any, scope: frozenset[str]) -> None:
        if isinstance(node, list):
            for child in node:
                self.visit(child, scope)
            return
        if not isinstance(node, dict):
            return
        kind = node.get("class")
        if kind is not None and kind not in _ROW_WISE:
            raise Refused(f"expected row-wise SQL: {_REFUSED.get(kind, kind.lower())} is not")
        if kind == "COLUMN_REF":
            self._column(node["column_names"], scope)
        elif kind == "LAMBDA":
            names = _lambda_names(node["lhs"])
            if node.get("syntax_type") != "LAMBDA_KEYWORD":  # `json -> 'key'` parses as a lambda too
                self.refs |= {self.columns[name] for name in names if name in self.columns}
            self.visit(node["expr"], scope | names)
        elif kind == "STAR":
            self.refs |= set(self.columns.values())
            self.visit([node["expr"], node["replace_list"]], scope)
        else:
            if kind == "FUNCTION":
                _check_function(node)
            if kind == "CAST":
                _check_cast(node)
            for child in node.values():
                self.visit(child, scope)

    def _column(self, names: Sequence[str], scope: frozenset[str]) -> None:
        low = [name.lower() for name in names]
        if low[0] in scope:
            return
        if low[0] in self.columns:
            self.refs.add(self.columns[low[0]])
        elif low[0] == _ROWS and len(low) > 1 and low[1] in self.columns:
            self.refs.add(self.columns[low[1]])
        elif low[0] in self.aliases:
            if low[0] not in self._expanding:
                self._expanding.add(low[0])
                self.visit(self.aliases[low[0]], scope)
        else:
            known = list(self.columns.values())
            what = f"no column '{names[0]}'; it has {', '.join(known[:20])}{', …' * (len(known) > 20)}"
            raise Refused(what, nearest(names[0], known))


def _check_function(node: dict[str, Any]) -> None:
    name = node["function_name"].lower()
    if node["schema"] or node["catalog"]:
        raise Refused(f"expected a function's plain name, not '{node['schema']}.{name}'")
    if node["filter"] or node["distinct"] or node["order_bys"]["orders"]:
        raise Refused(f"expected row-wise SQL: '{name}' with filter, distinct or order by is an aggregate")
    if name == "age" and len(node["arguments"]) == 1:
        raise Refused("expected the same answer every night: 'age' of one argument reads the clock")
    _check_name(name)


@lru_cache(maxsize=512)
def _check_name(name: str) -> None:
    kinds = _functions().get(name)
    if kinds is None:
        scalar = [known for known, of in _functions().items() if of[0][0] in ("scalar", "macro")]
        raise Refused(f"no row-wise function '{name}'", nearest(name, scalar))
    said = {kind for kind, _, _, _ in kinds}
    if said & {"aggregate", "window", "table_macro"}:
        raise Refused(f"expected row-wise SQL: '{name}' is an aggregate or window function")
    if not said & {"scalar", "macro"}:
        raise Refused(f"expected row-wise SQL: '{name}' is no function of a row")
    for kind, stability, parameters, definition in kinds:
        unsteady = kind == "scalar" and stability != "CONSISTENT" and name not in _STEADY
        if unsteady or name in _UNSTEADY or name.startswith("__internal"):
            raise Refused(f"expected the same answer every night: '{name}' reads the clock, chance or the session")
        if kind == "macro":
            try:
                _Walk({}, {}).visit(
                    expressions(definition, "condition"), frozenset(p.lower() for p in parameters or ())
                )
            except Refused as refused:
                raise Refused(f"'{name}' can't be used: {refused.expected}") from None


def _check_cast(node: dict[str, Any]) -> None:
    literal = node["child"].get("literal")
    text = str(literal.get("text", "")).strip().lower() if isinstance(literal, dict) else ""
    if text in _CLOCK_WORDS:
        raise Refused(f"expected the same answer every night: a cast of '{text}' can read the clock")


@lru_cache(maxsize=1)
def _functions() -> dict[str, list[tuple[str, str, list[str], str]]]:
    """Every function's overloads: (type, stability, parameters, macro definition)."""
    found: dict[str, list[tuple[str, str, list[str], str]]] = {}
    query = (
        "select lower(function_name), function_type, stability, parameters, macro_definition from duckdb_functions()"
    )
    with sandbox() as cursor:
        for name, *rest in cursor.execute(query).fetchall():
            found.setdefault(name, []).append((rest[0], rest[1], rest[2], rest[3]))
    return found


def _name(item: dict[str, Any]) -> str | None:
    """The output column's name in lower case, where the tree tells it."""
    if item.get("alias"):
        return str(item["alias"]).lower()
    return str(item["column_names"][-1]).lower() if item["class"] == "COLUMN_REF" else None


def _lambda_names(node: Any) -> frozenset[str]:
    if isinstance(node, list):
        return frozenset[str]().union(*map(_lambda_names, node))
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            return frozenset({node["column_names"][0].lower()})
        return _lambda_names(list(node.values()))
    return frozenset()


def _query(items: str) -> str:
    # A line of its own for the user's text, so that a comment in it ends there.
    return f"select\n{items}\nfrom {_ROWS}"
