"""What IAM's rules let an identity do: a small evaluator of policies, and every action that AWS knows.

After "Policy evaluation logic" of the IAM User Guide, for the policies of one identity in one account: an explicit
Deny decides, then an Allow, else no. What it does not know (a condition's operator, NotAction, a policy variable) is an
error, never a pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

Context = Mapping[str, str]


def allows(policies: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context | None = None) -> bool:
    """Whether the policies together let their holder do the action with the resource."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in policy["Statement"]
        if _concerns(statement, action, resource, context or {})
    }
    return "Allow" in effects and "Deny" not in effects


def _concerns(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
    assert not unknown, f"{statement.get('Sid')}: {unknown} is not understood here"
    return (
        any(like(one.lower(), action.lower()) for one in _list(statement["Action"]))
        and any(like(one, resource) for one in _list(statement["Resource"]))
        and all(
            _holds(operator, key, _list(values), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, key: str, values: list[str], context: Context) -> bool:
    """One key of a condition: any of the values will do; a key that the request lacks fits none."""
    given = {name.lower(): value for name, value in context.items()}.get(key.lower())
    match operator:
        case "StringEquals":
            return given in values
        case "StringLike" | "ArnLike":
            return given is not None and any(like(value, given) for value in values)
    raise AssertionError(f"the operator {operator} is not understood here")


def like(pattern: str, text: str) -> bool:
    """IAM's wildcards: * for any characters, ? for one."""
    return _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    assert "${" not in pattern, f"{pattern}: variables are not understood here"
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.S)


def actions(policies: Iterable[Mapping[str, Any]]) -> set[str]:
    """The patterns of actions that any statement speaks of, in lower case."""
    return {
        one.lower() for policy in policies for statement in policy["Statement"] for one in _list(statement["Action"])
    }


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@cache
def every_action() -> frozenset[str]:
    """`service:action`, in lower case: the service authorization reference, as cfn-lint packs it."""
    data = json.loads((files("cfnlint") / "data/AdditionalSpecs/Policies.json").read_text())
    return frozenset(f"{service}:{action}" for service, known in data.items() for action in known["Actions"])
