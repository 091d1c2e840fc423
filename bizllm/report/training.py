"""The report of a training: one HTML page that says first whether the model was promoted and why.

The same page as a night's report: everything escaped, no script, nothing asked for, under `html.MAX_BYTES`.
"""

from __future__ import annotations

import math
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import escape

from bizllm.report import training_views as views
from bizllm.report.html import render_page
from bizllm.report.training_data import Metric, Retained, TrainingReport
from bizllm.report.words import Verdict, clip, score

WARNINGS_MOST, SETTINGS_MOST, METRICS_MOST, STAGES_MOST, OVERLAPS_MOST = 20, 120, 40, 30, 10


def render_training(report: TrainingReport) -> str:
    """The page as UTF-8 text."""
    warnings = [*_control_wins(report), *report.warnings]
    return render_page(
        "training.html.j2",
        ["report.css", "training.css"],
        verdict(report),
        report=report,
        started=report.started_at.astimezone(ZoneInfo(report.timezone)),
        whiskers=views.whiskers(report),
        metrics=[_compared(metric) for metric in report.metrics[:METRICS_MOST]],
        curves=views.curves(report),
        classes=views.classes(report.per_class) if report.per_class else None,
        class_noun="type" if report.objective == "token_classification" else "class",
        confusion=views.confusion(report.confusion) if report.confusion is not None else None,
        reliability=views.reliability(report.reliability) if report.reliability is not None else None,
        slices=views.slices(report.slices),
        slices_left=max(0, len(report.slices) - views.SLICES_MOST),
        errors=views.errors(report.errors) if report.errors is not None else None,
        retained=[_of_earlier(row) for row in report.retained],
        labels=views.labels(report.labels) if report.labels else None,
        overlaps=report.overlaps[:OVERLAPS_MOST],
        stages=_stages(report),
        warnings=[clip(text, 400) for text in warnings[:WARNINGS_MOST]],
        warnings_left=max(0, len(warnings) - WARNINGS_MOST),
        settings=[(clip(name, 80), clip(value, 300)) for name, value in list(report.recipe.items())[:SETTINGS_MOST]],
    )


def _control_wins(report: TrainingReport) -> list[str]:
    """What the verdict does not say: that the simple model would have done as well."""
    metric = views.deciding(report)
    if report.outcome == "control_won" or metric is None or metric.control is None or metric.test is None:
        return []
    wins = metric.control >= metric.test if metric.higher_is_better else metric.control <= metric.test
    return [f"The control is no worse: {metric.name} {score(metric.control)} on test."] if wins else []


def verdict(report: TrainingReport) -> Verdict:
    """What became of the model, for somebody who was woken up; the cause is the reason given for it."""
    model = f"version {report.version}" if report.version else "the model"
    alias = clip(report.alias, 40)
    cause = clip(report.reason, 600)
    if report.outcome == "failed":
        lines = report.error.strip().splitlines()
        return Verdict("bad", escape("The training failed."), clip(lines[0], 600) if lines else cause)
    if report.outcome == "promoted":
        took = f" in place of version {report.champion.version}" if report.champion is not None else ""
        return Verdict("good", escape(clip(f"Promoted: {model} is {alias} now{took}.", 300)), cause)
    if report.outcome == "control_won":
        metric = views.deciding(report)
        scores = ""
        if metric is not None and metric.control is not None and metric.test is not None:
            name = report.control or "the simple model"
            scores = f": {name} scores {score(metric.control)} {metric.name} on test, {model} {score(metric.test)}"
        return Verdict("bad", escape(clip(f"Not promoted, the control wins{scores}.", 300)), cause)
    stays = f", {alias} stays version {report.champion.version}" if report.champion is not None else ""
    return Verdict("idle", escape(clip(f"Not promoted: registered as {model}{stays}.", 300)), cause)


def _compared(metric: Metric) -> dict[str, Any]:
    """The metric's cells as text, each with whether it is the best of the model's, the control's and the champion's."""
    rivals = {"test": metric.test, "control": metric.control, "champion": metric.champion}
    known = [value for value in rivals.values() if value is not None and math.isfinite(value)]
    best = (max if metric.higher_is_better else min)(known) if len(known) > 1 else None
    bounds = metric.low is not None and metric.high is not None
    return {
        "name": clip(metric.name, 60),
        "down": not metric.higher_is_better,
        "validation": "" if metric.validation is None else score(metric.validation),
        "interval": f"{score(metric.low)} to {score(metric.high)}" if bounds else "",
        "rivals": {
            name: ("" if value is None else score(value), value is not None and value == best)
            for name, value in rivals.items()
        },
    }


def _of_earlier(row: Retained) -> dict[str, Any]:
    """A model's cells as text; forgot: whether it does worse on the earlier test."""
    return {
        "model": row.model,
        "earlier": "" if row.earlier is None else score(row.earlier),
        "new": "" if row.new is None else score(row.new),
        "transfer": "" if row.transfer is None else f"{row.transfer:+.4f}",
        "forgot": row.transfer is not None and row.transfer < 0,
    }


def _stages(report: TrainingReport) -> list[dict[str, Any]]:
    stages = report.cost.stages[:STAGES_MOST]
    most = max((seconds for _, seconds in stages), default=0.0) or 1.0
    return [{"name": clip(name, 120), "seconds": seconds, "width": 100 * seconds / most} for name, seconds in stages]
