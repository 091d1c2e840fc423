"""Encoding on a GPU, tokens/s beside others: `python benchmarks/encode_gpu.py --texts FILE [--model FOLDER]`.

Beside: transformers' pipeline and sentence-transformers, each at its best of some batch sizes; all read the same texts
with the same weights in bfloat16 (ours: float32 sums and norms), tokenizing included, in turns in one process. Two
shapes: the built-in MiniLM (its weights where --model names their folder, else random ones) and BERT-large with random
weights. `packed` and `torch` are bizllm's engines of these names; `packed, not compiled` tells what compiling gives.

The ceiling is what torch's matrix product reaches in the same run (8,192³, bfloat16); the share counts the
multiplications of the encoder's layers, on rows of mixed lengths, with the tokenizer out of the way ("engine alone").
No network, Ray or pyarrow is needed. FILE: a JSON list of texts, and a tokenizer's folder stands beside it as
`tokenizer/`; `--prepare FILE` makes both from BIZLLM_DATA. Writes encode_gpu.json and .md into --out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from peers.encode_child import pipeline

from bizllm.models import batches
from bizllm.models.encoder import Encoder
from bizllm.models.engines.base import all_outputs
from bizllm.models.engines.packed_engine import PackedEngine
from bizllm.models.engines.torch_engine import TorchEngine

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES: dict[str, dict[str, int]] = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
SHARE = {"minilm": 6, "bert-large": 1}  # of the texts, in parts of six
BATCHES = (32, 128, 512)
BUDGETS = (16_384, 65_536, 131_072)
ENGINES: dict[str, Callable[[Any], Any]] = {
    "packed": lambda network: PackedEngine(network, DEVICE),
    "packed, not compiled": lambda network: PackedEngine(network, DEVICE, compiled=False),
    "torch": lambda network: TorchEngine(network, DEVICE, "bfloat16"),
}


def prepare(file: Path, count: int) -> None:
    """Texts of mixed lengths as benchmarks/encode.py has them, again with their words in another order where there are
    too few, and the tokenizer."""
    from encode import mixed_texts
    from transformers import AutoTokenizer

    from bizllm.models.load import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("builtin:minilm").folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = mixed_texts(Path(os.environ["BIZLLM_DATA"]), count, tokenizer)[0]
    rng = np.random.default_rng(0)
    shuffled = (" ".join(rng.permutation(texts[i].split())) for i in rng.integers(0, len(texts), count))
    file.write_text(json.dumps([*texts, *shuffled][:count]))
    tokenizer.save_pretrained(file.parent / "tokenizer")


def random_model(folder: Path, tokenizer: Path, shape: dict[str, int]) -> Path:
    """A BERT of random weights."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    with torch.device(DEVICE):
        model = BertModel(BertConfig(vocab_size=len(loaded), **shape), add_pooling_layer=False)
    model.save_pretrained(folder)
    loaded.save_pretrained(folder)
    return folder


def pipelined(model: Path) -> Callable[[Sequence[str], int], Any]:
    """transformers' pipeline."""
    return pipeline(str(model), "bfloat16", DEVICE)


