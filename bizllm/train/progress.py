"""What a training tells while it works. A console, a notebook or a test listens; the driver calls, one event at a time.

Figures and names only, never text of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TrainingObserver:
    """Listens to a training and does nothing; override what you want to hear. Methods return soon and never raise."""

    def training_started(self, facts: Mapping[str, Any]) -> None:
        """All is checked and the work begins; facts: name, run_id, base, objective, method, workers, rows, steps,
        those that are known."""

    def stage(self, name: str) -> None:
        """Another part of the work begins, such as `encode`, `train`, `control`, `test`, `register`."""

    def workers(self, count: int, step: int) -> None:
        """So many workers begin at that step, or go on from it: after a loss, or with another number of them."""

    def lost(self, reason: str) -> None:
        """Workers were lost, in training or while they started. Others begin as soon as there is room."""

    def made_up(self, step: int, seconds: float) -> None:
        """The first new step after a loss, so many seconds after the last new one before it, or after the launch."""

    def step(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """`step` of `total` optimizer steps are done; values as in metrics.jsonl: loss, lr, tokens_per_s, …"""

    def validated(self, values: Mapping[str, float]) -> None:
        """The metrics on the validation rows after the last step told."""

    def finished(self, result: Mapping[str, Any]) -> None:
        """The training ended: what `finetune --json` prints."""
