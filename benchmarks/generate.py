"""Generating with and without a beginning that all prompts share: `python benchmarks/generate.py [--shared 150]`.

A GPT-2-shaped model of random weights (6 layers of 384; a word is a token) answers prompts that begin with the same
instruction and go on with a text of 10 to 60 tokens of their own. Beside ourselves without reading the instruction
once, and transformers' own `generate` in batches of 8, 16 or 32 (the best), padded, in the order of the prompts. All in
float32, greedy, 16 new tokens, in turns in one process. Writes benchmarks/results/generate.json and .md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import numpy as np

NEW = 16
WORDS = [f"w{i}" for i in range(2_000)]


def made(folder: Path) -> Path:
    """The model, with a tokenizer for which a word is a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<end>", *WORDS])}, unk_token="<end>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", unk_token="<end>").save_pretrained(folder)
    shape = {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 512}
    config = GPT2Config(vocab_size=len(WORDS) + 1, eos_token_id=0, bos_token_id=0, initializer_range=0.1, **shape)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def prompts(count: int, shared: int) -> list[str]:
    """An instruction of so many tokens, and texts."""
    rng = np.random.default_rng(0)
    begin = " ".join(rng.choice(WORDS, shared))
    return [f"{begin} {' '.join(rng.choice(WORDS, rng.integers(10, 61)))}" for _ in range(count)]


def plain(folder: Path, asked: list[str]) -> Callable[[int], list[str]]:
    """transformers' own generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token

    def run(batch: int) -> list[str]:
        said: list[str] = []
        for start in range(0, len(asked), batch):
            read = tokenizer(asked[start : start + batch], return_tensors="pt", padding=True)
            with torch.inference_mode():
                out = model.generate(**read, max_new_tokens=NEW, do_sample=False)
            said += tokenizer.batch_decode(out[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
        return said

    return run


def main() -> int:
    """Measure, print, write."""
    from bizllm.models import generator
    from bizllm.models.generator import Generator

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--shared", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    machine = bench.machine("torch", "transformers")
    least = generator._LEAST_SHARED
    with tempfile.TemporaryDirectory() as place:
        folder = made(Path(place))
        asked = prompts(given.prompts, given.shared)
        ours, theirs = Generator.load(folder, "cpu", "float32"), plain(folder, asked)
        said: dict[str, list[str]] = {}

        def timed(name: str, run: Callable[[], list[str]], shares: bool = True) -> float:
            generator._LEAST_SHARED = least if shares else 10**9
            began = time.perf_counter()
            said[name] = run()
            return len(asked) / (time.perf_counter() - began)

        sizes = {batch: timed("transformers", lambda batch=batch: theirs(batch)) for batch in (8, 16, 32)}  # type: ignore[misc]
        best = max(sizes, key=lambda batch: sizes[batch])
        systems: dict[str, Callable[[], float]] = {
            "shared": lambda: timed("shared", lambda: ours.generate(asked, NEW).texts),
            "not shared": lambda: timed("not shared", lambda: ours.generate(asked, NEW).texts, shares=False),
            "transformers": lambda: timed("transformers", lambda: theirs(best)),
        }
        rates = bench.in_turns(systems, given.rounds)
    same = sum(one == other for one, other in zip(said["shared"], said["not shared"], strict=True)) / len(asked)
    over: dict[str, Any] = {name: bench.ratios(rates["shared"], rates[name]) for name in ("not shared", "transformers")}
    bars = [
        bench.bar("shared over not shared", sorted(over["not shared"])[given.rounds // 2], 1),
        bench.bar("shared over transformers", sorted(over["transformers"])[given.rounds // 2], 1),
        bench.bar("answers as without sharing", same, 0.99),
    ]
    result = {"machine": machine, "rates": rates, "batch": best, "same": same, "bars": bars}
    rows = [
        [name, bench.spread(rate, 1), bench.times(over[name]) if name in over else ""] for name, rate in rates.items()
    ]
    text = f"""# Generating from prompts that begin alike

{machine}.
{len(asked)} prompts of {given.shared} tokens that all share and 10 to 60 of their own, {NEW} new tokens each;
transformers in batches of {best}. Medians of {given.rounds} rounds in turns. How: benchmarks/generate.py.

{bench.table(["system", "prompts/s", "shared over it"], rows)}

{bench.bars_table(bars)}
"""
    bench.write("generate", result, text, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
