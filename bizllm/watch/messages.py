"""What receivers are told, as Slack's JSON and as plain JSON: names, counts, states and our own errors, never rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bizllm.receivers import Event

MOST_STEPS = 20  # that a message lists, the worst first
MOST_TEXT = 2900  # Slack takes 3,000 characters a block
_ERROR = 300
_WORST_FIRST = ("failed", "cancelled", "skipped", "done", "unchanged")
_SIGNS = {
    "failed": ":red_circle:",
    "late": ":hourglass:",
    "recovered": ":large_green_circle:",
    "done": ":white_check_mark:",
}


@dataclass(frozen=True)
class Message:
    """One event of a night, or of a training.

    about: `retail_nightly for 2026-06-30`. said: how it went, in a few words. steps: as in `run --json`. look: the
    command that tells more.
    """

    event: Event
    job: str
    about: str
    said: str
    look: str
    date: str | None = None
    run_id: str | None = None
    state: str | None = None
    steps: Sequence[dict[str, Any]] = ()
    error: str | None = None
    report: str | None = None
    sent_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def text(self) -> str:
        """One line."""
        return f"{self.about}: {self.said}"

    def body(self, shape: str) -> dict[str, Any]:
        """What is sent to a receiver of that `format`."""
        return self._slack() if shape == "slack" else self._json()

    def _json(self) -> dict[str, Any]:
        names = ("step", "task", "state", "rows_in", "rows_out", "rows_rejected", "rows_reused", "tokens", "seconds")
        steps = [{name: step.get(name) for name in (*names, "cost", "error")} for step in self.steps]
        return {
            "event": self.event,
            "job": self.job,
            "date": self.date,
            "run_id": self.run_id,
            "state": self.state,
            "text": self.text(),
            "error": self.error,
            "steps": steps,
            "report": self.report,
            "look": self.look,
            "sent_at": self.sent_at.isoformat(timespec="seconds"),
        }

    def _slack(self) -> dict[str, Any]:
        parts = [f"{_SIGNS[self.event]} *{_escaped(self.about)}*: {_escaped(self.said)}"]
        if self.error:
            parts.append(_quoted(self.error))
        ordered = sorted(self.steps, key=lambda step: _WORST_FIRST.index(step["state"]))
        lines = [_line(step) for step in ordered[:MOST_STEPS]]
        if len(ordered) > MOST_STEPS:
            lines.append(f"… and {len(ordered) - MOST_STEPS} more steps")
        parts.append("\n".join(lines))
        parts.append(f"`{_escaped(self.look)}`" + (f"\nreport: {_escaped(self.report)}" if self.report else ""))
        blocks = [
            {"type": "section", "text": {"type": "mrkdwn", "text": _cut(part, MOST_TEXT)}} for part in parts if part
        ]
        return {"text": _escaped(self.text()), "blocks": blocks}


def failed_steps(steps: Sequence[dict[str, Any]]) -> str:
    """`failed: summary (1 step skipped)`"""
    bad = [step["step"] for step in steps if step["state"] in ("failed", "cancelled")]
    skipped = sum(step["state"] == "skipped" for step in steps)
    beside = f" ({skipped} step{'s' * (skipped > 1)} skipped)" if skipped else ""
    return f"failed: {', '.join(bad)}{beside}"


def _line(step: dict[str, Any]) -> str:
    counts = (
        f"{step['rows_out']:,} of {step['rows_in']:,} rows, {step['rows_rejected']:,} rejected, {step['seconds']:.0f} s"
    )
    line = f"• *{_escaped(step['step'])}* {step['state']}"
    if step["state"] in ("done", "unchanged"):
        return f"{line}: {counts}"
    return f"{line}: {_escaped(_cut(step['error'], _ERROR))}" if step.get("error") else line


def _quoted(text: str) -> str:
    return "\n".join(f"> {_escaped(line)}" for line in _cut(text, 2 * _ERROR).splitlines())


def _escaped(text: str) -> str:
    """As Slack's mrkdwn wants it, so that nothing in it is a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
