"""What a training would do: parameters, memory, tokens, steps, hours. Nothing is trained and nothing is written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.jobs.training_file import LoadedRecipe
from bizllm.train import memory, zero
from bizllm.train.batches import BatchPlan, accumulation, share
from bizllm.train.prepare import Prepared, prepare
from bizllm.train.work import Work, lengths

SAMPLE = 2_000  # rows that are tokenized to know how long rows are
# Floating-point operations that a worker does in a second: measured for a CPU thread pair with bf16 units and without,
# of a data-centre GPU a third of what its sheet says.
SPEED = {("cpu", "bf16"): 120e9, ("cpu", "fp32"): 40e9, ("cuda", "bf16"): 300e12, ("cuda", "fp16"): 300e12}
SLOW_GPU = 40e12
START_S = 25.0  # Ray, workers, DeepSpeed


def plan_training(loaded: LoadedRecipe) -> dict[str, Any]:
    """What `plan TRAIN.yaml --json` prints. Raises UserError for all that `finetune` would refuse."""
    recipe = loaded.recipe
    device = zero.device_name()
    prepared = prepare(recipe, loaded.place, device)
    numbers = zero.precision(recipe, device)
    workers = recipe.most_workers
    parts = accumulation(recipe.optim.batch, workers, recipe.optim.micro_batch)
    work = Work(prepared.base.folder, recipe, prepared.info, prepared.base.folder)
    length = _lengths(work, prepared)
    plan = BatchPlan(length, recipe.optim.batch, recipe.seed, recipe.length_grouped)
    steps = max(1, math.ceil(recipe.optim.epochs * plan.steps_per_epoch))
    shape = memory.shape_of(work)
    widest = max(
        (len(rows) * int(length[rows].max()))
        for batch in plan.epoch(0)
        for rows in share(batch, length, 0, workers, parts)
        if len(rows)
    )
    tokens = int(length.sum() * recipe.optim.epochs)
    # A token costs 2 operations a weight forward and 4 backward (Kaplan et al. 2020), 2 of these for trained weights
    # alone. Embeddings are looked up; a language model's are multiplied as its last layer.
    looked_up = 0 if memory.is_language(recipe.objective) else shape.vocabulary * shape.hidden
    operations = tokens * (4 * (shape.parameters - looked_up) + 2 * max(0, shape.trainable - looked_up))
    speed = SPEED.get((device, numbers), SLOW_GPU) * workers
    made = memory.estimates(work, shape, workers, widest, numbers, device)
    return {
        "name": recipe.name,
        "base": prepared.base.uri,
        "objective": recipe.objective,
        "method": recipe.method.kind,
        "precision": numbers,
        "device": device,
        "parameters": shape.parameters,
        "trainable": shape.trainable,
        "rows": {name: len(part.rows) for name, part in prepared.parts.items()} | _unlabelled(prepared),
        "labels": len(prepared.info.labels),
        "tokens": tokens,
        "steps": steps,
        "batch": {
            "global": recipe.optim.batch,
            "micro": math.ceil(recipe.optim.batch / workers / parts),
            "accumulation": parts,
            "workers": workers,
        },
        "memory": [{"stage": e.stage, "offload": e.offload, "mb": round(e.mb), "chosen": e.chosen} for e in made],
        "hours": round((START_S + operations / speed) / 3600, 3),
        "registry": prepared.registry,
        "warnings": list(prepared.warnings),
    }


def _unlabelled(prepared: Prepared) -> dict[str, int]:
    return {} if prepared.near is None else {"unlabelled": len(prepared.near.rows)}


def _lengths(work: Work, prepared: Prepared) -> Any:
    """(rows,) tokens of train's rows: counted on a sample, and drawn from it for the others."""
    rows = prepared.parts.train.rows
    count = len(rows) + _unlabelled(prepared).get("unlabelled", 0)
    rng = np.random.default_rng(prepared.recipe.seed)
    picked = rng.permutation(len(rows))[:SAMPLE]
    sample = rows.take(pa.array(np.sort(picked)))
    counted = lengths(work.objective.encode(sample))
    if work.objective.packs:
        # Packed sequences stand for several rows: as many sequences as the sample made of its own.
        return np.resize(counted, max(1, round(len(counted) * count / len(sample))))
    return np.resize(counted, count)
