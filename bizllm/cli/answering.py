"""How a verb answers: a value as JSON or for people on stdout, what went wrong on stderr, and the exit status."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from bizllm.errors import Cancelled, LockHeld, RunError, UserError, safe_text
from bizllm.plain_text import json_text, plain

FAILED, WRONG_INPUT, LOCKED, INTERRUPTED = 1, 2, 3, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")]
Out = Callable[[Any, Callable[[], None]], None]


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Out]:
    """Turns what goes wrong inside into lines on stderr and an exit status. Yields `out(value, show)`, which prints
    the value as JSON, or else lets `show` print it. What libraries print goes to stderr with JSON."""
    from bizllm.jobs.interrupts import interruptible

    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        stdout = stack.enter_context(_stdout_kept()) if as_json else None

        def out(value: Any, show: Callable[[], None]) -> None:
            if stdout is not None:
                stdout(json_text(value) + "\n")
            else:
                show()
                sys.stdout.flush()

        def fail(status: int, text: str, faults: list[dict[str, Any]] | None = None) -> typer.Exit:
            sys.stderr.writelines(plain(line) + "\n" for line in text.split("\n"))
            if stdout is not None:
                stdout(json_text({"status": status, "error": text, "faults": faults or []}) + "\n")
            return typer.Exit(status)

        try:
            yield out
        except typer.Exit:
            raise
        except UserError as error:
            raise fail(WRONG_INPUT, str(error), [vars(fault) for fault in error.faults]) from None
        except (KeyboardInterrupt, Cancelled) as error:
            said = str(error) or "interrupted"
            stays = "; what is published stays as it was" if said == "interrupted" else ""  # else it says how to go on
            raise fail(INTERRUPTED, said + stays) from None
        except LockHeld as error:
            raise fail(LOCKED, str(error)) from None
        except RunError as error:
            _debug(error)
            raise fail(FAILED, str(error)) from None
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(FAILED) from None
        except Exception as error:  # its message may hold row text
            _debug(error)
            raise fail(FAILED, f"unexpected {safe_text(error)}; BIZLLM_DEBUG=1 shows the traceback") from None


def _debug(error: BaseException) -> None:
    if os.environ.get("BIZLLM_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)


@contextlib.contextmanager
def _stdout_kept() -> Iterator[Callable[[str], None]]:
    """Everything that prints meanwhile, C libraries and child processes too, prints to stderr. Yields the writer to
    the real stdout."""
    stdout = sys.stdout
    stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)

    def write(text: str) -> None:
        os.dup2(kept, 1)
        stdout.write(text)
        stdout.flush()
        os.dup2(2, 1)

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield write
    finally:
        os.dup2(kept, 1)
        os.close(kept)
