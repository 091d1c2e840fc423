"""What goes wrong, by whose doing: the user's input, the data of one row, or the run itself."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One thing wrong with what a user gave.

    place: where, for a person: `jobs/nightly.yaml:12 steps.tickets.text`, or a flag such as `--date`.
    value: what stood there, as written; None where something is missing.
    expected: what would have been right, in words, without a final full stop.
    suggestion: the nearest right name, or what to do; may be empty.
    """

    place: str
    value: object
    expected: str
    suggestion: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is None else f"{_short(self.value)}: "
        hint = f"; {self.suggestion}" if self.suggestion else ""
        return f"{self.place}: {shown}{self.expected}{hint}"


class UserError(Exception):
    """The user's input was wrong; exit status 2. Carries every fault that was found, one line each."""

    def __init__(self, *faults: Fault) -> None:
        assert faults, "a UserError names at least one fault"
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class NoInput(UserError):
    """A source holds nothing of the date: it may never have come, or not yet."""


class RunError(Exception):
    """The run failed for a reason that is not the user's YAML; exit status 1. The message never holds row text."""


class StorageUnavailable(RunError):
    """An object store failed in a way that may pass: another attempt may succeed. Told after all attempts in vain.

    stale: whether credentials must be read again before.
    """

    def __init__(self, message: str, stale: bool = False) -> None:
        super().__init__(message, stale)  # all of it, so that it survives pickling
        self.stale = stale

    def __str__(self) -> str:
        return str(self.args[0])


class LockHeld(RunError):
    """Another run holds this job and date; exit status 3."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'body'?` for the closest of the known names, else an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Cancelled(RunError):
    """The run was interrupted; exit status 130. Nothing half-visible is left."""


def safe_text(fault: BaseException) -> str:
    """What may be written of an exception: our own messages whole; of others the type and the place in our code.

    Messages of other libraries may quote the row that they choked on (pyarrow: "could not convert 'Jane Doe'").
    """
    if isinstance(fault, (UserError, RunError)):
        return str(fault)
    place = ""
    for frame in traceback.extract_tb(fault.__traceback__):
        if "bizllm" in Path(frame.filename).parts:
            place = f" at {frame.filename[frame.filename.rindex('bizllm') :]}:{frame.lineno} in {frame.name}"
    return f"{type(fault).__name__}{place}"
