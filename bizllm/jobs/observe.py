"""What a run tells while it works. The engine calls these on the driver; a console, a notebook or a test listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from typing import Any


class Observer:
    """Listens to a run and does nothing; override what you want to hear. Methods must return soon and never raise.

    Steps that don't depend on each other run at once, so that events of several steps come mixed, from one thread at a
    time.
    """

    def run_started(self, job: str, run_id: str, run_date: date, steps: Sequence[str]) -> None:
        """The input is frozen and the work begins; `steps` in the order in which they can start."""

    def step_started(self, step: str, task: str, units: int) -> None:
        """A step begins its work on so many units."""

    def unit_done(self, step: str, done: int, total: int, rows: int, rejected: int) -> None:
        """`done` of `total` units are answered so far; rows and rejected are sums over those."""

    def stage_started(self, step: str, stage: str, units: int) -> None:
        """A step begins a stage (`answer`, `audit`, …, at last `publish`); stages of a step come one after another."""

    def unit_worked(self, step: str, stage: str, seconds: float, tokens: int) -> None:
        """A process worked so long on a unit of a stage. Told of this run's own units, not of those that it found."""

    def stage_finished(self, step: str, stage: str, seconds: float) -> None:
        """A stage ended, well or not, after so many seconds."""

    def step_finished(self, result: dict[str, Any]) -> None:
        """A step ended, in whatever state: an entry of `steps` in `run --json`."""

    def run_finished(self, result: dict[str, Any]) -> None:
        """The run ended: what `run --json` prints."""


class Several(Observer):
    """Passes every event on to each of these, whatever the others make of it."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        calls: list[Callable[..., None]] = [getattr(observer, name) for observer in self._observers]

        def passed(*args: Any) -> None:
            for call in calls:
                with suppress(Exception):
                    call(*args)

        return passed