def sentence_transformers(model: Path) -> Callable[[Sequence[str], int], Any]:
    """sentence-transformers' encode."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device=DEVICE, model_kwargs={"dtype": torch.bfloat16})
    return lambda texts, batch: loaded.encode(
        list(texts), batch_size=batch, show_progress_bar=False, normalize_embeddings=True
    )


def seconds(run: Callable[[], Any]) -> float:
    """Of one run, until the GPU is done."""
    began = time.perf_counter()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def fastest(name: str, sizes: Sequence[int], run: Callable[[int], Any]) -> int:
    """The size with which `run` is fastest; each is tried twice."""
    found = {size: min(seconds(lambda size=size: run(size)) for _ in range(2)) for size in sizes}  # type: ignore[misc]
    print(f"{name}: { ({size: round(took, 3) for size, took in found.items()}) } s", flush=True)
    return min(found, key=lambda size: found[size])


def matrix_rate() -> float:
    """FLOP/s of a bfloat16 matrix product."""
    size = 8192 if DEVICE == "cuda" else 512
    one, other = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    took = statistics.median(seconds(lambda: one @ other) for _ in range(10))
    return 2 * size**3 / took


def measure(model: Path, texts: list[str], rounds: int, sizes: Sequence[int]) -> dict[str, Any]:
    """Rates of all systems, and how far ours agree with float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    exact = Encoder.load(model, lambda network: TorchEngine(network, DEVICE, "float32"))
    few = texts[: max(64, len(texts) // 8)]
    expected = exact.encode(few)[0]
    result: dict[str, Any] = {"texts": len(texts)}
    windows = batches.text_windows(exact.tokenizer, sorted(set(texts)), exact.max_tokens)
    result["tokens"] = int(windows.lengths.sum())
    systems: dict[str, Callable[[], float]] = {}
    result |= {"sizes": {}, "cosine": {}, "compiled_s": {}}
    for name, make in ENGINES.items():
        ours = Encoder.load(model, make)
        result["compiled_s"][name] = round(seconds(lambda ours=ours: ours.encode(few)), 1)  # type: ignore[misc]
        result["cosine"][name] = float((ours.encode(few)[0] * expected).sum(1).min())

        def of_budget(budget: int, ours: Encoder = ours) -> None:
            ours.engine.budget = budget
            all_outputs(ours.engine, windows)

        result["sizes"][name] = fastest(name, BUDGETS, of_budget)
        ours.engine.budget = result["sizes"][name]
        systems[f"{name}, engine alone"] = lambda e=ours.engine: (
            result["tokens"]
            / seconds(  # type: ignore[misc]
                lambda: all_outputs(e, windows)
            )
        )
        systems[name] = lambda ours=ours: result["tokens"] / seconds(lambda: ours.encode(texts))  # type: ignore[misc]
    for name, made in (("pipeline", pipelined), ("sentence-transformers", sentence_transformers)):
        try:
            encode = made(model)
            batch = result["sizes"][name] = fastest(name, sizes, lambda size, encode=encode: encode(few, size))  # type: ignore[misc]
        except Exception as fault:  # a peer that is not there, or does not run
            print(f"{name}: {type(fault).__name__}: {fault}", flush=True)
            continue
        result["cosine"][name] = float((encode(few, batch) * expected).sum(1).min())
        systems[name] = lambda encode=encode, batch=batch: (
            result["tokens"]
            / seconds(  # type: ignore[misc]
                lambda: encode(texts, batch)
            )
        )
    systems["matrix product"] = matrix_rate
    result["rates"] = bench.in_turns(systems, rounds)
    mean = int((windows.lengths.astype(float) ** 2).sum() / windows.lengths.sum())  # tokens that a token attends to
    flops = bench.flops_of_a_token(model, mean)
    result["shares"] = {
        name: [rate * flops / peak for rate, peak in zip(rates, result["rates"]["matrix product"], strict=True)]
        for name, rates in result["rates"].items()
        if name != "matrix product"
    }
    return result


def bars(shape: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of a shape."""
    rates, best = found["rates"], "packed"
    made = [
        bench.bar(
            f"{shape}: share of the matrix product's rate",
            statistics.median(found["shares"][f"{best}, engine alone"]),
            0.45,
        ),
        bench.bar(f"{shape}: least cosine with float32", found["cosine"][best], 0.9999),
    ]
    for peer in ("pipeline", "sentence-transformers"):
        if peer in rates:
            over = statistics.median(bench.ratios(rates[best], rates[peer]))
            made.append(bench.bar(f"{shape}: over {peer}", over, 1))
    return made


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    parts = [f"# Encoding on a GPU, beside others\n\n{result['machine']}. How: benchmarks/encode_gpu.py."]
    for shape, found in result["shapes"].items():
        rows = [
            [
                name,
                found["sizes"].get(name.partition(", engine")[0], ""),
                bench.spread(rates),
                f"{statistics.median(found['shares'][name]):.1%}",
                f"{found['cosine'][name]:.5f}" if name in found["cosine"] else "",
            ]
            for name, rates in found["rates"].items()
            if name != "matrix product"
        ]
        head = ["system", "batch (ours: tokens)", "tokens/s", "share of the matrix rate", "least cosine with float32"]
        peak = [rate / 1e12 for rate in found["rates"]["matrix product"]]
        first = ", ".join(f"{name} {took} s" for name, took in found["compiled_s"].items())
        parts.append(
            f"## {shape}\n\n{found['texts']:,} texts, {found['tokens']:,} tokens; "
            f"matrix product {bench.spread(peak)} TFLOP/s. First texts, with what is compiled: {first}.\n\n"
            + bench.table(head, rows)
        )
    parts.append("## Bars\n\n" + bench.bars_table(result["bars"]))
    return "\n\n".join(parts)


def main() -> int:
    """Measure, print, write; or prepare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--tiny", action="store_true", help="few texts and layers, to see on a CPU that it runs")
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare, given.count)
        return 0
    texts = json.loads(given.texts.read_text())[: 100 if given.tiny else None]
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "no GPU"
    result: dict[str, Any] = {
        "machine": f"{device}, {bench.machine('torch', 'transformers', 'sentence-transformers')}",
        "shapes": {},
        "bars": [],
    }
    with tempfile.TemporaryDirectory(prefix="bizllm-bench-") as made:
        for shape in given.shapes:
            asked = {**SHAPES[shape], **({"num_hidden_layers": 2, "hidden_size": 48} if given.tiny else {})}
            real = given.model if shape == "minilm" else None
            model = real or random_model(Path(made) / shape, given.texts.parent / "tokenizer", asked)
            some = texts[: len(texts) * SHARE[shape] // 6]
            found = result["shapes"][shape] = measure(model, some, given.rounds, BATCHES[:1] if given.tiny else BATCHES)
            result["bars"] += bars(shape, found)
            bench.write("encode_gpu", result, page(result), given.out)  # what is there, should the next one fail
    return 0


if __name__ == "__main__":
    sys.exit(main())
