"""What a system that nights are copied to must do, and how one is found by its name."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from bizllm.errors import Fault, RunError, UserError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

PLACE = "--target"
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}", re.ASCII)


@dataclass(frozen=True)
class TableName:
    """A table in another system: by default named like the Iceberg table."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Target(Protocol):
    """An open connection to another system, for one table there."""

    def replace(self, night: date, rows: pa.RecordBatchReader) -> int:
        """Make the table's rows of that date these, and no others; how many there are.

        A reader there sees the old rows or the new ones, and rows of other dates stay as they are. The table is made
        when it is new, and gets the columns that it lacks; those that `rows` has no more stay and are null. Where it
        fails, nothing has changed. Raises RunError, without row text.
        """


class System(Protocol):
    """A module of this package."""

    EXPECTS: str  # what --target must be, for people
    EXTRA: str  # of our package, that brings the client; empty where it is always there

    def connect(self, target: str, table: TableName, keys: list[str]) -> AbstractContextManager[Target]:
        """target: checked, variables put in. keys: columns that identify a row within a night, if known.

        Raises UserError where the target can't be one, or does not let us in.
        """


def systems() -> list[str]:
    """The names that --to takes."""
    package = importlib.import_module(__package__ or "bizllm.exports")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in ("base", "types"))


def system(name: str) -> System:
    """The system of that name. Raises UserError."""
    known = systems()
    if name not in known:
        raise UserError(Fault("--to", name, f"expected one of {', '.join(known)}", nearest(name, known)))
    return importlib.import_module(f"{__package__}.{name}")


def checked(target: str | None, chosen: System) -> str:
    """The target with its `${VARIABLE}`s put in. Raises UserError; what a variable holds is never shown."""
    if not target:
        raise UserError(Fault(PLACE, None, f"expected {chosen.EXPECTS}"))
    if (secret := urlsplit_password(target)) and not _VARIABLE.fullmatch(secret):
        told = "holds a password; expected an environment variable in its place, such as ${EXPORT_PASSWORD}"
        raise UserError(Fault(PLACE, shown(target), told))
    if missing := [name for name in _VARIABLE.findall(target) if not os.environ.get(name)]:
        raise UserError(Fault(PLACE, shown(target), f"the environment variable {missing[0]} is not set"))
    return _VARIABLE.sub(lambda match: os.environ[match[1]], target)


def urlsplit_password(target: str) -> str:
    """What stands where a URL has its password."""
    found = re.match(r"^[\w+.-]+://[^/@:]*:([^/]*)@", target)
    return found[1] if found else ""


def shown(target: str) -> str:
    """The target for people: without a password, and without what follows `?`, which may hold one."""
    if "://" not in target:
        return target
    return re.sub(r"^([\w+.-]+://[^/@:]*):[^/]*@", r"\1:…@", target).partition("?")[0]


def parts(target: str, scheme: str, expects: str) -> tuple[str, str, int | None, list[str], dict[str, str]]:
    """user, host, port, path and options of `scheme://user@host:port/a/b?x=y`. Raises UserError."""
    from urllib.parse import parse_qsl, unquote

    try:
        url = urlsplit(target)
        port = url.port
    except ValueError:
        raise UserError(Fault(PLACE, shown(target), f"expected {expects}")) from None
    if url.scheme != scheme or not url.hostname:
        raise UserError(Fault(PLACE, shown(target), f"expected {expects}"))
    path = [unquote(part) for part in url.path.split("/") if part]
    return unquote(url.username or ""), url.hostname, port, path, dict(parse_qsl(url.query))


@contextmanager
def client_of(name: str, extra: str) -> Iterator[None]:
    """Turns a client library that is not installed into a UserError that says how to get it."""
    try:
        yield
    except ImportError as fault:
        told = f"needs a client that is not installed ({fault.name or 'its library'})"
        raise UserError(Fault("--to", name, told, f"pip install 'bizllm[{extra}]'")) from None


def check_count(table: object, night: date, found: int, sent: int) -> int:
    """The rows that are there. Raises RunError, before anything is made visible, where they are not those sent."""
    if found != sent:
        raise RunError(f"{table}: {found:,} rows of {night} arrived, and {sent:,} were sent; nothing was changed")
    return found
