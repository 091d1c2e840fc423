"""Texts → sentence vectors, in bulk: tokenized once, sorted by length, in batches of about equal cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.models import batches
from bizllm.models.batches import Windows
from bizllm.models.engines.base import Engine, Network, summed
from bizllm.models.engines.remembering import unremembered
from bizllm.models.engines.torch_engine import TorchEngine
from bizllm.models.saved import Pooling, read_info

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A BERT-like model with its tokenizer, pooled to one unit vector a text. Never truncates.

    engine: computes the vector of a window: its tokens' vectors pooled. network: what it computes.
    tokenizer: a fast one of transformers.
    max_tokens: the longest window the model was trained on, special tokens included; longer texts are cut into windows.
    dim: length of a vector.
    """

    engine: Engine
    network: Network
    tokenizer: Any
    max_tokens: int
    dim: int

    @classmethod
    def load(cls, folder: Path, engine: Callable[[Network], Engine] = TorchEngine) -> Encoder:
        """Load from a folder of safetensors, config and tokenizer. No code from the folder is run.

        engine: what computes; by default torch, where and as is fastest.
        """
        from transformers import AutoConfig

        tokenizer = batches.load_tokenizer(folder)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        positions = getattr(config, "max_position_embeddings", 512)
        limit, pooling = window_and_pooling(folder)
        network = Network(
            lambda: _pooled(folder, pooling),
            ("input_ids", "attention_mask"),
            tokenizer.pad_token_id or 0,
            "vectors",
            finish=unit_length,
        )
        return cls(engine(network), network, tokenizer, min(limit or positions, positions), int(config.hidden_size))

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
        parts = batches.in_parts(self._windows, unique, ahead=self.engine.on_gpu)
        vectors, counts = summed(self.engine, self.network, parts)
        return unit_length(vectors)[places], counts[places]

    def unremembered(self) -> Encoder:
        """The same for texts that nobody asks about again: their vectors are not kept for other steps."""
        return replace(self, engine=unremembered(self.engine))

    def _windows(self, texts: list[str]) -> Windows:
        return batches.text_windows(self.tokenizer, texts, self.max_tokens)


def unit_length(vectors: Vectors) -> Vectors:
    """(rows, dim), each of length 1."""
    longest = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(longest, np.finfo(np.float32).tiny)
    return unit


def _pooled(folder: Path, pooling: Pooling) -> Any:
    from bizllm.models.network import load_pooled

    return load_pooled(folder, pooling)


def window_and_pooling(folder: Path) -> tuple[int | None, Pooling]:
    """(tokens of a window where it says, pooling) of the folder: of a model fine-tuned here, or as in the files of
    sentence-transformers."""
    info = read_info(folder)
    if info is not None:
        return info.max_tokens, "mean" if info.pooling == "native" else info.pooling
    limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return limit, "cls" if _read_json(folder / "1_Pooling/config.json").get("pooling_mode_cls_token") else "mean"


def _read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}
