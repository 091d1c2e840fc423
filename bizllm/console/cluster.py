"""What a person sees of a job on a cluster."""

from __future__ import annotations

import sys

from rich.text import Text

from bizllm.console.terminal import new_console, state_text
from bizllm.jobs.submit import Submission
from bizllm.plain_text import plain


def print_submission(sent: Submission) -> None:
    """Which job a cluster has now, and how to follow and to stop it; on stderr, since the job's lines go there too."""
    console = new_console(sys.stderr)
    for warning in sent.warnings:
        console.print(Text.assemble(("warning ", "yellow"), plain(warning)), soft_wrap=True)
    lines = [("submitted", f"{sent.submission_id} to {sent.address}"), ("follow", sent.command("logs --follow"))]
    for name, value in [*lines, ("state", sent.command("status")), ("stop", sent.command("stop"))]:
        console.print(Text.assemble((f"{name:<10}", "dim"), plain(value)), soft_wrap=True)


def print_submission_end(sent: Submission) -> None:
    """Its id alone before the end, so that a script can take it; at the end how it went."""
    if sent.exit_status is None:
        print(plain(sent.submission_id))
        return
    why = f" ({sent.meaning()})" if sent.state == "failed" else ""
    state = Text.assemble(plain(f"{sent.submission_id} of {sent.job} for {sent.date}: "), state_text(sent.state), why)
    new_console().print(state, soft_wrap=True)


def print_log_line(line: str) -> None:
    """A line that a job printed elsewhere."""
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()
