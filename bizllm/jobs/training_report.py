"""A run's facts as what its report draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Retained,
    SliceScore,
    SplitFacts,
    TrainingReport,
    read_history,
)
from bizllm.train import judge, resampled, zero
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
        overlaps=_overlaps(facts["overlap"], recipe.data.drop_overlap),
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
        retained=_retained(facts["continual"]) if facts.get("continual") else (),
        cost=Cost(
            recipe.most_workers,
            zero.device_name(),
            result["steps"],
            result["tokens_per_s"],
            None,
            result["memory_mb"],
            list(result["stages"].items()),
        ),
        warnings=[*facts["warnings"], *_notes(facts)],
        versions=_versions(),
    )


def failure_of(
    recipe: Recipe, run_id: str, started_at: datetime, seconds: float, error: str, history: Path | None
) -> TrainingReport:
    """Of a run that did not reach its end."""
    return TrainingReport(
        name=recipe.name,
        run_id=run_id,
        outcome="failed",
        base=recipe.base,
        objective=recipe.objective,
        method=recipe.method.kind,
        started_at=started_at,
        seconds=seconds,
        error=error,
        recipe=dict(flat_params(recipe.model_dump(mode="json", exclude_defaults=True))),
        history=read_history(history) if history is not None else (),
        versions=_versions(),
    )


def _overlaps(found: Sequence[Mapping[str, Any]], drop: str) -> list[Overlap]:
    """Of train with the held-out parts; by themselves where only the equal texts were left out."""
    made = []
    for twins in found:
        if twins["part"] == "train":
            between, exact, near = f"train and {twins['other']}", int(twins["exact"]), int(twins["near"])
            if drop == "exact" and near:
                made += [Overlap(between, exact, 0, True), Overlap(between, 0, near, False)]
            else:
                made.append(Overlap(between, exact, near, drop != "none"))
    return made


def _notes(facts: Mapping[str, Any]) -> list[str]:
    """What a reader should look at."""
    notes = []
    if facts.get("review"):
        notes.append(f"{facts['review']['rows']:,} rows of train are likely mislabelled: see review.parquet")
    if facts.get("pseudo_labelled"):
        made = facts["pseudo_labelled"]
        near = f"labels of rows near them, as {', '.join(made['teachers'])} sees it"
        notes.append(f"{made['rows']:,} rows without a label were learned with {near}")
    return notes


def _retained(said: Mapping[str, Any]) -> list[Retained]:
    """The model before, this one, and the one that was trained on naively where there is one."""
    metric, before = said["metric"], said["earlier"]["base"]
    shown = {"base": "before this training", "naive": "trained on naively", "model": "this model"}
    return [
        Retained(
            what,
            said["earlier"][name].get(metric),
            said.get("new", {}).get(name, {}).get(metric),
            said["backward_transfer"].get(name),
        )
        for name, what in shown.items()
        if name in said["earlier"] and metric in before
    ]


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
    drawn = resampled.resampled("mae", answers, rows["test"], ())
    assert drawn is not None
    levels = judge.shares_below(answers, rows["test"]) if answers.info.levels else {}
    return Errors(np.asarray(drawn.truth).ravel(), np.asarray(drawn.given).ravel(), levels)


def _versions() -> dict[str, str]:
    named = ("bizllm", "torch", "transformers", "deepspeed", "peft", "ray")
    return {name: version(name) for name in named}
