"""What an explanation costs beside its answer: `python benchmarks/explain.py [--device cuda]`.

A BERT-base-shaped classifier of random weights (12 layers of 768) answers made-up tickets of 5 to 120 words; then
integrated gradients tell what each character added to each answer, as `explain: true` does. Both read the same texts,
in turns in one process, tokenizing included; the answer goes through the engine that a night would use there: torch on
a CPU (one thread), packed rows in bfloat16 on a GPU. Explanations are in float32 on both.
Writes explain.json and .md, explain_gpu.json and .md on a GPU. No network is needed, and no Ray.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import numpy as np

WORDS = bench.QUESTION.split()
TEXTS = {"cpu": 24, "cuda": 4096}
CLASSES = 8


def made(folder: Path) -> Path:
    """The model, with a tokenizer for which a word is a token."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from bizllm.models.network import new_network, save_network
    from bizllm.models.saved import ModelInfo, write_info

    torch.manual_seed(0)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
    tokens += [f"w{i}" for i in range(20_000 - len(tokens))]
    BertModel(BertConfig(vocab_size=len(tokens)), add_pooling_layer=False).save_pretrained(folder / "base")
    labels = tuple(f"class_{i}" for i in range(CLASSES))
    info = ModelInfo("explained", "classification", labels=labels, pooling="mean", max_tokens=128)
    save_network(new_network(folder / "base", info, dropout=0.0), folder / "model")
    BertTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(folder / "model")
    write_info(folder / "model", info)
    return folder / "model"


def main() -> int:
    """Measure, print, write."""
    import torch

    from bizllm.models.classifier import Classifier
    from bizllm.models.engines.packed_engine import PackedEngine
    from bizllm.models.engines.torch_engine import TorchEngine

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=list(TEXTS), default="cpu")
    parser.add_argument("--texts", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    on_gpu, count = given.device == "cuda", given.texts or TEXTS[given.device]
    if not on_gpu:
        torch.set_num_threads(1)
    machine = bench.machine("torch", "transformers", "captum")
    where = f"{torch.cuda.get_device_name()}" if on_gpu else "one thread"
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(5, 121))) for _ in range(count)]

    def engine(network: Any) -> Any:
        return PackedEngine(network, "cuda") if on_gpu else TorchEngine(network, "cpu", "float32")

    with tempfile.TemporaryDirectory() as place:
        model = Classifier.load(made(Path(place)), engine)
        tokens = int(model.logits(texts)[1].sum())
        towards = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, count)]
        model.gradients.added(texts[:8], towards[:8])
        gaps: list[float] = []

        def seconds(run: Callable[[], Any]) -> float:
            began = time.perf_counter()
            found = run()
            gaps.extend(np.abs(getattr(found, "gaps", [])).tolist())
            return time.perf_counter() - began

        rates = bench.in_turns(
            {
                "answers": lambda: tokens / seconds(lambda: model.logits(texts)),
                "explanations": lambda: tokens / seconds(lambda: model.gradients.added(texts, towards)),
            },
            given.rounds,
        )
    dearer = bench.ratios(rates["answers"], rates["explanations"])
    rows = [
        [name, bench.spread(rate, 0), f"{statistics.median(rate) * count / tokens:,.1f}"]
        for name, rate in rates.items()
    ]
    text = f"""# What an explanation costs beside its answer

{machine}, {where}. Medians of {given.rounds} rounds in turns. How: benchmarks/explain.py.

{count:,} texts, {tokens:,} tokens.

| what | tokens/s | texts/s |
|---|---|---|
{chr(10).join(f"| {' | '.join(row)} |" for row in rows)}

An explanation takes {bench.times(dearer)} the time of its answer. What its characters add misses the difference of
the logits that they should add up to by {statistics.median(gaps):.4f} in the median, {max(gaps):.4f} at most.
"""
    bench.write(
        "explain_gpu" if on_gpu else "explain", {"machine": machine, "rates": rates, "dearer": dearer}, text, given.out
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
