"""The training loop: batches, loss, backward, step; validation, the best weights, checkpoints. No Ray in it.

It runs on every worker, in a process group that its host has opened. What depends on chance depends on seed, step and
rank alone, so that a run that went on after a crash gives the losses of one that never stopped.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from bizllm.errors import RunError
from bizllm.evaluate.objective_metrics import METRICS
from bizllm.train import checkpoint, methods, optim, words, zero
from bizllm.train.batches import BatchPlan, accumulation, share
from bizllm.train.continual import Penalty
from bizllm.train.objectives.base import Batch
from bizllm.train.validate import validate
from bizllm.train.work import Work, lengths, take

SECONDS_LEFT = "seconds_left"  # among a checkpoint's metrics
LOG_EVERY = 10  # steps: the only times at which the host waits for the device


class Host(Protocol):
    """Where a worker runs: plain processes, or Ray Train."""

    rank: int
    workers: int
    local_rank: int

    def restore(self) -> Path | None:
        """The newest whole checkpoint of this run, on this machine; None at a fresh start."""

    def scratch(self, name: str) -> Path:
        """A new folder on this machine for a checkpoint."""

    def save(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Take over a checkpoint folder; called by all workers. Uploads go on in the background."""

    def keep(self, folder: Path) -> str:
        """Take over the best weights so far; the name that they have from now on. rank 0."""

    def log(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Figures for people and trackers; rank 0."""


@dataclass
class Summary:
    """How a training went. best: the watched metric's value at `best_step`. best_weights: their name. tokens: since
    the first step, also those before a resume; seconds, tokens_per_s: since it began or went on, validation and
    checkpoints included."""

    steps: int
    best_step: int
    best: float
    best_weights: str
    tokens: int
    seconds: float
    tokens_per_s: float
    stopped_early: bool
    memory_mb: float


def train(work: Work, host: Host) -> Summary:
    """Train to the end, or on from the newest checkpoint. Raises RunError where the loss is no number."""
    return _Training(work, host).run()


class _Training:
    def __init__(self, work: Work, host: Host) -> None:
        self.work, self.host, self.recipe, self.objective = work, host, work.recipe, work.objective
        self.device_name = zero.device_name()
        self.device = (
            torch.device(self.device_name, host.local_rank) if self.device_name == "cuda" else torch.device("cpu")
        )
        self.examples = work.examples("train")
        self.lengths = lengths(self.examples)
        setup = self.recipe.optim
        self.plan = BatchPlan(self.lengths, setup.batch, self.recipe.seed, self.recipe.length_grouped)
        self.objective.prepare(np.ones(len(self.examples)), self.examples)
        self.units = self.objective.units(self.examples)
        self.ranked = self.recipe.method.kind == "adalora"
        self.parts = accumulation(setup.batch, host.workers, setup.micro_batch)
        self.steps = max(1, math.ceil(setup.epochs * self.plan.steps_per_epoch))
        self.every = self.recipe.stop.every or self.plan.steps_per_epoch
        self.metric = self.recipe.stop.metric or self.objective.metric
        self.watch = optim.Watch(METRICS[self.recipe.objective][self.metric])
        self.losses: list[torch.Tensor] = []  # of the steps since the last figures, this worker's part of each
        self.tokens = 0
        self.best = ""  # what the host calls the best weights; rank 0

    # -- the whole ------------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        began = time.perf_counter()
        start = self._open()
        tokens_at_start = self.tokens
        done, patience = start, self.recipe.stop.patience
        window = time.perf_counter()
        tokens_before = self.tokens
        for step, rows in self.plan.from_step(start):
            if step >= self.steps or self.watch.tired(patience):
                break
            self._step(step, rows)
            done = step + 1
            last = done == self.steps
            if done % LOG_EVERY == 0 or done % self.every == 0 or last:
                values = self._figures(done)
                spent = time.perf_counter() - window
                values["tokens_per_s"] = (self.tokens - tokens_before) / max(spent, 1e-9)
                self._log(done, values, "train")
                tokens_before = self.tokens
                window = time.perf_counter()
            if done % self.every == 0 or last:
                self._validated(done, (time.perf_counter() - began) / (done - start) * (self.steps - done))
                window = time.perf_counter()
        best = self.watch.best if self.watch.best is not None else math.nan
        seconds = time.perf_counter() - began
        rate = (self.tokens - tokens_at_start) / max(seconds, 1e-9)
        early = done < self.steps
        at = self.watch.best_step
        return Summary(done, at, best, self.best, self.tokens, seconds, rate, early, memory_mb())

    def _open(self) -> int:
        """Build the engine, load the newest checkpoint if there is one; the step to go on with."""
        import deepspeed

        network = methods.apply(self.work.network(), self.recipe, self.steps)
        if self.recipe.optim.gradient_checkpointing:
            inner = cast(Any, getattr(network, "model", None) or cast(Any, network).backbone)
            inner.gradient_checkpointing_enable()
        found = self.host.restore()
        numbers = zero.precision(self.recipe, self.device_name)
        said = zero.configuration(self.recipe, self.host.workers, self.parts, numbers, self.device_name)
        universal = False
        if found is not None:
            stage = self.recipe.zero.stage
            found, universal = checkpoint.for_workers(found, self.host.workers, stage, self.host.local_rank == 0)
            dist.barrier()
            if universal:
                said["checkpoint"] = {"load_universal": True}
        self.penalties: list[Callable[[torch.nn.Module], torch.Tensor]] = []
        if (drift := Penalty.of(self.work, network)) is not None:
            self.penalties.append(drift)
        if self.ranked:
            self.penalties.append(methods.orthogonality)
        groups = optim.groups(network.named_parameters(), self.recipe.optim)
        self.rates = [(group["lr"], group["weight_decay"]) for group in groups]
        self.optimizer = self._optimizer(groups)
        self.engine, *_ = deepspeed.initialize(model=network, optimizer=self.optimizer, config=said)
        words.exchange_by_row(self.engine, penalties=bool(self.penalties))
        self.engine.train()  # pretrained models come in eval mode, without dropout
        if found is None:
            return 0
        more = checkpoint.load(self.engine, self.optimizer, found)
        if self.ranked:
            methods.load_rank_state(self.engine.module, more["ranks"])
        state = checkpoint.state_of(self._original(found, universal))
        self.watch = optim.Watch(**state["watch"])
        self.tokens, self.best = int(state["tokens"]), state["best"]
        return int(state["step"])

    def _original(self, found: Path, universal: bool) -> Path:
        return found.with_name(found.name.removesuffix(f"-{checkpoint.UNIVERSAL}")) if universal else found

    def _optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if self.recipe.zero.offload != "none":
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            return cast(torch.optim.Optimizer, DeepSpeedCPUAdam(groups, adamw_mode=True))
        return torch.optim.AdamW(groups, fused=True)

    # -- one step -------------------------------------------------------------------------------------------------

    def _step(self, step: int, rows: npt.NDArray[np.int64]) -> None:
        torch.manual_seed(_seed(self.recipe.seed, step, self.host.rank))
        rate = optim.factor(step, self.steps, self.recipe.optim) * self.recipe.optim.factor**self.watch.falls
        # Of the recipe, not of a checkpoint: in universal ones of stage 3 all groups have the first one's.
        for group, (peak, decay) in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"], group["weight_decay"] = peak * rate, decay
        # The gradient of (sum over all workers and parts) / units: DeepSpeed divides by workers and by parts.
        whole = float(self.units[rows].sum())
        scale = self.host.workers * self.parts / max(whole, 1e-12)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in share(rows, self.lengths, self.host.rank, self.host.workers, self.parts):
            # Every worker takes part in every pass: without rows of its own it computes one that weighs nothing.
            batch = self._batch(part if len(part) else rows[:1])
            loss = self.objective.loss(self.engine, batch) * (scale if len(part) else 0.0)
            total += loss.detach() / (self.host.workers * self.parts)
            for penalty in self.penalties:
                loss = loss + penalty(self.engine.module)
            self.engine.backward(loss)
            ranks = methods.RankScores.of(self.engine) if self.ranked else None
            self.engine.step()
            if ranks is not None:
                ranks.allocate(self.engine, step)
        self.losses.append(total)
        self.tokens += int(self.lengths[rows].sum())

    def _batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        batch = self.objective.collate(take(self.examples, rows))
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    # -- figures --------------------------------------------------------------------------------------------------

    def _figures(self, done: int) -> dict[str, float]:
        """Since the last time. Raises RunError, on all workers alike, where a loss is no number."""
        losses = torch.stack(self.losses)
        dist.all_reduce(losses)
        since, self.losses = losses.cpu().tolist(), []
        for step, loss in enumerate(since, start=done - len(since) + 1):
            self._check(step, loss, "loss of")
        norm = self.engine.get_global_grad_norm()
        values = {
            "epoch": done / self.plan.steps_per_epoch,
            "loss": sum(since) / len(since),
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "memory_mb": memory_mb(),
        }
        return values if norm is None else {**values, "grad_norm": float(norm)}

    def _check(self, step: int, loss: float, what: str) -> None:
        if not math.isfinite(loss):
            kept = f"those of step {self.watch.best_step} are kept" if self.watch.best_step else "none are kept yet"
            raise RunError(f"the {what} step {step} is {loss}: training stopped; best weights: {kept}; try a lower lr")

    def _log(self, step: int, values: dict[str, float], split: str) -> None:
        if self.host.rank == 0:
            self.host.log(step, values, split)

    # -- validation and checkpoints -------------------------------------------------------------------------------

    def _validated(self, step: int, seconds_left: float) -> None:
        """Score the validation part, keep the best weights, save a checkpoint."""
        torch.manual_seed(_seed(self.recipe.seed, 0, 0))
        scores = validate(
            self.work, self.objective, self.engine, "validation", self.device, self.host.rank, self.host.workers
        )
        # Decided on rank 0 and told to all: no two workers may think differently of a rounding error.
        told: list[Any] = [None]
        if self.host.rank == 0:
            better = self.watch.see(scores.get(self.metric, math.nan), step, self.recipe.optim)
            told = [{"watch": asdict(self.watch), "better": better, "loss": scores["loss"]}]
        dist.broadcast_object_list(told, src=0)
        self.watch = optim.Watch(**told[0]["watch"])
        self._check(step, told[0]["loss"], "validation loss after")  # the last step's gradient may have been no number
        if told[0]["better"]:
            weights = checkpoint.trainable(self.engine.module, self.recipe.zero.stage, self.host.rank)
            if self.host.rank == 0:
                folder = self.host.scratch(f"best-{step}")
                checkpoint.save_weights(weights, folder, {"step": step, "scores": scores})
                self.best = self.host.keep(folder)
        self._log(step, {"epoch": step / self.plan.steps_per_epoch, **scores}, "validation")
        state = {"step": step, "workers": self.host.workers, "watch": asdict(self.watch), "tokens": self.tokens}
        state["best"] = self.best
        folder = self.host.scratch(f"step-{step}")
        more = {"ranks": methods.rank_state(self.engine.module)} if self.ranked else {}
        checkpoint.save(self.engine, folder, state, self.host.rank, more)
        self.host.save(folder, step, {**scores, SECONDS_LEFT: seconds_left} if self.host.rank == 0 else {})


def memory_mb() -> float:
    """The most memory that this process held: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _seed(*numbers: int) -> int:
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:7], "big")
