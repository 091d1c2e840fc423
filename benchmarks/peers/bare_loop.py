"""The engine loop alone, for benchmarks/nights.py: `bare_loop.py TEXTS.json FOLDER_OF_A_CHOICE THREADS PART PARTS`
prints the seconds that one of so many parts of the texts takes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bizllm.infer.kept_engines import kept
from bizllm.models.encoder import Encoder
from bizllm.models.engines.base import Engine, Network
from bizllm.models.engines.choice import engine_of
from bizllm.models.load import resolve


def main(file: str, url: str, threads: str, part: str, parts: str) -> None:
    """Load, warm up, encode all texts, a unit's worth at a time."""
    texts = json.loads(Path(file).read_text())[int(part) :: int(parts)]
    found = kept(url) if url else None

    def engine(network: Network) -> Engine:
        choice, folder = (found.choice, found.folder()) if found else (None, None)
        return engine_of(choice, network, folder, int(threads))

    encoder = Encoder.load(resolve("builtin:minilm").folder, engine)
    encoder.encode(texts[:256])
    unit = max(100, len(texts) // 5)
    began = time.perf_counter()
    for start in range(0, len(texts), unit):
        encoder.encode_counted(texts[start : start + unit])
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
