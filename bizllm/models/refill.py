"""Decoding where a row that ends makes room for the next one: continuous batching over one cache of keys and values.

Answers end at different lengths. A batch that waits for its longest answer computes ended rows all the while; here they
are taken out of the cache, and waiting prompts are read and put beside those that are still being written (iteration-
level scheduling: Yu et al., Orca, OSDI 2022). Rows end in the same column: what one has less than another is masked
out before its tokens, or between the beginning that all prompts share and the rest.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_SHARED = 8  # tokens that all prompts begin with: fewer are not worth a pass of their own
# Ended rows that are waited for, as a share of the batch: taking rows out and in copies the cache.
_AT_ONCE = 8

Noise = Callable[[Sequence[int], Any], Any]


def able(model: Any) -> bool:
    """Whether a model's rows can come and go: it is told positions, and keeps nothing but whole keys and values.

    Not windows that slide, which count columns, nor recurrent states, nor encoders with a decoder.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if model.config.is_encoder_decoder or "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


@dataclass
class _Batch:
    """Rows that are being written.

    rows: the prompt of each. widths: (rows,) columns that each began with. cache: of transformers; keys and values
    (rows, heads, columns, dim) of each layer. mask: (rows, columns) 1 where a column holds a token. last: (rows,) what
    each wrote last, which is not in the cache yet.
    """

    rows: list[int]
    widths: list[int]
    cache: Any
    mask: Any
    last: Any

    def keep(self, places: list[int]) -> None:
        """Only the rows at these places, and the columns that they have tokens in."""
        import torch

        at = torch.tensor(places, device=self.mask.device)
        self.rows, self.widths = [self.rows[i] for i in places], [self.widths[i] for i in places]
        self.mask, self.last = self.mask[at], self.last[at]
        used = self.mask.any(0).nonzero()[:, 0]
        self.mask = self.mask[:, used]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[at][:, :, used], layer.values[at][:, :, used]

    def join(self, other: _Batch) -> None:
        """Put the other's rows behind these."""
        import torch
        from torch.nn.functional import pad

        columns = max(self.mask.shape[1], other.mask.shape[1])

        def both(one: Any, more: Any) -> Any:  # (rows, heads, columns, dim)
            wide = [pad(part, (0, 0, columns - part.shape[2], 0)) for part in (one, more)]
            return torch.cat(wide)

        for layer, added in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys = both(layer.keys, added.keys)
            layer.values = both(layer.values, added.values)
            added.keys = added.values = None
        self.mask = torch.cat([pad(part, (columns - part.shape[1], 0)) for part in (self.mask, other.mask)])
        self.last = torch.cat([self.last, other.last])
        self.rows, self.widths = [*self.rows, *other.rows], [*self.widths, *other.widths]


@dataclass
class Refilled:
    """Answers prompts, as many at once as a budget of tokens allows.

    model: of transformers, one that `able` says yes to. prompts: token ids of each. ends: tokens that end an answer.
    noise: (rows, scores (rows, vocabulary)) → scores, of which the largest is taken; None takes the model's own.
    """

    model: Any
    prompts: Sequence[list[int]]
    max_new_tokens: int
    ends: tuple[int, ...]
    noise: Noise | None = None

    def write(self, rows: Sequence[int], budget: int, told: Callable[[int, list[int]], None]) -> None:
        """Answer some of the prompts; `told` is called with each and its new tokens, up to and with the first end.

        rows: in the order of their reading: longest first needs the least padding. budget: tokens in the cache at most,
        padding and the longest answers included; a single row may take more.
        """
        import torch

        shared = _shared([self.prompts[row] for row in rows])
        waiting, answers = list(rows), {row: list[int]() for row in rows}
        batch: _Batch | None = None
        with torch.inference_mode():
            beginning = self._read_once(self.prompts[waiting[0]][:shared]) if shared else None
            while waiting or batch:
                longest = max(batch.widths) if batch else len(self.prompts[waiting[0]])
                slots = max(1, budget // (longest + self.max_new_tokens))
                free = slots - (len(batch.rows) if batch else 0)
                if waiting and free >= max(1, slots // _AT_ONCE):
                    taken, waiting = waiting[:free], waiting[free:]
                    wrote = read = self._read(taken, shared, beginning)
                    if batch:
                        batch.join(read)
                    else:
                        batch = read
                else:
                    assert batch, "waiting prompts find all slots free where no row is being written"
                    wrote = batch
                    self._step(batch)
                for row, token in zip(wrote.rows, wrote.last.tolist(), strict=True):
                    if not self._ended(answers[row]):
                        answers[row].append(token)
                        if self._ended(answers[row]):
                            told(row, answers[row])
                going = [i for i, row in enumerate(batch.rows) if not self._ended(answers[row])]
                if not going:
                    batch = None
                elif len(batch.rows) - len(going) >= max(1, min(slots, len(batch.rows)) // _AT_ONCE):
                    batch.keep(going)

    def _ended(self, answer: list[int]) -> bool:
        return bool(answer) and (answer[-1] in self.ends or len(answer) >= self.max_new_tokens)

    def _read_once(self, prefix: list[int]) -> Any:
        """Keys and values of the tokens that all prompts begin with, as of one row."""
        import torch

        ids = torch.tensor([prefix], device=self.model.device)
        return self._forward(ids, torch.ones_like(ids), None).past_key_values

    def _read(self, rows: list[int], shared: int, beginning: Any) -> _Batch:
        """The rows with their prompts read and a first token written."""
        import torch

        prompts = [self.prompts[row] for row in rows]
        width = max(map(len, prompts))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        mask[:, :shared] = 1
        for row, prompt in enumerate(prompts):
            place = slice(width - len(prompt) + shared, width)
            ids[row, place] = torch.tensor(prompt[shared:])
            mask[row, place] = 1
        cache = None
        if beginning is not None:
            cache = copy.deepcopy(beginning)
            cache.batch_repeat_interleave(len(rows))
        mask = mask.to(self.model.device)
        out = self._forward(ids[:, shared:].to(self.model.device), mask, cache)
        return _Batch(list(rows), [width] * len(rows), out.past_key_values, mask, self._choose(rows, out.logits[:, -1]))

    def _step(self, batch: _Batch) -> None:
        """Write one token more in each row, those that ended among them."""
        import torch

        batch.mask = torch.cat([batch.mask, batch.mask.new_ones(len(batch.rows), 1)], 1)
        out = self._forward(batch.last[:, None], batch.mask, batch.cache)
        batch.last = self._choose(batch.rows, out.logits[:, -1])

    def _forward(self, ids: Any, mask: Any, cache: Any) -> Any:
        """ids: (rows, tokens), the last columns of mask (rows, columns)."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **last
        )

    def _choose(self, rows: Sequence[int], scores: Any) -> Any:
        import torch

        scores = scores.to(torch.float32)
        return (self.noise(rows, scores) if self.noise else scores).argmax(-1)


def _shared(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with, the last of each apart; 0 where reading them once gains nothing."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    least = min(map(len, prompts)) - 1
    pairs = enumerate(zip(first[:least], last[:least], strict=False))
    shared = next((i for i, (one, other) in pairs if one != other), least)
    return shared if shared >= LEAST_SHARED else 0
