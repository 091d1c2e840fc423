"""What of a model's folder decides its answers, and the hash of that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Weights, heads, configs, calibration and labels (bizllm.json), tokenizer, chat template; never pickled weights.
PATTERNS = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model", "*.jinja", "1_Pooling/config.json")


def content_hash(folder: Path) -> str:
    """sha256 over the name, length and bytes of every file that decides the model's answers, in order of name."""
    files = sorted({file for pattern in PATTERNS for file in folder.glob(pattern)}, key=lambda f: f.relative_to(folder))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# Of these families, what of a config decides the vectors; another version of transformers may write more beside it.
_DECIDES = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("layer_norm_eps", "max_position_embeddings", "type_vocab_size", "vocab_size", "pad_token_id"),
)
_FAMILIES = ("bert", "roberta", "xlm-roberta")
# Of other families all but these.
_OF_A_HEAD = (
    *("architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"),
    *("id2label", "label2id", "num_labels", "problem_type", "classifier_dropout"),
)
_HEADS = ("cls.", "classifier.", "lm_head.", "score.", "pooler.", "qa_outputs.")


def backbone_hash(folder: Path) -> str:
    """sha256 over what decides the token vectors: config and weights, without heads. Equal for models that were trained
    with their backbone frozen, whatever their heads answer. Safetensors are read as they lie in the file."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    kind = str(config.get("model_type"))
    names = _DECIDES if kind in _FAMILIES else sorted(set(config) - set(_OF_A_HEAD))
    digest = hashlib.sha256(json.dumps([(name, config.get(name)) for name in names]).encode())
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        for name, about in _header(file).items():
            short = name.removeprefix(f"{kind.replace('xlm-roberta', 'roberta')}.")
            if not short.startswith(_HEADS) and not short.endswith("position_ids"):
                tensors[short] = (file, about)
    for name, (file, about) in sorted(tensors.items()):
        digest.update(f"{name}\0{about['dtype']}\0{about['shape']}\0".encode())
        for block in _bytes(file, *about["data_offsets"]):
            digest.update(block)
    return digest.hexdigest()


def _header(file: Path) -> dict[str, Any]:
    """name → dtype, shape and place of each tensor: the format of safetensors."""
    with file.open("rb") as stream:
        said: dict[str, Any] = json.loads(stream.read(_header_bytes(stream)))
    said.pop("__metadata__", None)
    return said


def _header_bytes(stream: BinaryIO) -> int:
    return int.from_bytes(stream.read(8), "little")


def _bytes(file: Path, start: int, end: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(8 + _header_bytes(stream) + start)
        left = end - start
        while block := stream.read(min(left, 1 << 20)):
            left -= len(block)
            yield block
