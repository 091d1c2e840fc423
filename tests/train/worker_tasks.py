"""What the workers of tests/train/workers.py run. Arguments and answers are JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bizllm.errors import RunError
from bizllm.train import checkpoint, loop
from bizllm.train.plain import PlainHost
from bizllm.train.work import Work


class Stopped(Exception):
    """A worker that ends after a checkpoint."""


class StoppingHost(PlainHost):
    """Stops after the checkpoint of step `stop_after`, and remembers the steps of checkpoints."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        super().__init__(folder)
        self.stop_after = stop_after
        self.saved: list[int] = []

    def save(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        super().save(folder, step, metrics)
        self.saved.append(step)
        if step == self.stop_after:
            raise Stopped


def train(folder: str, stop_after: int | None = None) -> dict[str, Any]:
    """Train the work folder, every step's figures written; the summary, or the error that ended it.

    The trained weights at the end, not the best ones, lie in `final/` then.
    """
    loop.LOG_EVERY = 1
    host = StoppingHost(Path(folder), stop_after)
    said: dict[str, Any] = {}
    training = loop._Training(Work.load(Path(folder)), host)
    try:
        said["summary"] = asdict(training.run())
        stage = training.recipe.zero.stage
        weights = checkpoint.trainable(training.engine.module, stage, host.rank)
        if host.rank == 0:
            checkpoint.save_weights(weights, Path(folder) / "final", {})
    except RunError as error:
        said["error"] = str(error)
    except Stopped:
        said["stopped"] = True
    return {**said, "saved": host.saved}
