"""An earlier training that this one goes on from: its rows, its model's answers, and how much of it is left after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.evaluate import calibration
from bizllm.evaluate.objective_metrics import METRICS
from bizllm.models.saved import ModelInfo, read_info
from bizllm.train import data, judge, leaks, replay, resampled
from bizllm.train.data import ROLES, ROW
from bizllm.train.judge import Answers
from bizllm.train.objectives.base import objective_class
from bizllm.train.recipe import Recipe, TableSettings

Place = Callable[..., str]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Earlier:
    """Rows of the earlier training and of its test, in canonical columns; None where the recipe names none."""

    rows: pa.Table | None = None
    test: pa.Table | None = None


def check(recipe: Recipe, base_info: ModelInfo | None, place: Place) -> None:
    """Raises UserError where `continual` asks for what is not there."""
    asked, faults = recipe.continual, []
    if (asked.replay or asked.ewc) and asked.path is None:
        faults.append(Fault(place("continual", "path"), None, "'path' is missing: rows of the earlier training"))
    if asked.path is not None and not (asked.replay or asked.ewc):
        faults.append(Fault(place("continual", "path"), asked.path, "is read for `replay` or `ewc`; neither is set"))
    if base_info is None or base_info.objective != recipe.objective:
        for key, value in (("distill", asked.distill), ("test", asked.test)):
            if value:
                expected = f"needs a base that was fine-tuned for {recipe.objective}, to be held against"
                faults.append(Fault(place("continual", key), value, expected))
    if asked.naive and not (asked.replay or asked.ewc or asked.l2_sp or asked.distill):
        expected = "trains once more without `replay`, `ewc`, `l2_sp` and `distill`; none is set"
        faults.append(Fault(place("continual", "naive"), True, expected))
    elif asked.naive and asked.test is None:
        faults.append(Fault(place("continual", "test"), None, "'test' is missing: what both trainings are scored on"))
    if faults:
        raise UserError(*faults)


def read(recipe: Recipe, info: ModelInfo, parts: data.Parts, place: Place) -> Earlier:
    """The rows that `continual` names; those to learn from without what held-out parts hold. Raises UserError."""
    asked = recipe.continual
    test = _table(asked.test, "test", recipe, info, place) if asked.test else None
    if not (asked.replay or asked.ewc):
        return Earlier(test=test)
    assert asked.path is not None, "`check` came first"
    rows = _table(asked.path, "path", recipe, info, place)
    rows = leaks.apart(rows, [*parts.held_out(), *([] if test is None else [test])], recipe.data.drop_overlap)
    if not len(rows):
        raise UserError(Fault(place("continual", "path"), asked.path, "validation and test hold all its texts"))
    return Earlier(rows, test)


def _table(path: str, key: str, recipe: Recipe, info: ModelInfo, place: Place) -> pa.Table:
    train = recipe.data.train
    table = TableSettings(path=path, text=train.text, pair=train.pair, label=train.label, select=train.select)
    at = place("continual", key)
    rows = data.read_table("earlier", table, recipe, lambda *_: at).rows
    cls = objective_class(recipe.objective)
    unknown = [label for label in cls.labels(rows) if label not in info.labels] if cls.learns_labels else []
    if unknown:
        what = f"has labels that neither the base nor train has: {data.some_of(unknown)}"
        raise UserError(Fault(at, path, what))
    return rows.select([name for name in (*ROLES, ROW) if name in rows.column_names])


def replayed(before: pa.Table, new: pa.Table, recipe: Recipe) -> pa.Table:
    """The new rows with earlier ones among them, as many of each class as there are."""
    share = recipe.continual.replay
    codes = objective_class(recipe.objective).strata(before)
    wanted = round(share / (1 - share) * len(new))
    kept = replay.keep(np.zeros(len(before), np.int64) if codes is None else codes, wanted, recipe.seed)
    columns = [name for name in (*ROLES, ROW) if name in new.column_names]
    return replay.mix(before.take(pa.array(kept)), new.select(columns), share, recipe.seed)


def teacher(folder: Path, before: ModelInfo, info: ModelInfo, rows: pa.Table, recipe: Recipe) -> Floats:
    """(rows, classes) the earlier model's probabilities over the new model's classes."""
    logits = judge.answer(folder, before, rows, recipe).outputs["logits"]
    told = calibration.sigmoid(logits) if info.objective == "multi_label" else calibration.softmax(logits)
    made = np.zeros((len(told), len(info.labels)), np.float32)
    made[:, [info.labels.index(label) for label in before.labels]] = told
    return made


def retained(
    metric: str, base: Path, tests: Mapping[str, tuple[pa.Table, Mapping[str, Answers]]], recipe: Recipe
) -> dict[str, Any]:
    """What training changed on the earlier and the new test: metrics of the base and of the models made from it.

    base: the folder of the model before. tests: `earlier` and, where there is one, `new`: rows, and each model's
    answers to them. backward_transfer: what a model gained on the earlier test (Lopez-Paz & Ranzato 2017), below 0
    where it forgot, which `forgetting` then tells as a positive number; better is more, for losses too.
    """
    before = read_info(base)
    assert before is not None, "`check` wants a base that was fine-tuned"
    told: dict[str, Any] = {"metric": metric, "backward_transfer": {}, "forgetting": {}}
    for name, (rows, answers) in tests.items():
        info = next(iter(answers.values())).info
        theirs = judge.answer(base, before, rows, recipe)
        told[name] = {model: _scores(given, rows, info) for model, given in {"base": theirs, **answers}.items()}
    was = told["earlier"]["base"].get(metric)
    sign = 1 if METRICS[recipe.objective].get(metric, True) else -1
    for model, scores in told["earlier"].items():
        if model != "base" and was is not None and metric in scores:
            gain = (scores[metric] - was) * sign
            told["backward_transfer"][model], told["forgetting"][model] = gain, max(0.0, -gain)
    return told


def _scores(answers: Answers, rows: pa.Table, info: ModelInfo) -> dict[str, float]:
    """By metrics that hold also where rows have classes which a model does not know."""
    found = {name: resampled.resampled(name, answers, rows, info.labels) for name in resampled.DRAWN[info.objective]}
    return {name: drawn.score for name, drawn in found.items() if drawn is not None and np.isfinite(drawn.score)}
