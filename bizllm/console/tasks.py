"""What `bizllm tasks` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from bizllm.console.terminal import new_console, new_table
from bizllm.plain_text import plain


def print_tasks(tasks: Sequence[dict[str, Any]]) -> None:
    """The kinds of work that a job may name."""
    table = new_table(["task", "works on", "what it does"])
    for task in tasks:
        table.add_row(plain(task["name"]), " or ".join(map(plain, task["shapes"])), plain(task["summary"]))
    new_console().print(table)


def print_task(task: dict[str, Any]) -> None:
    """One task: what it reads, its settings with their defaults, the columns it writes, an example."""
    console = new_console()
    console.print(Text.assemble((plain(task["name"]), "bold"), f": {plain(task['summary'])}"), soft_wrap=True)
    console.print()
    if task["takes"]:
        console.print(Text.assemble(("reads ", "bold"), plain(task["takes"])), soft_wrap=True)
        console.print()
    settings = new_table(["setting", "type", "default", "meaning"])
    for name, kind, default, meaning in settings_rows(task["settings"], task["settings"]):
        settings.add_row(plain(name), kind, plain(default), plain(meaning))
    console.print(settings)
    console.print()
    columns = new_table(["column", "type and meaning"])
    for name, meaning in task["columns"].items():
        columns.add_row(plain(name), plain(meaning))
    console.print(columns)
    for name, prompt in task.get("prompts", {}).items():
        console.print()
        console.print(Text(f"prompt {plain(name)}:", "bold"))
        for line in prompt.splitlines():
            console.print(Text(f"  {plain(line)}"), soft_wrap=True)
    if task["example"]:
        console.print()
        console.print(Text("steps:", "bold"))
        for line in task["example"].splitlines():
            console.print(Text(f"  {plain(line)}"), soft_wrap=True)


def settings_rows(part: dict[str, Any], schema: dict[str, Any], above: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(setting, type, default, meaning) of a JSON Schema's properties, those of mappings inside after their own."""
    for name, about in part["properties"].items():
        default = (
            "required" if name in part.get("required", []) else json.dumps(about.get("default"), ensure_ascii=False)
        )
        shown = "" if default == "null" else default
        yield f"{above}{name}", type_words(about, schema), shown, about.get("description", "")
        for between, inner in _inside(about, schema):
            yield from settings_rows(inner, schema, f"{above}{name}{between}.")


def _inside(about: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings with settings of their own that a setting holds: itself one, several by name, or a list of them."""
    if "$ref" in about:
        inner = schema["$defs"][about["$ref"].rsplit("/", 1)[-1]]
        if "properties" in inner:
            yield "", inner
    for way in about.get("anyOf", ()):
        yield from _inside(way, schema)
    for between, key in (("[]", "items"), (".NAME", "additionalProperties")):
        if isinstance(about.get(key), dict):
            yield from ((between, inner) for _, inner in _inside(about[key], schema))


def type_words(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON Schema type as a person would say it."""
    if "$ref" in about:
        name = about["$ref"].rsplit("/", 1)[-1]
        return type_words(schema.get("$defs", {}).get(name, {}), schema)
    if "anyOf" in about:
        words = [type_words(part, schema) for part in about["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "enum" in about or "const" in about:
        return " | ".join(plain(value) for value in about.get("enum", [about.get("const")]))
    if "prefixItems" in about:
        return f"[{', '.join(type_words(part, schema) for part in about['prefixItems'])}]"
    if about.get("type") == "array":
        return f"list of {type_words(about.get('items', {}), schema)}"
    names = {"string": "text", "integer": "whole number", "boolean": "true | false", "object": "mapping"}
    return names.get(about.get("type", ""), plain(about.get("type", "anything")))
