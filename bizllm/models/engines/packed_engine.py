"""torch without padding, for GPUs: the rows of a batch stand behind each other, and attention keeps them apart.

The linear layers, norms and activations read (1, tokens, dim) with no token that is thrown away; attention is torch's
own for sequences of any length (Flash Attention 2). The layers of the backbone are compiled, one program for all of
them and for any number of tokens. Products are bfloat16, sums and norms float32, as by autocast.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import GPU_BUDGET, Name, Network, Precision

if TYPE_CHECKING:
    import torch

ATTENTION = "bizllm_packed"
# Backbones whose tokens are told their positions and whose attention transformers lets us replace → whether positions
# begin behind that of padding.
_KNOWN = {"bert": False, "roberta": True, "xlm-roberta": True}


class PackedEngine:
    """The network itself, on the rows of a batch behind each other. Raises ValueError where it can't be read so."""

    name: Name = "packed"
    precision: Precision = "bfloat16"
    on_gpu = True

    def __init__(self, network: Network, device: str | None = None, compiled: bool = True) -> None:
        """compiled: the layers are compiled when the first batch is read, which takes seconds."""
        import torch
        from torch import nn

        if not callable(getattr(network.module, "of_packed", None)):
            raise ValueError("a network that is not a pooled backbone does not read packed rows")
        self.device, self.budget = batches.placement(device, None)[0], GPU_BUDGET
        self.module: Any = copy.deepcopy(network.module).to(self.device)
        self.backbone: Any = self.module.backbone
        kind = self.backbone.config.model_type
        if kind not in _KNOWN or self.backbone.config.is_decoder:
            raise ValueError(f"a backbone of type {kind!r} does not read packed rows, only {', '.join(_KNOWN)}")
        self.first_position = self.backbone.config.pad_token_id + 1 if _KNOWN[kind] else 0
        _register()
        self.backbone.set_attn_implementation(ATTENTION)
        layers: nn.ModuleList = self.backbone.encoder.layer
        if compiled:
            torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
            for layer in layers:
                layer.compile(dynamic=True)

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        """As of `Engine`. A batch is begun before the outputs of the one before it are waited for."""
        before: tuple[Whole, torch.Tensor] | None = None
        for batch in batches.by_tokens(windows.lengths, self.budget):
            for rows, made in batches.within_memory(lambda rows: self._begin(windows.take(rows)), batch):
                if before is not None:
                    yield before[0], before[1].cpu().numpy()
                before = rows, made
        if before is not None:
            yield before[0], before[1].cpu().numpy()

    def _begin(self, packed: Windows) -> torch.Tensor:
        import torch

        def there(values: Whole) -> torch.Tensor:
            return torch.from_numpy(values).to(self.device, non_blocking=True)

        ends = there(np.concatenate([[0], np.cumsum(packed.lengths)]).astype(np.int32))
        # Kernels are begun for the longest row: by powers of two, so that few lengths are compiled for.
        longest = 1 << int(packed.lengths.max() - 1).bit_length()
        inputs = {"input_ids": there(packed.tokens.astype(np.int64))[None]}
        inputs["position_ids"] = there(packed.places + self.first_position)[None]
        if packed.types is not None:
            inputs["token_type_ids"] = there(packed.types.astype(np.int64))[None]
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16):
            hidden = self.backbone(
                **inputs,
                attention_mask=None,
                cu_seq_lens_q=ends,
                cu_seq_lens_k=ends,
                max_length_q=longest,
                max_length_k=longest,
            ).last_hidden_state[0]
            made: torch.Tensor = self.module.of_packed(hidden.float(), there(packed.starts), there(packed.lengths))
            return made.float()


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    """Rows are kept apart by where they end."""


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls attention: (1, heads, tokens, size) each → (1, tokens, heads, size)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    ends, longest = more["cu_seq_lens_q"], more["max_length_q"]
    size = query.shape[-1]
    if scaling is not None and scaling != size**-0.5:
        query = query * (scaling * size**0.5)
    if not query.is_cuda:  # Flash Attention is for GPUs: here every token is compared with every other
        row = torch.searchsorted(ends, torch.arange(query.shape[2], dtype=ends.dtype), right=True)
        made = scaled_dot_product_attention(query, key, value, attn_mask=row[:, None] == row[None, :])
        return made.transpose(1, 2), None
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (part.transpose(1, 2).squeeze(0) for part in (query, key, value))
    apart = cast("torch.Tensor", varlen_attn(query, key, value, ends, ends, longest, longest))
    return apart[None], None
