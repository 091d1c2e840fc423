"""Is the new model better? Beside the control, and on the same test rows beside the model in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from bizllm.errors import RunError, UserError
from bizllm.evaluate.objective_metrics import METRICS, default_metric
from bizllm.evaluate.resample import Comparison, decide
from bizllm.jobs.scoring import Scored, score
from bizllm.models.registry import Registry
from bizllm.models.saved import read_info
from bizllm.train import judge, resampled
from bizllm.train.judge import Answers
from bizllm.train.recipe import Recipe


@dataclass(frozen=True)
class Verdict:
    """The new model's scores, and what follows from them.

    metric: the one that decides. control: scores of the control by part. comparison: with the model in use, where there
    is one of the same kind. answers: of test.
    """

    metric: str
    labels: tuple[str, ...]
    validation: Scored
    test: Scored | None
    control: Mapping[str, Mapping[str, float]]
    control_name: str
    control_wins: bool
    champion_version: str | None = None
    comparison: Comparison | None = None
    promoted: bool = False
    reason: str = ""
    answers: Answers | None = None


def judge_model(
    recipe: Recipe,
    answers: Mapping[str, Answers],
    rows: Mapping[str, pa.Table],
    control: Mapping[str, Any] | None,
    registry: Registry,
) -> Verdict:
    """answers, rows: of validation and, where there is one, test. control: `name` and `scores` by part.

    The first model of a name is promoted where the control does not beat it; a later one where it beats the model in
    use, by the paired bootstrap. Only test rows decide.
    """
    metric = (recipe.promote and recipe.promote.metric) or default_metric(recipe.objective)
    scored = {name: score(one, rows[name], metric) for name, one in answers.items()}
    beside = control or {"name": "", "scores": {}}
    decisive = "test" if "test" in scored else "validation"
    made = Verdict(
        metric,
        answers[decisive].info.labels,
        scored["validation"],
        scored.get("test"),
        beside["scores"],
        beside["name"],
        _wins(metric, recipe.objective, beside["scores"].get(decisive, {}), scored[decisive].metrics),
        answers=answers.get("test"),
    )
    if recipe.promote is None:
        return replace(made, reason="`promote` is null in the training file")
    if "test" not in rows:
        return replace(made, reason="without `data.test` nothing is promoted: no rows say that it is better")
    alias = recipe.promote.alias
    version = _in_use(registry, recipe.name, alias)
    if version is None and made.control_wins:
        return replace(made, reason=f"there is no {alias} yet, but the control is at least as good in {metric} on test")
    if version is None:
        return replace(made, promoted=True, reason=f"the first {alias}: no model was in use")
    made = replace(made, champion_version=version)
    try:
        theirs = _answers_of(registry, version, recipe, rows["test"])
    except (UserError, RunError) as fault:  # what was trained must not be lost for it
        return replace(made, reason=f"version {version}, in use, can't be compared: {fault}")
    why = resampled.incomparable(metric, answers["test"], theirs)
    if why:
        return replace(made, reason=f"version {version}, in use, can't be compared: {why}")
    compared = resampled.compare(metric, answers["test"], theirs, rows["test"], made.labels, recipe.promote.confidence)
    promoted, reason = decide(compared, recipe.promote.min_gain, recipe.promote.confidence)
    return replace(made, comparison=compared, promoted=promoted, reason=reason)


def _answers_of(registry: Registry, version: str, recipe: Recipe, rows: pa.Table) -> Answers:
    """What a registered version says of the rows. Raises UserError, RunError where it can't read them."""
    folder = registry.fetch(recipe.name, version)
    info = read_info(folder)
    if info is None:
        raise RunError("it was not fine-tuned by bizllm")
    if info.objective != recipe.objective:
        raise RunError(f"it is a model of {info.objective}")
    if (info.inputs == "numbers") != (recipe.inputs == "numbers"):
        raise RunError(f"it reads {info.inputs}")
    return judge.answer(folder, info, rows, recipe)


def _wins(metric: str, objective: str, theirs: Mapping[str, float], ours: Mapping[str, float]) -> bool:
    """Whether the control is at least as good."""
    if metric not in theirs or metric not in ours:
        return False
    gap = theirs[metric] - ours[metric]
    return gap >= 0 if METRICS[objective].get(metric, True) else gap <= 0


def _in_use(registry: Registry, name: str, alias: str) -> str | None:
    """The version that the alias points to; None where there is none yet."""
    return next((model.aliases.get(alias) for model in registry.models() if model.name == name), None)
