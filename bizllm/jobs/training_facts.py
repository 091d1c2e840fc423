"""What is known of a training's input before it begins: for its report, its card and its verdict; never a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bizllm.train import control, judge, written
from bizllm.train.objectives.base import objective_class
from bizllm.train.prepare import Prepared
from bizllm.train.work import Work


def of_data(prepared: Prepared) -> dict[str, Any]:
    """Where the data came from, and how it is spread."""
    cls = objective_class(prepared.recipe.objective)
    counts: dict[str, dict[str, int]] = {}
    if cls.learns_labels and prepared.recipe.objective in judge.CLASSES:
        from bizllm.train.objectives.classification import names

        for part_name, part in prepared.parts.items():
            for label in names(part.rows["label"]):
                counts.setdefault(label, {}).setdefault(part_name, 0)
                counts[label][part_name] += 1
    overlap = [dict(twins) for twins in prepared.overlap.counts()] if prepared.overlap else []
    fingerprints = {name: part.fingerprint for name, part in prepared.parts.items()}
    if prepared.near is not None:
        fingerprints["unlabelled"] = prepared.near.fingerprint
    return {
        "base": prepared.base.uri,
        "base_hash": prepared.base.content_hash,
        "fingerprints": fingerprints,
        "labels": counts,
        "overlap": overlap,
        "warnings": list(prepared.warnings),
    }


def control_scores(prepared: Prepared, work: Work) -> dict[str, Any] | None:
    """The control's name and its scores on validation and test; None where the objective has none."""
    fitted = control.fit(prepared.parts.train.rows, prepared.info, prepared.recipe.seed)
    if fitted is None:
        return None
    info = replace(prepared.info, temperature=1.0, threshold=fitted.threshold)
    objective = type(work.objective)(work.recipe, work.tokenizer, info)
    scores = {}
    for name, part in prepared.parts.items():
        if name == "train":
            continue
        outputs = fitted.predict(part.rows)
        if "answers" not in outputs:
            scores[name] = judge.judged(objective, outputs, part.rows).metrics
        elif name == "test":  # texts: of the rows that the model answers, too
            answers = outputs["answers"][written.asked(part.rows)].tolist()
            scores[name] = written.means(written.scores(part.rows, answers))
    return {"name": fitted.name, "scores": scores} if scores else None
