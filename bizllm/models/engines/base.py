"""The interface of engines, what they are made of, and what decides that one may stand for another."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from bizllm.models.batches import Floats, Whole, Windows, native_bfloat16

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16", "int8"]
Name = Literal["torch", "packed", "openvino", "onnxruntime"]
Kind = Literal["vectors", "classes", "labels", "tags", "numbers"]

# A batch holds about this many tokens, padding included, where nothing was measured: small enough to stay in the cache
# of a CPU core, large enough to keep a GPU busy.
CPU_BUDGET, GPU_BUDGET = 1_024, 65_536


@dataclass(frozen=True)
class Network:
    """A network as engines take it.

    build: makes the torch module, float32 on the CPU, in eval mode; called once, and only by whom needs it. It is asked
        with `inputs` by name, int64 (rows, tokens), and gives (rows, outputs), or (rows, tokens, outputs) of tags.
    inputs: input_ids, attention_mask, and token_type_ids of a model that reads pairs.
    pad: the token that batches are padded with.
    kind: what the answers are: vectors of length 1, logits of classes, of labels of which several may hold, of a tag
        for each token, or numbers.
    cut: of labels of which several may hold, the logit from which one does.
    finish: the answers (rows, answers) of outputs (rows, outputs), by numpy: a head on pooled vectors. So models that
        differ in their heads alone are one network. None where outputs are answers.
    """

    build: Callable[[], Any]
    inputs: tuple[str, ...]
    pad: int
    kind: Kind
    cut: float = 0.0
    finish: Callable[[Floats], Floats] | None = None

    def finished(self, outputs: Floats) -> Floats:
        """The answers."""
        return self.finish(outputs) if self.finish else outputs

    @cached_property
    def module(self) -> Any:
        """The torch module."""
        return self.build()


class Engine(Protocol):
    """Computes a network's outputs.

    budget: the tokens of a batch, padding included; may be set at any time.
    on_gpu: whether it leaves the CPU free for other work meanwhile.
    """

    name: Name
    precision: Precision
    budget: int
    on_gpu: bool

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        """(windows of a batch, the outputs of each), longest windows first, until each was read once.

        What does not fit into memory is tried again in halves. Outputs of tags are padded as their batch was.
        """


def all_outputs(engine: Engine, windows: Windows) -> list[Floats]:
    """The outputs of each window, in order; of tags without the padding."""
    found: list[Floats] = [np.zeros(0, np.float32)] * len(windows)
    for rows, outputs in engine.outputs(windows):
        for row, said in zip(rows.tolist(), outputs, strict=True):
            found[row] = said[: windows.lengths[row]] if said.ndim == 2 else said
    return found


def all_answers(engine: Engine, network: Network, windows: Windows) -> list[Floats]:
    """The answers of each window, in order."""
    outputs = all_outputs(engine, windows)
    return list(network.finished(np.stack(outputs))) if network.finish else outputs


def summed(engine: Engine, network: Network, parts: Iterable[Windows]) -> tuple[Floats, Whole]:
    """(texts, answers): those of each text's windows, each as often as it has tokens; (texts,) its tokens."""
    sums, tokens = list[Floats](), list[Whole]()
    for windows in parts:
        read = np.zeros((len(windows), 0), np.float32)
        for rows, outputs in engine.outputs(windows):
            answers = network.finished(outputs)
            if not read.shape[1]:
                read = np.empty((len(windows), answers.shape[1]), np.float32)
            read[rows] = answers
        texts = int(windows.owner[-1]) + 1
        sums.append(windows.weighted_sum(read, texts))
        tokens.append(windows.tokens_read(texts))
    return np.concatenate(sums), np.concatenate(tokens)


def positional(network: Network) -> torch.nn.Module:
    """The network's module, taking its inputs by position, as converters trace it."""
    from torch import nn

    class Positional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.module

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.network(**dict(zip(network.inputs, inputs, strict=True)))

    return Positional().eval()


def example(network: Network) -> tuple[torch.Tensor, ...]:
    """Inputs of two rows of seven tokens, the second padded, for tracing."""
    import torch

    ids = torch.full((2, 7), 1, dtype=torch.long)
    mask = torch.ones_like(ids)
    ids[1, 4:], mask[1, 4:] = network.pad, 0
    by_name = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return tuple(by_name[name] for name in network.inputs)


@cache
def machine() -> str:
    """What decides which engine is fast here: the kind of processor, or of GPU, and whether it multiplies bfloat16."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{processor()}{' bf16' if native_bfloat16('cpu') else ''}"


def processor() -> str:
    """Its name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
