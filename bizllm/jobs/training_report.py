"""A run's facts as what its report draws."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bizllm.evaluate.objective_metrics import METRICS
from bizllm.report.training_data import (
    Champion,
    ClassScore,
    Confusion,
    Cost,
    Errors,
    LabelCount,
    Metric,
    Overlap,
    Reliability,
    SliceScore,
    SplitFacts,
    TrainingReport,
    read_history,
)
from bizllm.train import judge, zero
from bizllm.train.trackers import flat_params

if TYPE_CHECKING:
    import pyarrow as pa

    from bizllm.jobs.verdict import Verdict
    from bizllm.train.recipe import Recipe


def report_of(
    recipe: Recipe,
    verdict: Verdict,
    facts: Mapping[str, Any],
    result: Mapping[str, Any],
    history: Path,
    rows: Mapping[str, pa.Table],
) -> TrainingReport:
    """facts: of the frozen input. history: metrics.jsonl on this machine. rows: of validation and test."""
    scored = verdict.test or verdict.validation
    metric = verdict.metric
    champion = None
    if verdict.comparison is not None and recipe.promote is not None:
        c = verdict.comparison
        champion = Champion(str(verdict.champion_version), c.gain, c.low, c.high, recipe.promote.min_gain)
    outcome: Any = "promoted" if verdict.promoted else "control_won" if verdict.control_wins else "registered"
    reliability = None
    if scored.reliability is not None:
        reliability = Reliability(**scored.reliability)
    return TrainingReport(
        name=recipe.name,
        run_id=result["run_id"],
        outcome=outcome,
        base=facts["base"],
        objective=recipe.objective,
        method=recipe.method.kind,
        started_at=datetime.fromisoformat(result["started_at"]),
        seconds=result["seconds"],
        version=str(result.get("version") or ""),
        alias=recipe.promote.alias if recipe.promote else "champion",
        reason=result["reason"],
        metric=metric,
        stop_metric=result["stop_metric"],
        best_step=result["best_step"],
        recipe=dict(flat_params(recipe.model_dump(mode="json", exclude_defaults=True))),
        splits=[
            SplitFacts(name, count, facts["tokens"].get(name), facts["cut"].get(name, 0))
            for name, count in facts["rows"].items()
        ],
        overlaps=[
            Overlap(
                f"{twins['part']} and {twins['other']}",
                int(twins["exact"]),
                int(twins["near"]),
                twins["part"] == "train" and recipe.data.drop_overlap != "none",
            )
            for twins in facts["overlap"]
            if twins["part"] == "train"
        ],
        labels=[
            LabelCount(label, counts.get("train", 0), counts.get("validation", 0), counts.get("test", 0))
            for label, counts in sorted(facts["labels"].items())
        ],
        metrics=_metrics(recipe.objective, verdict, metric),
        control=verdict.control_name,
        champion=champion,
        history=read_history(history),
        per_class=[ClassScore(**row) for row in scored.per_class],
        confusion=None if scored.confusion is None else Confusion(list(verdict.labels), scored.confusion),
        reliability=reliability,
        slices=[SliceScore(**row) for row in scored.slices],
        errors=_errors(verdict, rows),
        cost=Cost(
            recipe.most_workers,
            zero.device_name(),
            result["steps"],
            result["tokens_per_s"],
            None,
            result["memory_mb"],
            list(result["stages"].items()),
        ),
        warnings=facts["warnings"],
        versions=_versions(),
    )


def _metrics(objective: str, verdict: Verdict, deciding: str) -> list[Metric]:
    validation = verdict.validation.metrics
    test = verdict.test.metrics if verdict.test else {}
    bounds = verdict.test.intervals if verdict.test else {}
    beside = verdict.control.get("test" if verdict.test else "validation", {})
    theirs = {deciding: verdict.comparison.champion} if verdict.comparison else {}
    names = [name for name in METRICS[objective] if name in validation or name in test]
    names += sorted((validation.keys() | test.keys()) - set(names))
    made = []
    for name in names:
        low, high = bounds.get(name, (None, None))
        higher = METRICS[objective].get(name, True)
        made.append(
            Metric(name, validation.get(name), test.get(name), low, high, beside.get(name), theirs.get(name), higher)
        )
    return made


def _errors(verdict: Verdict, rows: Mapping[str, pa.Table]) -> Errors | None:
    answers = verdict.answers
    if answers is None or answers.info.objective not in ("regression", "quantile") or "test" not in rows:
        return None
    drawn = judge.resampled("mae", answers, rows["test"], ())
    assert drawn is not None
    levels = judge.shares_below(answers, rows["test"]) if answers.info.levels else {}
    return Errors(np.asarray(drawn.truth).ravel(), np.asarray(drawn.given).ravel(), levels)


def _versions() -> dict[str, str]:
    named = ("bizllm", "torch", "transformers", "deepspeed", "peft", "ray")
    return {name: version(name) for name in named}
