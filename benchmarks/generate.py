"""Generating from prompts that begin alike, and answers that end apart: `python benchmarks/generate.py`.

A GPT-2-shaped model of random weights (6 layers of 384; a word is a token) answers prompts that begin with the same
instruction and go on with a text of 10 to 60 tokens of their own, 16 new tokens each: beside ourselves without reading
the instruction once, and transformers' own `generate` in batches of 8, 16 or 32 (the best), padded, in the order of the
prompts. Then some 120 of its 2,001 tokens end an answer, and prompts without an instruction get 1 to 128 new tokens:
ended rows make room for others (what bizllm does); or are only taken out; or wait for the longest of their batch (what
bizllm did before); and transformers' continuous batching, with each attention that it has on a CPU and each of two
sizes of a page. All in float32, greedy, in turns in one process, on one thread, because others may use the rest.
Writes benchmarks/results/generate.json and .md.

`--device cuda` does the same in bfloat16 with a Llama-shaped model of a billion parameters (16 layers of 2,048, 8 heads
of keys and values), more prompts and larger batches, and writes generate_gpu.json and .md. It needs no network, no Ray.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bench
import numpy as np

NEW, LONG = 16, 128
ENDING = 120  # tokens that end an answer, where answers end apart
WORDS = [f"w{i}" for i in range(2_000)]
DTYPE = {"cpu": "float32", "cuda": "bfloat16"}
BATCHES = {"cpu": (8, 16, 32), "cuda": (64, 256)}
PAGED = {  # attention, tokens of a page, of the whole cache, and of a batch
    "cpu": [(attention, page, 16_384, 256) for attention in ("sdpa", "eager") for page in (256, 32)],
    "cuda": [("sdpa", page, 262_144, 4_096) for page in (256, 32)],
}


def made(folder: Path, device: str) -> Path:
    """The model, with a tokenizer for which a word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<end>", *WORDS])}, unk_token="<end>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<end>").save_pretrained(folder)
    tokens: dict[str, Any] = {"vocab_size": len(WORDS) + 1, "eos_token_id": 0, "bos_token_id": 0}
    if device == "cpu":
        small = {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 512}
        GPT2LMHeadModel(GPT2Config(**tokens, **small, initializer_range=0.1)).save_pretrained(folder)
        return folder
    heads = {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    large = {"hidden_size": 2048, "intermediate_size": 8192, **heads, "max_position_embeddings": 2048}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**tokens, **large, initializer_range=0.1))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    return folder


def prompts(count: int, shared: int) -> list[str]:
    """An instruction of so many tokens, and texts."""
    rng = np.random.default_rng(0)
    begin = " ".join(rng.choice(WORDS, shared))
    return [f"{begin} {' '.join(rng.choice(WORDS, rng.integers(10, 61)))}" for _ in range(count)]


