"""What `check` and `metrics` print."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.text import Text

from bizllm.console.terminal import new_console, say
from bizllm.plain_text import plain

_COLORS = {"done": "green", "waiting": "cyan", "late": "bold red"}


def print_check(found: dict[str, Any]) -> None:
    """One line."""
    state = Text(found["state"], style=_COLORS[found["state"]])
    line = Text.assemble(plain(f"{found['job']} for {found['date']}: "), state, plain(f", {found['said']}"))
    new_console().print(line, soft_wrap=True)
    for i in found["unsent"]:
        say(f"notify[{i}] could not be told", sys.stderr)


def print_metrics(text: str) -> None:
    """The text format as it is: a collector reads it."""
    sys.stdout.write(text)


def print_serving(host: str, port: int) -> None:
    """Where it listens."""
    say(f"metrics at http://{f'[{host}]' if ':' in host else host}:{port}/metrics", sys.stderr)


@contextmanager
def until_stopped() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, which is how a server is ended; Ctrl-C interrupts as everywhere."""
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
