"""What of a model's folder decides its answers, and the hash of that."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
