"""What the workers of tests/train/workers.py run. Arguments and answers are JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from bizllm.errors import RunError
from bizllm.train import checkpoint, loop
from bizllm.train.plain import PlainHost
from bizllm.train.words import exchange_by_row
from bizllm.train.work import Work


class Stopped(Exception):
    """A worker that ends after a checkpoint."""


class StoppingHost(PlainHost):
    """Stops after the checkpoint of step `stop_after`, and remembers the steps of checkpoints."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        super().__init__(folder)
        self.stop_after = stop_after
        self.saved: list[int] = []

    def save(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        super().save(folder, step, metrics)
        self.saved.append(step)
        if step == self.stop_after:
            raise Stopped


def train(
    folder: str, stop_after: int | None = None, logits_of: int = 0, poison_after: int | None = None
) -> dict[str, Any]:
    """Train the work folder, every step's figures written; the summary, or the error that ended it.

    The trained weights at the end, not the best ones, lie in `final/` then; in `logits.safetensors` what the engine
    says to the first `logits_of` rows of validation. After step `poison_after` the weights are no numbers.
    """
    loop.LOG_EVERY = 1
    host = StoppingHost(Path(folder), stop_after)
    said: dict[str, Any] = {}
    training = loop._Training(Work.load(Path(folder)), host)
    if poison_after is not None:
        _poison(training, poison_after)
    try:
        said["summary"] = asdict(training.run())
        stage = training.recipe.zero.stage
        weights = checkpoint.trainable(training.engine.module, stage, host.rank)
        if host.rank == 0:
            checkpoint.save_weights(weights, Path(folder) / "final", {})
        if logits_of:
            _save_logits(training, logits_of)
    except RunError as error:
        said["error"] = str(error)
    except Stopped:
        said["stopped"] = True
    return {**said, "saved": host.saved}


def _save_logits(training: loop._Training, rows: int) -> None:
    batch = training.objective.collate(training.work.examples("validation").slice(0, rows))
    names = ("input_ids", "attention_mask", "labels")
    training.engine.eval()
    with torch.no_grad():
        logits = training.engine(**{name: batch[name] for name in names if name in batch})
    if training.host.rank == 0:
        save_file({"logits": logits.float().contiguous()}, training.work.folder / "logits.safetensors")


def _poison(training: loop._Training, after: int) -> None:
    """As an update that overflowed would leave them."""
    healthy = training._step

    def step(number: int, rows: Any) -> None:
        healthy(number, rows)
        if number + 1 == after:
            import deepspeed

            head = training.engine.module.head.weight
            with deepspeed.zero.GatheredParameters([head], modifier_rank=0, enabled=hasattr(head, "ds_id")):
                head.data.fill_(float("nan"))

    training._step = step  # type: ignore[method-assign]


def exchange_words(words: int, length: int, tied: bool, penalties: bool) -> dict[str, Any]:
    """Two steps of a toy encoder, its word vectors' gradients exchanged by row and whole: whether the weights agree
    after, how many numbers were sent each way, and whether rows were to be."""
    import deepspeed

    made, sent, rows = {}, {False: 0, True: 0}, False
    for by_row in (False, True):
        torch.manual_seed(1)
        network = Toy(tied)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        config = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}
        engine, *_ = deepspeed.initialize(
            model=network, optimizer=optimizer, config={**config, "zero_optimization": {"stage": 0}}
        )
        rows = by_row and exchange_by_row(engine, penalties)
        _counted(engine, sent, by_row)
        engine.train()
        for part in range(4):
            torch.manual_seed(3 * part + dist.get_rank())
            engine.backward(engine(torch.randint(0, words, (2, length))).square().sum())
            engine.step()
        made[by_row] = {name: p.detach().clone() for name, p in network.named_parameters()}
    same = all(torch.allclose(made[True][name], value, atol=1e-6) for name, value in made[False].items())
    return {"same": same, "sent": [sent[False], sent[True]], "by_row": rows}


class Toy(torch.nn.Module):
    """Word vectors and a layer, which reads them or shares them."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.table = torch.nn.Embedding(500, 8)
        self.layer = torch.nn.Linear(8, 500 if tied else 3, bias=False)
        if tied:
            self.layer.weight = self.table.weight
        self.model.get_input_embeddings = lambda: self.table

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(ids).mean(1))


def _counted(engine: Any, sent: dict[bool, int], key: bool) -> None:
    """Count the numbers of the gradients that the engine reduces."""
    reduce = engine.allreduce_bucket

    def counting(bucket: list[torch.Tensor], *more: Any, **others: Any) -> Any:
        sent[key] += sum(grad.numel() for grad in bucket)
        return reduce(bucket, *more, **others)

    engine.allreduce_bucket = counting
