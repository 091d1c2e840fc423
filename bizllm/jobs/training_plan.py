"""What a training would do: parameters, memory, tokens, steps, hours. Nothing is trained and nothing is written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.infer.pools import Room, fitting
from bizllm.jobs.placement import Cluster
from bizllm.jobs.training_file import LoadedRecipe
from bizllm.prices import KINDS, Held
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


def plan_training(loaded: LoadedRecipe, address: str | None = None, room: Room | None = None) -> dict[str, Any]:
    """What `plan TRAIN.yaml --json` prints. Raises UserError for all that `finetune` would refuse.

    room: of the cluster at `address`, for which it is planned.
    """
    recipe = loaded.recipe
    there = _placed(loaded, address, room) if address and room else {}
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
    hours: float | None = round((START_S + operations / speed) / 3600, 3)
    warnings = [*prepared.warnings, *there.pop("warnings", [])]
    if there and there["asks"]["gpus"] and device == "cpu":
        hours = None
        warnings.append(
            "time and memory are those of this machine, which has no GPU: on the cluster they are not known"
        )
    hourly = there.get("costs_per_hour", {})
    costs = {kind: None if hours is None or cost is None else round(hours * cost, 4) for kind, cost in hourly.items()}
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
        "hours": hours,
        "registry": prepared.registry,
        **(there | {"costs": costs} if there else {}),
        "warnings": warnings,
    }


def _placed(loaded: LoadedRecipe, address: str, room: Room) -> dict[str, Any]:
    """What the training asks of the cluster, and what that costs by the hour. Raises UserError where it never fits."""
    recipe = loaded.recipe
    least, most, gpus = recipe.least_workers, recipe.most_workers, 1.0 if room.has_gpus else 0.0
    with_gpus = [node for node in room.nodes if node.gpus] if gpus else room.nodes
    fits, now = fitting(room.nodes, 1, gpus), fitting(room.nodes, 1, gpus, free=True)
    kind = "GPU" if gpus else "CPU"
    if fits < least and not room.grows:
        told = f"the cluster at {address} has room for {fits} workers with a {kind} each; it has {room}"
        raise UserError(Fault(loaded.place("workers"), recipe.workers, told, f"use at most {fits}" if fits else ""))
    workers = most if room.grows else min(most, fits)
    warnings = []
    if now < least:
        told = "; an autoscaler may add nodes" if room.grows else ": it waits until there is"
        warnings.append(f"{loaded.place('workers')}: {least} workers are asked for, and {now} find room now{told}")
    kinds = {node.accelerator for node in with_gpus}
    accelerator = kinds.pop() if len(kinds) == 1 else ""
    # Of the CPUs a worker takes its share: as many as let all of them stand side by side.
    cpus = next(
        (n for n in range(int(max(n.cpus for n in with_gpus)), 1, -1) if fitting(room.nodes, n, gpus) >= workers), 1
    )
    hour = Held(gpu_hours={accelerator: workers * gpus}) if gpus else Held(float(workers * cpus))
    prices = {way: recipe.prices.of(way) for way in KINDS}
    return {
        "cluster": Cluster(address, room).facts(),
        "asks": {"workers": [least, most], "gpus": gpus, "accelerator": accelerator, "fits": fits, "fits_now": now},
        "costs_per_hour": {way: hour.cost(price, price) for way, price in prices.items()},
        "warnings": warnings,
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
