"""Examples (Arrow) to tensors: padding, token ids, texts of the kinds that models read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional

from bizllm.methods.number_text import encode_history
from bizllm.train.objectives.base import IGNORED


def ragged(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """(values, lengths) of a list column."""
    array = column.combine_chunks()
    array = array.cast(pa.list_(array.type.value_type)) if not pa.types.is_list(array.type) else array
    offsets = array.offsets.to_numpy()
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy(zero_copy_only=False)
    return values, np.diff(offsets)


def padded(column: pa.ChunkedArray, fill: float, dtype: torch.dtype = torch.long) -> torch.Tensor:
    """(rows, longest) of a list column, filled up on the right."""
    values, lengths = ragged(column)
    mask = np.arange(max(1, lengths.max(initial=1)))[None, :] < lengths[:, None]
    out = torch.full(mask.shape, fill, dtype=dtype)
    out[torch.from_numpy(mask)] = torch.as_tensor(np.array(values), dtype=dtype)
    return out


def mask_of(column: pa.ChunkedArray) -> torch.Tensor:
    """(rows, longest) 1 where a row has a token."""
    _, lengths = ragged(column)
    return torch.from_numpy((np.arange(max(1, lengths.max(initial=1)))[None, :] < lengths[:, None]).astype(np.int64))


def text_inputs(examples: pa.Table, pad: int) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and, for pairs, token_type_ids, each (rows, longest)."""
    inputs = {"input_ids": padded(examples["input_ids"], pad), "attention_mask": mask_of(examples["input_ids"])}
    if "token_type_ids" in examples.column_names:
        inputs["token_type_ids"] = padded(examples["token_type_ids"], 0)
    return inputs


def token_loss(logits: torch.Tensor, target: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """(rows, tokens) cross-entropy of logits (rows, tokens, outputs); 0 where a token does not count."""
    return functional.cross_entropy(
        logits.float().transpose(1, 2), target, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    )


def ids_of(lists: Sequence[Sequence[int]]) -> pa.Array:
    """A list<int32> array."""
    return pa.array(lists, pa.list_(pa.int32()))


def encode_texts(tokenizer: Any, rows: pa.Table, max_tokens: int, numbers: bool = False) -> pa.Table:
    """`input_ids`, `cut` (whether the row was longer) and, with a `pair`, `token_type_ids` where the model has them."""
    texts = rows["text"].to_pylist()
    if numbers:
        texts = [encode_history(np.asarray(values, np.float64))[0] for values in texts]
    pairs = rows["pair"].to_pylist() if "pair" in rows.column_names else None
    made = tokenizer(
        texts, pairs, truncation=True, max_length=max_tokens, return_overflowing_tokens=False, verbose=False
    )
    columns = {"input_ids": ids_of(made["input_ids"])}
    if pairs is not None and "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = ids_of(made["token_type_ids"])
    lengths = np.array([len(ids) for ids in made["input_ids"]])
    full = np.flatnonzero(lengths >= max_tokens)
    cut = np.zeros(len(texts), bool)
    if len(full):  # of those that fill the window, which were longer?
        again = tokenizer([texts[i] for i in full], [pairs[i] for i in full] if pairs else None, verbose=False)
        cut[full] = [len(ids) > max_tokens for ids in again["input_ids"]]
    return pa.table({**columns, "cut": pa.array(cut)})
