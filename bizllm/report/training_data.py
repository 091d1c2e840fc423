"""What a training's report shows, as plain values: whoever trained fills these, `render_training` draws them.

Rows of tables come in the shapes that `bizllm.evaluate` gives: `ClassScore(**row)`, `SliceScore(**row)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Outcome = Literal["promoted", "registered", "control_won", "failed"]


@dataclass(frozen=True)
class Metric:
    """One metric of the model beside the control's and the champion's on the same test rows.

    low, high: the bootstrap interval of `test`.
    """

    name: str
    validation: float | None = None
    test: float | None = None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    champion: float | None = None
    higher_is_better: bool = True


@dataclass(frozen=True)
class Champion:
    """The model in use, and by how much the new one is better in the deciding metric: above 0 is better, for losses
    too. low, high: the interval of the paired bootstrap."""

    version: str
    gain: float
    low: float
    high: float
    min_gain: float = 0.0


@dataclass(frozen=True)
class SplitFacts:
    """truncated: rows longer than the model's window, whose end it never saw."""

    name: str
    rows: int
    tokens: int | None = None
    truncated: int = 0


@dataclass(frozen=True)
class Overlap:
    """Rows of one split that another holds too. dropped: they were left out of training."""

    between: str
    exact: int
    near: int
    dropped: bool = True


@dataclass(frozen=True)
class LabelCount:
    label: str
    train: int
    validation: int = 0
    test: int = 0


@dataclass(frozen=True)
class ClassScore:
    """Of a class, or of a type of tagged spans; support: rows or spans of it in test."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Confusion:
    """counts: (k, k) test rows by true class (down) and predicted class (across)."""

    labels: Sequence[str]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """Bins of the reliability diagram on test before and after temperature scaling (Guo et al. 2017), each with
    `confidence`, `accuracy` and `rows`."""

    before: Sequence[Mapping[str, float]]
    after: Sequence[Mapping[str, float]]
    ece_before: float
    ece_after: float
    temperature: float


@dataclass(frozen=True)
class SliceScore:
    """The deciding metric on the test rows with one value of a slice."""

    slice: str
    value: str
    rows: int
    score: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Errors:
    """Numbers foretold: (n,) true and predicted ones, the median where quantiles are.

    levels: for each quantile level the share of outcomes that were at or below it.
    """

    truth: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    levels: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Retained:
    """A model's scores on the test of the earlier training and on the new one; transfer: its gain on the earlier test
    over the model before, below 0 where it forgot."""

    model: str
    earlier: float | None
    new: float | None
    transfer: float | None = None


@dataclass(frozen=True)
class Cost:
    """memory_mb: the largest of a worker. stages: seconds of each part of the work, in its order."""

    workers: int = 1
    device: str = ""
    steps: int = 0
    tokens_per_s: float | None = None
    rows_per_s: float | None = None
    memory_mb: float | None = None
    stages: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class TrainingReport:
    """One fine-tuning run.

    reason: why it was promoted or not; error: what went wrong where it failed; never row text.
    metric: the one that decides, of `metrics`; stop_metric: the one on validation that chose `best_step`.
    recipe: settings as `optim.lr`: `0.0001`, without secrets.
    history: lines of metrics.jsonl, as `read_history` gives them.
    """

    name: str
    run_id: str
    outcome: Outcome
    base: str
    objective: str
    method: str
    started_at: datetime
    seconds: float
    timezone: str = "UTC"
    version: str = ""
    alias: str = "champion"
    reason: str = ""
    error: str = ""
    metric: str = ""
    stop_metric: str = ""
    best_step: int | None = None
    recipe: Mapping[str, str] = field(default_factory=dict)
    splits: Sequence[SplitFacts] = ()
    overlaps: Sequence[Overlap] = ()
    labels: Sequence[LabelCount] = ()
    metrics: Sequence[Metric] = ()
    control: str = ""
    champion: Champion | None = None
    history: Sequence[Mapping[str, Any]] = ()
    per_class: Sequence[ClassScore] = ()
    confusion: Confusion | None = None
    reliability: Reliability | None = None
    slices: Sequence[SliceScore] = ()
    errors: Errors | None = None
    retained: Sequence[Retained] = ()
    cost: Cost = Cost()
    warnings: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def read_history(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last one that a kill cut short is left out."""
    if not file.is_file():
        return []
    history = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            try:
                row = json.loads(text)
            except ValueError:
                continue
            if isinstance(row, dict):
                history.append(row)
    return history
