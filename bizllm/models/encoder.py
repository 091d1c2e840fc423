"""Texts → sentence vectors, in bulk: tokenized once, sorted by length, in batches of about equal cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

# A batch holds about this many tokens, padding included: small enough to stay in the cache of a CPU core.
_CPU_BATCH_TOKENS = 2_048
_GPU_BATCH_TOKENS = 65_536


@dataclass(frozen=True)
class Encoder:
    """A BERT-like model with its tokenizer, pooled to one unit vector a text. Never truncates.

    model, tokenizer: of transformers; the tokenizer a fast one.
    max_tokens: the longest window the model was trained on, special tokens included; longer texts are cut into windows.
    pooling: mean over the tokens, or the first (CLS) token.
    dtype: bfloat16 or float32; the first only where the hardware multiplies it natively.
    """

    model: Any
    tokenizer: Any
    max_tokens: int
    pooling: str
    device: str
    dtype: str

    @classmethod
    def load(cls, folder: Path, device: str | None = None, dtype: str | None = None) -> Encoder:
        """Load from a folder of safetensors, config and tokenizer. No code from the folder is run.

        device: default cuda where there is one, else cpu. dtype: default the fastest that the device computes natively.
        """
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a worker has no terminal
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or ("bfloat16" if _native_bfloat16(device) else "float32")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
        limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        positions = getattr(model.config, "max_position_embeddings", 512)
        pooling = "cls" if _read_json(folder / "1_Pooling/config.json").get("pooling_mode_cls_token") else "mean"
        return cls(model.eval().to(device), tokenizer, min(limit or positions, positions), pooling, device, dtype)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """Special tokens before and after a window, e.g. [CLS] and [SEP]."""
        marked = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        at = next(i for i in range(len(marked)) if marked[i : i + len(plain)] == plain)
        return marked[:at], marked[at + len(plain) :]

    def encode(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """(vectors float32 (texts, dim) of length 1, tokens the model read); see `encode_counted`."""
        vectors, counts = self.encode_counted(texts)
        first = list({text: i for i, text in reversed(list(enumerate(texts)))}.values())
        return vectors, int(counts[first].sum())

    def encode_counted(self, texts: Sequence[str]) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """(vectors float32 (texts, dim) of length 1, tokens of each text (texts,), special tokens included).

        A text longer than `max_tokens` is cut into windows, and their vectors are averaged by token count. Equal texts
        are read once. The order of the texts changes nothing, not even the batches.
        """
        unique = {text: i for i, text in enumerate(sorted(set(texts)))}
        if not unique:
            return np.zeros((0, self.dim), np.float32), np.zeros(0, np.int64)
        windows, owner = self._windows(list(unique))
        lengths = np.array([len(window) for window in windows])
        pooled = np.empty((len(windows), self.dim), np.float32)
        for rows in _batches(lengths, self._batch_tokens):
            pooled[rows] = self._forward([windows[row] for row in rows])

        vectors = np.zeros((len(unique), self.dim), np.float32)
        np.add.at(vectors, owner, pooled * lengths[:, None].astype(np.float32))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        places = [unique[text] for text in texts]
        return vectors[places], np.bincount(owner, lengths).astype(np.int64)[places]

    @property
    def _batch_tokens(self) -> int:
        return _CPU_BATCH_TOKENS if self.device == "cpu" else _GPU_BATCH_TOKENS

    def _windows(self, texts: list[str]) -> tuple[list[list[int]], npt.NDArray[np.int64]]:
        """Token ids of every window, and the index of the text each belongs to."""
        before, after = self._frame
        size = self.max_tokens - len(before) - len(after)
        plain = self.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        # Windows of about equal length: a tail of three tokens would make a poor vector.
        counts = [max(1, -(-len(ids) // size)) for ids in plain]
        windows = [
            before + [int(i) for i in part] + after
            for ids, count in zip(plain, counts, strict=True)
            for part in np.array_split(np.array(ids, np.int64), count)
        ]
        return windows, np.repeat(np.arange(len(texts)), counts)

    def _forward(self, windows: list[list[int]]) -> Vectors:
        """Unit vectors (windows, dim) of one batch."""
        import torch

        lengths = torch.tensor([len(window) for window in windows])
        width = int(lengths.max())
        mask = torch.arange(width)[None, :] < lengths[:, None]  # (windows, width)
        ids = torch.full((len(windows), width), self.tokenizer.pad_token_id or 0)
        ids[mask] = torch.tensor(list(chain.from_iterable(windows)))
        ids, mask = ids.to(self.device), mask.to(self.device)
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16")
        with torch.inference_mode(), autocast:
            hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (windows, width, dim)
        hidden = hidden.float()
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask.unsqueeze(-1).float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        unit: Vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return unit


def _batches(lengths: npt.NDArray[np.int64], budget: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows in batches, longest first, each at most `budget` tokens when padded to its longest row (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def _native_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated it is slower than float32."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
