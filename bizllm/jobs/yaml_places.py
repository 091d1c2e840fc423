"""YAML text to values, keeping for every value where it stands: file and line, `--set`, or an environment variable.

Only the safe part of YAML is read: text, numbers, yes/no, null, dates, lists, mappings, aliases and merge keys. What a
value of an environment variable holds is never parsed as YAML.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bizllm.errors import Fault, UserError

Key = str | int
Keys = tuple[Key, ...]

_MAX_BYTES = 1 << 20
_MAX_VALUES = 50_000  # after aliases are expanded: nine lines of aliases of aliases can stand for 10^9 values
_MAX_DEPTH = 50
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MERGE = "tag:yaml.org,2002:merge"  # the key `<<`
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_]\w*)(?P<default>:-[^{}]*)?\}|\$\{", re.ASCII)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but `1e-3` is a number, `12:30` is not 750, and keys are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":int", ":float"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf)$|\.nan$"
    ),
    list("-+0123456789."),
)


class _Unreadable(Exception):
    """The text has no values at all: a fault of syntax, or a document that is too big."""

    def __init__(self, where: str, expected: str) -> None:
        super().__init__(expected)
        self.where, self.expected = where, expected


@dataclass
class Document:
    """The values of one YAML file, where each came from, and the faults found in it so far.

    path:   the file, as the user typed it.
    values: plain Python values; changed in place by `override` and `expand_environment`.
    """

    path: str
    values: dict[str, Any]
    lines: dict[Keys, int] = field(default_factory=dict)
    overridden: set[Keys] = field(default_factory=set)
    written: dict[Keys, str] = field(default_factory=dict)  # texts as they stood before variables were put in
    relative: set[Keys] = field(default_factory=set)  # where local paths were made absolute that had no root
    rooted: set[Keys] = field(default_factory=set)  # where local paths stand that have one
    _from_environment: dict[Keys, list[range]] = field(default_factory=dict)  # which characters of a text
    _faults: dict[Keys, Fault] = field(default_factory=dict)

    # -- places and faults ----------------------------------------------------------------------------------------

    def place(self, *keys: Key) -> str:
        """`jobs/nightly.yaml:12 steps.tickets.text`, or `--set steps.tickets.text`; the line of a key that is not
        there is its nearest ancestor's."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.overridden:
                return f"--set {dotted(keys)}"
        line = next((self.lines[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self.lines), 1)
        return f"{self.path}:{line} {dotted(keys)}".rstrip()

    def fault(self, keys: Keys, value: object, expected: str, suggestion: str = "") -> None:
        """Note a fault. The first one at a place counts: a second is mostly its consequence."""
        self._faults.setdefault(keys, Fault(self.place(*keys), value, expected, suggestion))

    def faulty(self, *keys: Key) -> bool:
        return keys in self._faults

    def raise_faults(self) -> None:
        """Raise UserError with every noted fault, in the order of the file's lines."""
        if self._faults:
            by_line = sorted(self._faults.items(), key=lambda noted: self._line(noted[0]))
            raise UserError(*(fault for _, fault in by_line))

    def _line(self, keys: Keys) -> int:
        return next((self.lines[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self.lines), 0)

    def shown(self, keys: Keys) -> object:
        """The value for a message, as it was written: never what an environment variable held."""
        return self.written.get(keys, _at(self.values, keys))

    # -- values from elsewhere ------------------------------------------------------------------------------------

    def override(self, keys: Keys, value: Any) -> None:
        """Put `value` at `keys`; mappings on the way are made. Raises UserError where the way leads through a value."""
        parent: Any = self.values
        for depth, key in enumerate(keys[:-1], start=1):
            if isinstance(parent, dict) and parent.get(key) is None:
                parent[key] = {}
            parent = parent[key]
            if not isinstance(parent, dict | list):
                raise UserError(Fault(f"--set {dotted(keys)}", None, f"{dotted(keys[:depth])} holds no further keys"))
        last = keys[-1]
        if isinstance(parent, list) and not (isinstance(last, int) and last < len(parent)):
            raise UserError(Fault(f"--set {dotted(keys)}", last, f"expected a position from 0 to {len(parent) - 1}"))
        parent[last] = value
        self.overridden.add(keys)

    def expand_environment(self, environment: Mapping[str, str], but: Collection[Keys] = ()) -> None:
        """Replace `${NAME}` and `${NAME:-default}` (NAME unset or empty) in every text; `$$` stands for `$`. What
        stands at the places `but` stays as it is written: it is asked for later."""
        for keys in but:
            self._from_environment[keys] = [range(0)]
        self._expand((), self.values, environment)

    def _expand(self, keys: Keys, value: Any, environment: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = self._expand((*keys, key), value[key], environment)
        elif isinstance(value, list):
            value[:] = [self._expand((*keys, i), item, environment) for i, item in enumerate(value)]
        elif isinstance(value, str) and "$" in value and keys not in self._from_environment:
            return self._expand_text(keys, value, environment)
        return value

    def _expand_text(self, keys: Keys, written: str, environment: Mapping[str, str]) -> str:
        self.written[keys] = written
        spans = self._from_environment.setdefault(keys, [])
        text, end = "", 0
        for match in _VARIABLE.finditer(written):
            text += written[end : match.start()]
            end = match.end()
            name, default = match["name"], match["default"]
            if match[0] == "$$":
                text += "$"
            elif name is None:
                self.fault(keys, written, "expected ${NAME} or ${NAME:-default}", "write $${ for the characters ${")
            elif value := environment.get(name, ""):
                spans.append(range(len(text), len(text) + len(value)))
                text += value
            elif default is not None:
                text += default.removeprefix(":-")
            else:
                said = "is empty" if name in environment else "is not set"
                self.fault(
                    keys, written, f"the environment variable {name} {said}", f"set it, or write ${{{name}:-default}}"
                )
        return text + written[end:]

    # -- paths ----------------------------------------------------------------------------------------------------

    def at(self, *keys: Key) -> Any:
        """The value there; None where there is none."""
        return _at(self.values, keys)

    def make_absolute(self, keys: Keys, prefix: str = "") -> None:
        """Make the path there absolute, if it is a local one: see `folder_of`. prefix: what stands before it; a text
        that doesn't begin with it is left alone."""
        text = self.at(*keys)
        if not isinstance(text, str) or not text.startswith(prefix):
            return
        kept = prefix or ("sqlite:///" if text.startswith("sqlite:///") else "")
        local = text.removeprefix(kept)
        if local.startswith("file://"):
            self.rooted.add(keys)
        elif local and not _URL.match(local):
            (self.rooted if os.path.isabs(local) else self.relative).add(keys)
            folder = self.folder_of(*keys, offset=len(kept))
            self.written.setdefault(keys, text)
            self.at(*keys[:-1])[keys[-1]] = kept + os.path.normpath(folder / os.path.expanduser(local))

    def from_environment(self) -> list[Keys]:
        """Where a text holds what an environment variable said."""
        return [keys for keys, spans in self._from_environment.items() if spans]

    def folder_of(self, *keys: Key, offset: int = 0) -> Path:
        """What a relative path at `keys` is relative to: the file's folder where it was written there, the working
        directory where its head (the character at `offset`) came from `--set` or an environment variable."""
        given = any(keys[:end] in self.overridden for end in range(len(keys) + 1))
        given = given or any(offset in span for span in self._from_environment.get(keys, ()))
        return Path.cwd() if given else Path(os.path.abspath(self.path)).parent


def dotted(keys: Keys) -> str:
    """`steps.sales.levels[0]`"""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def read_document(path: str) -> Document:
    """Read a YAML file that holds one mapping. Raises UserError where it can't be read at all."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(Fault(path, None, "no such file")) from None
    except IsADirectoryError:
        raise UserError(Fault(path, None, "is a folder; expected a YAML file")) from None
    except UnicodeDecodeError as error:
        raise UserError(Fault(path, None, f"is not UTF-8 text (byte {error.start})")) from None
    except OSError as error:
        raise UserError(Fault(path, None, f"can't be read: {error.strerror}")) from None
    except ValueError:  # a NUL in the path
        raise UserError(Fault(repr(path), None, "is no path of a file")) from None
    if len(data) > _MAX_BYTES:
        raise UserError(Fault(path, None, f"is larger than {_MAX_BYTES >> 20} MiB; expected a job"))
    document = Document(path, {})
    try:
        value = _parse(text, document)
    except _Unreadable as error:
        raise UserError(Fault(f"{path}{error.where}", None, error.expected)) from None
    if not isinstance(value, dict):
        found = "the file is empty" if value is None else f"found {kind_of(value)}"
        raise UserError(Fault(document.place(), None, f"expected a mapping such as `name: …`; {found}"))
    document.values = value
    return document


def parse_value(text: str, place: str) -> Any:
    """One value as YAML, for `--set`. Raises UserError."""
    document = Document(place, {})
    try:
        value = _parse(text, document)
    except _Unreadable as error:
        raise UserError(Fault(place, text, error.expected)) from None
    if document._faults:
        raise UserError(*(Fault(place, text, fault.expected) for fault in document._faults.values()))
    return value


def kind_of(value: object) -> str:
    """What a YAML value is, for people."""
    if isinstance(value, bool):
        return "a yes/no"
    names = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number", type(None): "nothing"}
    return names.get(type(value), "a date")


# -- parsing ------------------------------------------------------------------------------------------------------


def _parse(text: str, document: Document) -> Any:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return None if root is None else _Builder(loader, document).build(root, (), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = re.sub(r"^(but )?found ", "", error.problem or error.context or "unreadable")
        if r"'\t'" in problem:
            problem = "a tab; indent with spaces"
        raise _Unreadable(where, f"is not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = ord(error.character) if isinstance(error.character, str) else error.character
        raise _Unreadable(f":{line}", f"is not valid YAML: the character U+{code:04X}") from None
    except RecursionError:
        raise _Unreadable("", f"is nested more than {_MAX_DEPTH} deep") from None
    finally:
        if loader is not None:
            loader.dispose()


class _Builder:
    """Node graph to values. Aliases are copied, so that each place has its own value and line."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader, self.document, self.count = loader, document, 0

    def build(self, node: yaml.Node, keys: Keys, within: tuple[yaml.Node, ...]) -> Any:
        self.count += 1
        self.document.lines[keys] = self.document.lines.get(keys, node.start_mark.line + 1)
        if self.count > _MAX_VALUES:
            raise _Unreadable("", f"holds more than {_MAX_VALUES:,} values once its aliases are expanded")
        if len(within) > _MAX_DEPTH or any(node is outer for outer in within):
            raise _Unreadable(f":{node.start_mark.line + 1}", f"is nested more than {_MAX_DEPTH} deep, or in itself")
        within = (*within, node)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, keys, within)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*keys, i), within) for i, item in enumerate(node.value)]
        return self._scalar(node, keys)

    def _scalar(self, node: yaml.Node, keys: Keys) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.ScalarNode) and kind in {"str", "int", "float", "bool", "null", "timestamp"}:
            try:
                return self.loader.construct_object(node)
            except (ValueError, yaml.YAMLError):  # 2026-02-30 looks like a date; `!!int x` says that it is a number
                return node.value
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        self.document.fault(keys, tag, "expected text, a number, a list or a mapping, without a tag")
        return None

    def _mapping(self, node: yaml.MappingNode, keys: Keys, within: tuple[yaml.Node, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].tag != _MERGE):  # own keys come last
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                merged = {**self._merge(value_node, keys, within), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.document.fault(keys, None, f"expected a name before the colon in line {line}")
                continue
            key = str(key_node.value)  # as written: the key `on` is no boolean, `1` no number
            if key in first:
                at = (*keys, key)
                self.document.lines[at] = line
                self.document.fault(at, None, f"the key '{key}' is there twice, first in line {first[key]}")
                continue
            first[key] = self.document.lines[(*keys, key)] = line
            values[key] = self.build(value_node, (*keys, key), within)
        return {**merged, **values}

    def _merge(self, node: yaml.Node, keys: Keys, within: tuple[yaml.Node, ...]) -> dict[str, Any]:
        """`<<: *defaults`, or a list of them of which the first wins."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            value = self.build(part, keys, within)
            if not isinstance(value, dict):
                self.document.fault((*keys, "<<"), None, "expected a mapping to merge")
                continue
            merged = {**value, **merged}
        return merged


def holds(value: Any, key: Key) -> bool:
    """Whether `value[key]` is there."""
    return key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))


def _at(value: Any, keys: Keys) -> Any:
    """The value at `keys`, None where there is none."""
    for key in keys:
        if not holds(value, key):
            return None
        value = value[key]
    return value
