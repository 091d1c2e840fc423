"""Filter patterns of CloudWatch Logs for JSON lines, as far as infra/aws uses them: `{ $.a = "x" && ($.b != "y") }`.

After "Filter pattern syntax" in the CloudWatch Logs User Guide: && before ||, parentheses, = and != of texts with * as
a wildcard. A line that is no JSON, or lacks the field, fits no comparison.
"""

from __future__ import annotations

import json
import re
from typing import Any

_TOKEN = re.compile(r'\s*(?:(\(|\)|&&|\|\|)|\$\.(\w+)\s*(!?=)\s*"([^"]*)")')


def fits(pattern: str, line: str) -> bool:
    """Whether CloudWatch counts the line."""
    assert pattern.startswith("{") and pattern.endswith("}"), pattern
    try:
        said = json.loads(line)
    except ValueError:
        return False
    tokens, rest = [], pattern[1:-1].rstrip()
    while rest:
        found = _TOKEN.match(rest)
        assert found, f"not understood here: {rest}"
        tokens.append(found.groups())
        rest = rest[found.end() :]
    answer = _either(tokens, said)
    assert not tokens, tokens
    return answer


def _either(tokens: list[Any], said: dict[str, Any]) -> bool:
    answer = _both(tokens, said)
    while tokens and tokens[0][0] == "||":
        tokens.pop(0)
        answer = _both(tokens, said) or answer
    return answer


def _both(tokens: list[Any], said: dict[str, Any]) -> bool:
    answer = _one(tokens, said)
    while tokens and tokens[0][0] == "&&":
        tokens.pop(0)
        answer = _one(tokens, said) and answer
    return answer


def _one(tokens: list[Any], said: dict[str, Any]) -> bool:
    mark, field, operator, value = tokens.pop(0)
    if mark == "(":
        answer = _either(tokens, said)
        assert tokens.pop(0)[0] == ")"
        return answer
    assert field, mark
    if not isinstance(said.get(field), str):
        return False
    same = re.fullmatch(re.escape(value).replace(r"\*", ".*"), said[field]) is not None
    return same == (operator == "=")
