"""What a registry says: a version of a model, a model with its aliases, and an alias that moved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model.

    version: its number, as text. source: where its folder is: a path, or a URI that the server or a store resolves.
    metrics: by `SPLIT.METRIC`, such as `test.macro_f1`. tags: base, license, objective, data_fingerprint, …, and
        `interval.METRIC` = "low,high". card: Markdown, maybe cut.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    source: str
    created_at: datetime
    card: str

    @property
    def content_hash(self) -> str | None:
        """Of the folder when it was registered; None where another tool registered it."""
        return self.tags.get("content_hash")

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The metric's confidence interval, where one was registered."""
        low, comma, high = self.tags.get(f"interval.{metric}", "").partition(",")
        return (float(low), float(high)) if comma else None

    def to_dict(self) -> dict[str, Any]:
        """What `models show --json` prints of a version."""
        said = {key: value for key, value in asdict(self).items() if key != "card"}
        said["tags"] = {key: value for key, value in self.tags.items() if not key.startswith("interval.")}
        intervals = {metric: self.interval(metric) for metric in self.metrics}
        said["intervals"] = {metric: list(pair) for metric, pair in intervals.items() if pair}
        return {**said, "aliases": list(self.aliases), "created_at": self.created_at.isoformat()}


@dataclass(frozen=True)
class RegisteredModel:
    """A model's name, its aliases with the version each points to, and the version that a reader looks at first:
    the champion, else the newest."""

    name: str
    aliases: dict[str, str]
    newest: str
    shown: ModelVersion


@dataclass(frozen=True)
class Moved:
    """An alias that now points to another version. replaced: the version that it pointed to before, if any."""

    model: str
    alias: str
    version: str
    replaced: str | None
