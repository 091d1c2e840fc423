"""Gradients of word vectors, exchanged by row.

Of a vocabulary of 30,000 words a step reads some hundred, and the gradients of the others are zero: in a small encoder
half of what data-parallel workers would send each other. The workers agree on the rows that any of them read and sum
those; the sums are those of the whole gradient. DeepSpeed's `sparse_gradients` wants an optimizer of sparse gradients,
which AdamW is not.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn


def exchange_by_row(engine: Any, penalties: bool) -> bool:
    """Let the engine's workers exchange rows of word vectors' gradients where the sums are the same; whether they do.

    Not where state is sharded, where the output layer shares the word vectors, or where `penalties` on parameters reach
    them all.
    """
    if penalties or dist.get_world_size() == 1 or engine.zero_optimization_stage() != 0:
        return False
    network = engine.module
    table = cast(Any, getattr(network, "model", None) or network.backbone).get_input_embeddings()
    weight = getattr(table, "weight", None)
    fits = (
        isinstance(table, nn.Embedding)
        and table.weight.requires_grad
        and sum(p is weight for _, p in network.named_parameters(remove_duplicate=False)) == 1
        and not hasattr(engine.optimizer, "get_grads_for_reduction")  # of bf16 parameters: gradients lie elsewhere
    )
    if fits:
        _WordRows(engine, table)
    return fits


class _WordRows:
    """Takes the table's gradient out of the engine's all-reduce, and sums the rows that any worker read."""

    def __init__(self, engine: Any, table: nn.Embedding) -> None:
        self.engine, self.weight, self.rest = engine, table.weight, engine.buffered_allreduce_fallback
        self.read = torch.zeros(len(table.weight), dtype=torch.uint8, device=table.weight.device)
        table.register_forward_hook(self._seen)
        engine.buffered_allreduce_fallback = self._reduce

    def _seen(self, table: nn.Module, inputs: tuple[torch.Tensor, ...], _vectors: torch.Tensor) -> None:
        if table.training:
            self.read.index_fill_(0, inputs[0].flatten(), 1)

    def _reduce(self, grads: object = None, elements_per_buffer: int = 500_000_000) -> None:
        trainable = [p for p in self.engine.module.parameters() if p.requires_grad]
        for parameter in trainable:
            if parameter.grad is None:  # as the engine does: another worker may have one
                parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(self.read, op=dist.ReduceOp.MAX)
        rows = self.read.nonzero().flatten()
        self.read.zero_()
        if 2 * len(rows) > len(self.read):
            self.rest(grads=[p.grad for p in trainable], elements_per_buffer=elements_per_buffer)
            return
        whole = cast(torch.Tensor, self.weight.grad)
        values = whole.index_select(0, rows)
        others = [p.grad for p in trainable if p is not self.weight]
        self.rest(grads=[values, *others], elements_per_buffer=elements_per_buffer)
        whole.index_copy_(0, rows, values)
