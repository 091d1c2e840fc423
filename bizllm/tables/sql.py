"""SQL that people write: quoted names, syntax trees to check before anything runs, and the closed DuckDB it runs in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Shape = Literal["select", "condition"]
_SHAPES = {"select": "a select list", "condition": "one SQL condition"}


class Refused(Exception):
    """A piece of SQL that may not run. expected, suggestion: as in `errors.Fault`."""

    def __init__(self, expected: str, suggestion: str = "") -> None:
        super().__init__(expected)
        self.expected, self.suggestion = expected, suggestion


def quoted(name: str) -> str:
    """The name as an SQL identifier, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def wrapped(condition: str) -> str:
    """The condition in parentheses on lines of its own, so that a comment at its end closes."""
    return f"(\n{condition}\n)"


@contextmanager
def sandbox() -> Iterator[DuckDBPyConnection]:
    """A cursor of this process's DuckDB in memory: no files, network, extensions or Python variables, locked settings.

    What is registered on a cursor is seen by that cursor only.
    """
    cursor = _database().cursor()
    try:
        yield cursor
    finally:
        cursor.close()


@lru_cache(maxsize=1)
def _database() -> DuckDBPyConnection:
    """Opening one takes about 20 ms, a cursor of it microseconds."""
    import duckdb

    options: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "python_enable_replacements": "false",
        "threads": "1",  # units run side by side
    }
    made = duckdb.connect(":memory:", config=options)
    made.execute("set global TimeZone = 'UTC'")
    made.execute("set global lock_configuration = true")
    return made


def expressions(text: str, shape: Shape) -> list[dict[str, Any]]:
    """The syntax trees of a select list, or the one of a condition. Raises Refused for anything more than that.

    The trees are DuckDB's own; each expression is an object with a `class`.
    """
    what = _SHAPES[shape]
    sql = f"select\n{text}\n" if shape == "select" else f"select {wrapped(text)}"
    with sandbox() as cursor:
        ((answer,),) = cursor.execute("select json_serialize_sql(?)", [sql]).fetchall()
    try:
        said = json.loads(answer)
    except RecursionError:
        raise Refused(f"expected {what} that is less deeply nested") from None
    if said["error"]:
        raise Refused(f"expected {what} ({one_line(said['error_message'])})")
    if len(said["statements"]) != 1 or (";" in text and _has_end(text)):
        raise Refused(f"expected {what} and nothing else, not several statements")
    node = said["statements"][0]["node"]
    alone = (
        node["type"] == "SELECT_NODE"
        and node["from_table"]["type"] == "EMPTY"
        and not any(node[part] for part in ("modifiers", "group_expressions", "where_clause", "having", "sample"))
        and not node["qualify"]
        and not node["cte_map"]["map"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
    )
    if not alone:
        raise Refused(f"expected {what} and nothing else: no from, where, group, order, limit, distinct or union")
    items: list[dict[str, Any]] = node["select_list"]
    if shape == "condition" and (len(items) != 1 or items[0].get("alias")):
        raise Refused(f"expected {what} and nothing else")
    return items


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression in a syntax tree: the objects that have a class. Not recursive: the tree may be deep."""
    unvisited = [tree]
    while unvisited:
        node = unvisited.pop()
        if isinstance(node, dict):
            if isinstance(node.get("class"), str):
                yield node
            unvisited.extend(node.values())
        elif isinstance(node, list):
            unvisited.extend(node)


def one_line(message: str) -> str:
    """DuckDB's message without the query's text below it: the first line and the candidates."""
    lines = [line.strip() for line in message.split("\n\nLINE")[0].splitlines() if line.strip()]
    return " ".join(lines)[:300].rstrip(".!")


def _has_end(text: str) -> bool:
    """Whether a semicolon ends a statement in the text, rather than standing in a string."""
    import duckdb

    return any(
        kind == duckdb.token_type.operator and text.encode()[at : at + 1] == b";" for at, kind in duckdb.tokenize(text)
    )
