"""What a person sees of a job on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from bizllm.console.terminal import duration, new_console, state_text
from bizllm.jobs.submission import GOES_ON, Submission
from bizllm.plain_text import plain


def print_submission(sent: Submission) -> None:
    """Which job a cluster has now, and how to follow and to stop it; on stderr, since the job's lines go there too."""
    console = new_console(sys.stderr)
    for warning in sent.warnings:
        console.print(Text.assemble(("warning ", "yellow"), plain(warning)), soft_wrap=True)
    lines = [
        ("submitted", f"{sent.submission_id} to {sent.address}"),
        (
            "bizllm",
            f"{sent.code} {'goes with it' if sent.code_from == 'sent' else 'sent it; the cluster runs its own'}",
        ),
        ("follow", sent.command("logs --follow")),
        ("state", sent.command("status")),
        ("stop", sent.stop_command()),
    ]
    for name, value in lines:
        console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)


def print_submission_end(sent: Submission) -> None:
    """Its id alone before the end, so that a script can take it; at the end how it went."""
    if sent.exit_status is None:
        print(plain(sent.submission_id))
        return
    why = f" ({sent.meaning()})" if sent.state == "failed" else ""
    state = Text.assemble(plain(f"{sent.submission_id} of {sent.subject()}: "), state_text(sent.state), why)
    new_console().print(state, soft_wrap=True)


def print_log_line(line: str) -> None:
    """A line that a job printed elsewhere."""
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()


def print_stopped(result: Mapping[str, Any]) -> None:
    """What the job said last, then how it ended and what stands."""
    for line in result["lines"]:
        print_log_line(line)
    said = f"{result['submission_id']} {_how_it_ended(result)}"
    new_console().print(Text(plain(said)), soft_wrap=True)


def _how_it_ended(result: Mapping[str, Any]) -> str:
    if not result["stopped"]:
        how = "ended by itself meanwhile" if result["seconds"] else "had ended before"
        return f"{how}: {result['state']}"
    took = duration(result["seconds"])
    how = f"was killed {took} after it was told to stop" if result["killed"] else f"stopped after {took}"
    goes_on = GOES_ON[result["verb"] or "run"]
    if result["verb"] == "compress":
        return f"{how}; {goes_on}"
    if result["verb"] == "finetune":
        return f"{how}; its checkpoints stand, and nothing was registered: {goes_on}"
    free = " when its lease is over (runtime.lock_lease_s, 300 s by default)" if result["killed"] else ""
    return f"{how}; what was published stands as it was, and {goes_on}; the lock is free{free}"