def plain(folder: Path, device: str, asked: list[str]) -> Callable[[int], list[str]]:
    """transformers' own generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, DTYPE[device])).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token

    def run(batch: int) -> list[str]:
        said: list[str] = []
        for start in range(0, len(asked), batch):
            read = tokenizer(asked[start : start + batch], return_tensors="pt", padding=True).to(device)
            with torch.inference_mode():
                out = model.generate(**read, max_new_tokens=NEW, do_sample=False)
            said += tokenizer.batch_decode(out[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
        return said

    return run


def continuous(folder: Path, device: str, ids: list[list[int]], ends: list[int]) -> Callable[..., list[str]]:
    """transformers' continuous batching over a paged cache, which holds all that is asked. ids: of each prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = getattr(torch, DTYPE[device])
    models = {
        attention: AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=dtype)
        .eval()
        .to(device)
        for attention in sorted({attention for attention, *_ in PAGED[device]})
    }
    search = GenerationConfig(max_new_tokens=LONG, eos_token_id=ends, pad_token_id=0, do_sample=False)

    def run(attention: str, page: int, cached: int, batch: int) -> list[str]:
        paged = ContinuousBatchingConfig(page_size=page, num_blocks=cached // page, max_batch_tokens=batch)
        out = models[attention].generate_batch(ids, search, paged, warmup=False)
        told = {int(name.rpartition("_")[2]): list(made.generated_tokens) for name, made in out.items()}
        return [text.strip() for text in tokenizer.batch_decode([told[i] for i in sorted(told)], True)]

    return run


def alike(folder: Path, device: str, count: int, shared: int, rounds: int) -> tuple[dict[str, Any], str]:
    """Prompts that begin alike: (what was measured, as Markdown)."""
    from bizllm.models import refill
    from bizllm.models.generator import Generator

    asked, least = prompts(count, shared), refill.LEAST_SHARED
    ours, theirs = Generator.load(folder, device, DTYPE[device]), plain(folder, device, asked)
    said: dict[str, list[str]] = {}

    def timed(name: str, run: Callable[[], list[str]], shares: bool = True) -> float:
        refill.LEAST_SHARED = least if shares else 10**9
        began = time.perf_counter()
        said[name] = run()
        return len(asked) / (time.perf_counter() - began)

    sizes = {batch: timed("transformers", lambda batch=batch: theirs(batch)) for batch in BATCHES[device]}  # type: ignore[misc]
    best = max(sizes, key=lambda batch: sizes[batch])
    systems: dict[str, Callable[[], float]] = {
        "shared": lambda: timed("shared", lambda: ours.generate(asked, NEW).texts),
        "not shared": lambda: timed("not shared", lambda: ours.generate(asked, NEW).texts, shares=False),
        "transformers": lambda: timed("transformers", lambda: theirs(best)),
    }
    rates = bench.in_turns(systems, rounds)
    refill.LEAST_SHARED = least
    same = sum(one == other for one, other in zip(said["shared"], said["not shared"], strict=True)) / len(asked)
    over: dict[str, Any] = {name: bench.ratios(rates["shared"], rates[name]) for name in ("not shared", "transformers")}
    bars = [
        bench.bar("shared over not shared", sorted(over["not shared"])[rounds // 2], 1),
        bench.bar("shared over transformers", sorted(over["transformers"])[rounds // 2], 1),
        bench.bar("answers as without sharing", same, 0.99),
    ]
    rows = [
        [name, bench.spread(rate, 1), bench.times(over[name]) if name in over else ""] for name, rate in rates.items()
    ]
    text = f"""{len(asked)} prompts of {shared} tokens that all share and 10 to 60 of their own, {NEW} new tokens each;
transformers in batches of {best}.

{bench.table(["system", "prompts/s", "shared over it"], rows)}"""
    return {"rates": rates, "batch": best, "same": same, "bars": bars}, text


def apart(folder: Path, device: str, count: int, rounds: int) -> tuple[dict[str, Any], str]:
    """Answers that end apart: (what was measured, as Markdown)."""
    from bizllm.models import batches
    from bizllm.models.generator import Generator
    from bizllm.models.refill import Refilled

    asked = prompts(count, 0)
    ends = sorted({0, *np.random.default_rng(1).choice(len(WORDS), ENDING, replace=False).tolist()})
    loaded = Generator.load(folder, device, DTYPE[device])
    ours = replace(loaded, ends=tuple(ends))
    ours.model.generation_config.eos_token_id = ends
    waits = replace(ours)
    waits.__dict__["_refills"] = False
    ids = ours._encode(asked, True)
    lengths = np.array([len(row) + LONG for row in ids])
    theirs = continuous(folder, device, ids, ends)

    def shrunk() -> list[str]:
        answers: list[list[int]] = [[] for _ in ids]
        for rows in batches.by_budget(lengths, ours._batch_tokens):
            Refilled(ours.model, ids, LONG, ours.ends).write(rows.tolist(), ours._batch_tokens, answers.__setitem__)
        return [text.strip() for text in ours.tokenizer.batch_decode(answers, True)]

    runs: dict[str, Callable[[], list[str]]] = {
        "ended rows make room": lambda: ours.generate(asked, LONG).texts,
        "ended rows are taken out": shrunk,
        "ended rows wait": lambda: waits.generate(asked, LONG).texts,
    }
    for attention, page, *sizes in PAGED[device]:
        runs[f"transformers, continuous, {attention}, pages of {page}"] = partial(theirs, attention, page, *sizes)
    said: dict[str, list[str]] = {}

    def timed(name: str) -> float:
        began = time.perf_counter()
        said[name] = runs[name]()
        return len(asked) / (time.perf_counter() - began)

    for name in list(runs):
        try:
            timed(name)
        except Exception as fault:  # a peer that does not run here
            print(f"{name}: {type(fault).__name__}: {fault}"[:400], flush=True)
            del runs[name]
    rates = bench.in_turns({name: partial(timed, name) for name in runs}, rounds)
    first, _, before, *others = runs
    right = said[before]
    same = {
        name: sum(one == other for one, other in zip(texts, right, strict=True)) / len(asked)
        for name, texts in said.items()
    }
    over = {name: bench.ratios(rates[first], rates[name]) for name in runs if name != first}
    bars = [bench.bar("making room over waiting", sorted(over[before])[rounds // 2], 1)]
    if others:
        best = max(others, key=lambda name: sorted(rates[name])[rounds // 2])
        ratio = sorted(over[best])[rounds // 2]
        bars.append(bench.bar("making room over transformers' continuous batching", ratio, 1))
    bars.append(bench.bar("answers as where rows wait", same[first], 0.99))
    written = ours.generate(asked, LONG).output_tokens
    mean = float(written.mean())
    rows = [
        [
            name,
            bench.spread(rate, 1),
            f"{mean * sorted(rate)[rounds // 2]:,.0f}",
            bench.times(over[name]) if name in over else "",
            f"{100 * same[name]:.0f} %",
        ]
        for name, rate in rates.items()
    ]
    full = int((written == LONG).sum())
    text = f"""{len(asked)} prompts of 10 to 60 tokens; answers of {written.min()} to {written.max()} tokens,
{written.mean():.0f} in the mean, {full} of them as long as is allowed.

{bench.table(["system", "prompts/s", "new tokens/s", "making room over it", "same answers as waiting"], rows)}"""
    return {"rates": rates, "same": same, "output_tokens": written.tolist(), "bars": bars}, text


def main() -> int:
    """Measure, print, write."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=list(DTYPE), default="cpu")
    parser.add_argument("--prompts", type=int, help="96 by default, 4,096 on a GPU")
    parser.add_argument("--shared", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    on_cpu = given.device == "cpu"
    if on_cpu:
        torch.set_num_threads(1)
    where = "one thread" if on_cpu else f"{torch.cuda.get_device_name()}, {DTYPE['cuda']}"
    machine, count = bench.machine("torch", "transformers"), given.prompts or (96 if on_cpu else 4096)
    with tempfile.TemporaryDirectory() as place:
        folder = made(Path(place), given.device)
        first, begin = alike(folder, given.device, count, given.shared, given.rounds)
        second, end = apart(folder, given.device, count, given.rounds)
    bars = [*first.pop("bars"), *second.pop("bars")]
    result = {"machine": machine, **first, "apart": second, "bars": bars}
    text = f"""# Generating from prompts that begin alike, and answers that end apart

{machine}, {where}.
Medians of {given.rounds} rounds in turns. How: benchmarks/generate.py.

## Prompts that begin alike

{begin}

## Answers that end apart

{end}

{bench.bars_table(bars)}
"""
    bench.write("generate" if on_cpu else "generate_gpu", result, text, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
