"""One system of benchmarks/encode.py in a process of its own: `encode_child.py SYSTEM MODEL TEXTS.json THREADS`.

Says `ready` when it is loaded. Then for each line of its input: `go BATCH` encodes all texts in batches of so many and
prints the seconds, `first N BATCH` only so many texts, `save FILE` writes what came out, (texts, dim). Runs in the
environment of bizllm or in that of the peers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Encode = Callable[[Sequence[str], int], Any]  # texts and the size of a batch, which ours does not heed


def pipeline(model: str, precision: str, device: str = "cpu") -> Encode:
    """transformers' pipeline, as its documentation has it."""
    import torch
    from transformers import pipeline as made

    run = made("feature-extraction", model=model, dtype=getattr(torch, precision), device=device)

    def encode(texts: Sequence[str], batch: int) -> Any:
        tensors = run(list(texts), batch_size=batch, return_tensors=True, tokenize_kwargs={"truncation": True})
        vectors = np.stack([tensor[0].float().mean(0).numpy() for tensor in tensors])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def sentence_transformers(model: str, backend: str, precision: str) -> Encode:
    """sentence-transformers' encode."""
    import torch
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = {"torch_dtype": getattr(torch, precision)}
    if backend == "openvino":
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        options = {"ov_config": {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}}
    loaded = SentenceTransformer(model, backend=backend, device="cpu", model_kwargs=options, local_files_only=True)
    return lambda texts, batch: loaded.encode(list(texts), batch_size=batch, show_progress_bar=False)


def ray_data(model: str) -> Encode:
    """Ray Data's map_batches over a class that holds a pipeline, as its documentation has batch inference."""
    import ray

    threads = int(os.environ["OMP_NUM_THREADS"])
    ray.init(address="local", num_cpus=threads, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=200_000_000)  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False

    class Embed:
        def __init__(self, batch: int) -> None:
            self.encode, self.batch = pipeline(model, "float32"), batch

        def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
            return {"vector": self.encode(rows["text"].tolist(), self.batch)}

    def encode(texts: Sequence[str], batch: int) -> Any:
        rows = ray.data.from_items([{"text": text} for text in texts])
        pool = ray.data.ActorPoolStrategy(size=1)
        asked = rows.map_batches(Embed, fn_constructor_args=(batch,), compute=pool, batch_size=256, num_cpus=threads)
        done = asked.materialize()
        return np.stack([row["vector"] for row in done.iter_rows()])

    return encode


def ours(model: str, threads: int, precision: str, texts: Sequence[str]) -> Encode:
    """bizllm's encoder or classifier, with the engine that is chosen on these texts."""
    import tempfile

    from bizllm.models import batches
    from bizllm.models.classifier import Classifier
    from bizllm.models.encoder import Encoder
    from bizllm.models.engines.base import Network
    from bizllm.models.engines.choice import Wanted, choose, engine_of
    from bizllm.models.engines.torch_engine import TorchEngine
    from bizllm.models.saved import read_info

    classifies = read_info(Path(model)) is not None
    kind: Any = Classifier if classifies else Encoder
    found: list[Network] = []
    plain = kind.load(Path(model), lambda network: found.append(network) or TorchEngine(network))
    longest = plain.info.max_tokens if classifies else plain.max_tokens
    windows = batches.text_windows(plain.tokenizer, batches.distinct(texts)[0], longest)
    work = Path(tempfile.mkdtemp())
    wanted = Wanted(precision="auto" if precision == "bfloat16" else precision)
    choice = choose(found[0], windows, wanted, work, threads)
    print(json.dumps({"choice": str(choice), "precision": choice.precision}), flush=True)
    loaded = kind.load(Path(model), lambda network: engine_of(choice, network, work / choice.files, threads))
    return lambda asked, _: (loaded.logits(asked) if classifies else loaded.encode_counted(asked))[0]


def main() -> None:
    """Serve until the input ends."""
    system, model, file, threads = sys.argv[1:]
    import torch

    torch.set_num_threads(int(threads))
    texts = json.loads(Path(file).read_text())
    name, _, precision = system.partition(" ")
    if name == "ours":
        encode = ours(model, int(threads), precision, texts)
    elif name == "pipeline":
        encode = pipeline(model, precision)
    elif name == "ray-data":
        encode = ray_data(model)
    else:
        encode = sentence_transformers(model, name.removeprefix("st-"), precision)
    said: Any = None
    print("ready", flush=True)
    for line in sys.stdin:
        order, *values = line.split()
        if order == "save":
            np.save(values[0], said)
            print("saved", flush=True)
            continue
        asked = texts[: int(values[0])] if order == "first" else texts
        began = time.perf_counter()
        said = encode(asked, int(values[-1]))
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
