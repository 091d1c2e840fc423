"""Texts → sentence vectors, in bulk: tokenized once, sorted by length, in batches of about equal cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bizllm.models import batches
from bizllm.models.saved import Pooling, read_info

if TYPE_CHECKING:
    import torch

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A BERT-like model with its tokenizer, pooled to one unit vector a text. Never truncates.

    model, tokenizer: of transformers; the tokenizer a fast one.
    max_tokens: the longest window the model was trained on, special tokens included; longer texts are cut into windows.
    pooling: mean over the tokens, the first (CLS) or the last token.
    dtype: bfloat16 or float32; the first only where the hardware multiplies it natively.
    """

    model: Any
    tokenizer: Any
    max_tokens: int
    pooling: Pooling
    device: str
    dtype: str

    @classmethod
    def load(cls, folder: Path, device: str | None = None, dtype: str | None = None) -> Encoder:
        """Load from a folder of safetensors, config and tokenizer. No code from the folder is run.

        device: default cuda where there is one, else cpu. dtype: default the fastest that the device computes natively.
        """
        import torch
        from transformers import AutoModel

        tokenizer = batches.load_tokenizer(folder)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
        device, dtype = batches.placement(device, dtype)
        positions = getattr(model.config, "max_position_embeddings", 512)
        limit, pooling = _window_and_pooling(folder)
        return cls(model.eval().to(device), tokenizer, min(limit or positions, positions), pooling, device, dtype)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

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
        if not texts:
            return np.zeros((0, self.dim), np.float32), np.zeros(0, np.int64)
        unique, places = batches.distinct(texts)
        windows = batches.text_windows(self.tokenizer, unique, self.max_tokens)
        pooled = np.empty((len(windows.ids), self.dim), np.float32)
        pad = self.tokenizer.pad_token_id or 0
        for rows, vectors in batches.outputs(self._forward, windows, pad, self.device, self.dtype):
            pooled[rows] = vectors
        vectors = windows.weighted_sum(pooled, len(unique))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors[places], windows.tokens(len(unique))[places]

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Unit vectors (windows, dim) of one batch (windows, tokens)."""
        from torch.nn.functional import normalize

        from bizllm.models.network import pool

        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return normalize(pool(hidden.float(), attention_mask, self.pooling), dim=1)


def _window_and_pooling(folder: Path) -> tuple[int | None, Pooling]:
    """As the folder says: of a model fine-tuned here, or in the files of sentence-transformers."""
    info = read_info(folder)
    if info is not None:
        return info.max_tokens, "mean" if info.pooling == "native" else info.pooling
    limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return limit, "cls" if _read_json(folder / "1_Pooling/config.json").get("pooling_mode_cls_token") else "mean"


def _read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
