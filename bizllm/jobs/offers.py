"""What `plan` offers: the smallest of those that `compress` made of a step's model, if it is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bizllm.errors import RunError, UserError
from bizllm.models.load import ResolvedModel
from bizllm.models.registry import ModelVersion, Registry

MAX_LOSS = 0.01  # of the score, by default


def smaller(pins: Mapping[str, ResolvedModel], max_loss: float) -> list[dict[str, Any]]:
    """For each registered model of a step that has one: the version with the fewest parameters that loses at most
    `max_loss` of its score.

    pins: what the step's models resolved to, by URI. A registry that can't be asked offers nothing: the plan stands.
    """
    found = []
    for pin in pins.values():
        if pin.kind != "registry" or pin.registry is None:
            continue
        name = pin.uri.removeprefix("registry:").partition("@")[0]
        try:
            versions = Registry(pin.registry).versions(name)
        except (UserError, RunError):
            continue
        enough = [version for version in versions if _loss(version, pin.content_hash) <= max_loss]
        if enough:
            found.append(_told(pin, min(enough, key=lambda version: int(version.tags["parameters"]))))
    return found


def _loss(version: ModelVersion, teacher: str) -> float:
    """What it loses against that teacher; infinite where it is no pupil of it, or nobody measured."""
    if version.tags.get("teacher_hash") != teacher or "score_loss" not in version.tags:
        return float("inf")
    return float(version.tags["score_loss"])


def _told(pin: ResolvedModel, version: ModelVersion) -> dict[str, Any]:
    tags = version.tags
    numbers = ("size_mb", "teacher_size_mb", "times", "agreement", "score", "teacher_score", "score_loss")
    return {
        "instead_of": pin.uri,
        "model": f"registry:{version.name}@{version.version}",
        "metric": tags["metric"],
        **{name: float(tags[name]) for name in numbers},
    }
