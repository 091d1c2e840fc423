"""What each task is worth on real data: a module a task, with `lines(data)`, maybe `bars(lines)` and `REMARKS`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A figure of a task. baseline: the best of those measured, which is `against`. published: where one was read."""

    task: str
    data: str
    metric: str
    ours: float
    baseline: float
    against: str
    published: str = ""
    note: str = ""
    less_is_better: bool = False
