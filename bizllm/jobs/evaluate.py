"""A model scored on a labelled table: `bizllm evaluate MODEL DATA.yaml`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bizllm.errors import Fault, UserError
from bizllm.evaluate.objective_metrics import default_metric
from bizllm.jobs.scoring import score
from bizllm.jobs.training_file import load_evaluation
from bizllm.models.load import resolve
from bizllm.models.registry_uri import default_uri
from bizllm.models.saved import read_info
from bizllm.train import judge
from bizllm.train.data import read_table, some_of
from bizllm.train.objectives.base import objective_class
from bizllm.train.recipe import DataSettings, Recipe, TrainSettings


def evaluate(model: str, data_path: str, registry: str | None = None) -> dict[str, Any]:
    """What `evaluate --json` prints: metrics with intervals, classes, slices. Raises UserError.

    model: a URI of a model that was fine-tuned here. A relative `path:` starts from the working directory.
    """
    table, document = load_evaluation(data_path)
    found = resolve(model, os.getcwd(), "MODEL", default_uri(registry, os.environ, "out"))
    info = read_info(found.folder)
    if info is None:
        raise UserError(
            Fault("MODEL", model, "was not fine-tuned by bizllm: it has no bizllm.json that says what it answers")
        )

    settings = table.model_dump()
    recipe = Recipe(
        name="evaluation",
        base=model,
        objective=info.objective,  # type: ignore[arg-type]  # a folder that says another was not written here
        data=DataSettings(train=TrainSettings(**settings)),
        inputs=info.inputs if info.inputs == "numbers" else None,
        levels=list(info.levels) or [0.5],
    )
    part = read_table("test", table, recipe, document.place)
    unknown = [label for label in objective_class(info.objective).labels(part.rows) if label not in info.labels]
    if info.labels and unknown:
        what = f"has labels that the model does not know: {some_of(unknown)}"
        raise UserError(Fault(document.place("label"), None, what))
    horizon = objective_class(info.objective).horizon(part.rows)
    if horizon != info.horizon:
        what = f"has {horizon} numbers a row; the model answers with {info.horizon}"
        raise UserError(Fault(document.place("label"), None, what))
    answers = judge.answer(found.folder, info, part.rows, recipe)
    scored = score(answers, part.rows, default_metric(info.objective))
    told = {name: value for name, value in asdict(scored).items() if name not in ("confusion", "reliability")}
    confusion = None if scored.confusion is None else scored.confusion.tolist()
    return {
        "model": found.uri,
        "objective": info.objective,
        "labels": list(info.labels),
        "rows": len(part.rows),
        **told,
        "confusion": confusion,
        "reliability": scored.reliability,
        "data": str(Path(data_path)),
        "report": None,
    }
