"""Encoding and classifying mixed-length texts, tokens/s beside others: `BIZLLM_DATA=… python benchmarks/encode.py`.

Beside: transformers' pipeline, sentence-transformers with its torch and its OpenVINO backend (`make build/peers` gives
it an environment of its own), and Ray Data's map_batches over a pipeline as its documentation shows it. All read the
same texts with the same weights (the built-in MiniLM) on the same number of threads, each in a process of its own
that is loaded and warm before it is timed; tokenizing counts, reading and writing do not. Each peer has the best of its
batch sizes of 1, 8, 32 and 128, found on the first texts. Tokens are those of the texts, special ones included; padding
does not count. Texts: customers' questions, review sentences, reviews, dialogues and passages in equal parts, cut at
250 tokens, in random order.

int8 is measured on a classifier (the same encoder with a linear head, fitted on the frozen vectors of 1,000 texts of
another draw: which of the five kinds a text is of), whose labels are compared with those of float32.

The ceiling is what torch's matrix product reaches in the same run (2,048 × 2,048 × 2,048, bfloat16); the share counts
the multiplications of the encoder's layers on rows of 128 tokens each, which need no padding.
Writes benchmarks/results/encode.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bench
import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PEERS = HERE.parent / "build/peers/bin/python"
BATCHES = (1, 8, 32, 128)
LONGEST = 250
PEER_SYSTEMS = (
    "pipeline float32",
    "pipeline bfloat16",
    "st-torch float32",
    "st-torch bfloat16",
    "st-openvino float32",
    "st-openvino bfloat16",
)


class System:
    """A child process, loaded and warm."""

    def __init__(self, name: str, model: Path, texts: Path, threads: int) -> None:
        python = str(PEERS) if name.startswith("st-") else sys.executable
        command = [python, str(HERE / "peers/encode_child.py"), name, str(model), str(texts), str(threads)]
        # An OpenMP that spins while it waits would take the core that another thread needs.
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        self.name, self.batch = name, 0
        print(f"{name}: starts", flush=True)
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.said: list[str] = []
        while (line := self._line()) != "ready":
            self.said.append(line)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return line.strip()

    def ask(self, order: str) -> str:
        """What it answers to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer = self._line()
        while order != "save" and not answer.replace(".", "").replace("e-", "").isdigit() and answer != "saved":
            answer = self._line()  # a library that talks
        return answer

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def mixed_texts(data: Path, count: int, tokenizer: Any, seed: int = 0) -> tuple[list[str], list[str]]:
    """(texts of mixed lengths, none twice; where each is from)."""
    rng = np.random.default_rng(seed)
    found: list[tuple[str, str]] = []
    for folder, file, column in bench.MIXED:
        values = pq.read_table(data / folder / f"{file}.parquet")[column].to_pylist()
        flat = [text for value in values for text in (value if isinstance(value, list) else [value]) if text]
        unique = sorted({_cut(text, tokenizer) for text in map(str, rng.permutation(flat)[: 3 * count])})
        found += [(unique[i], folder) for i in rng.permutation(len(unique))[: count // len(bench.MIXED)]]
    mixed = [found[i] for i in rng.permutation(len(found))]
    return [text for text, _ in mixed], [kind for _, kind in mixed]


def _cut(text: str, tokenizer: Any) -> str:
    made = tokenizer(text[: 12 * LONGEST], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = made["offset_mapping"]
    return text if len(offsets) <= LONGEST else text[: offsets[LONGEST - 1][1]]


def classifier(folder: Path, encoder: Path, texts: Sequence[str], labels: Sequence[str]) -> None:
    """The encoder with a linear head on its mean vectors, as a fine-tuned model's folder."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    from bizllm.models.encoder import Encoder
    from bizllm.models.network import PooledModel, save_network
    from bizllm.models.saved import ModelInfo, write_info

    vectors, _ = Encoder.load(encoder).encode_counted(list(texts))
    # Without a constant, so that the length of a vector decides nothing.
    fitted = LogisticRegression(C=10, max_iter=500, fit_intercept=False).fit(vectors, labels)
    network = PooledModel(AutoModel.from_pretrained(encoder), "mean", len(fitted.classes_))
    assert network.head is not None
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(fitted.coef_))
        network.head.bias.zero_()
    save_network(network, folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    info = ModelInfo("kinds", "classification", labels=tuple(fitted.classes_), pooling="mean", max_tokens=256)
    write_info(folder, info)


def matrix_rate(threads: int) -> Callable[[], float]:
    """GFLOP/s of a bfloat16 matrix product."""
    import torch

    torch.set_num_threads(threads)
    one, other = (torch.randn(2048, 2048).bfloat16() for _ in range(2))

    def measured() -> float:
        taken = []
        for _ in range(8):
            began = time.perf_counter()
            torch.mm(one, other)
            taken.append(time.perf_counter() - began)
        return 2 * 2048**3 / statistics.median(taken) / 1e9

    return measured


def full_rows(tokenizer: Any, texts: Sequence[str], count: int) -> list[str]:
    """Different texts of exactly 126 tokens, 128 with the special ones: one word each."""
    words = [word for word, i in tokenizer.get_vocab().items() if word.isalpha() and word.isascii() and i > 2_000]
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(words, 126)) for _ in range(count)]


def at_its_best(system: System, count: int) -> System:
    """The system, told its best batch size on the first texts; each is tried twice, the first time to warm up."""
    found = {}
    for batch in BATCHES:
        found[batch] = min(float(system.ask(f"first {count} {batch}")) for _ in range(2))
        print(f"{system.name}, batches of {batch}: {found[batch]:.2f} s for {count} texts", flush=True)
    system.batch = min(found, key=lambda batch: found[batch])
    return system


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    if "BIZLLM_DATA" not in os.environ or not PEERS.exists():
        print("set BIZLLM_DATA to the folder of the benchmark data, and run `make build/peers`", file=sys.stderr)
        return 2
    data, threads = Path(os.environ["BIZLLM_DATA"]), given.threads
    machine = bench.machine("torch", "transformers", "openvino", "nncf", "ray")
    from transformers import AutoTokenizer

    from bizllm.models.load import resolve

    encoder = resolve("builtin:minilm").folder
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        texts, _ = mixed_texts(data, given.texts, tokenizer)
        tokens = sum(map(len, tokenizer(texts)["input_ids"]))
        (folder / "texts.json").write_text(json.dumps(texts))
        full = full_rows(tokenizer, texts, 400)
        full_tokens = sum(map(len, tokenizer(full)["input_ids"]))
        (folder / "full.json").write_text(json.dumps(full))
        classifier(folder / "kinds", encoder, *mixed_texts(data, 1_000, tokenizer, seed=1))

        few = max(100, given.texts // 10)
        file = folder / "texts.json"
        systems = {name: at_its_best(System(name, encoder, file, threads), few) for name in PEER_SYSTEMS}
        systems["ray-data float32"] = System("ray-data float32", encoder, file, threads)
        systems["ray-data float32"].batch = systems["pipeline float32"].batch
        for name, model in (("encode", encoder), ("classify", folder / "kinds")):
            for precision in ("float32", "bfloat16", *(("int8",) if name == "classify" else ())):
                systems[f"ours {name} {precision}"] = System(f"ours {precision}", model, file, threads)
        systems["ours full rows"] = System("ours bfloat16", encoder, folder / "full.json", threads)
        chosen = {name: json.loads(system.said[-1]) for name, system in systems.items() if name.startswith("ours")}

        def rate(name: str) -> Callable[[], float]:
            read = full_tokens if name == "ours full rows" else tokens
            return lambda: read / float(systems[name].ask(f"go {systems[name].batch}"))

        measured = {**{name: rate(name) for name in systems}, "matrix product": matrix_rate(threads)}
        for name in systems:  # once to warm up
            systems[name].ask(f"first {few} {systems[name].batch}")
        rates = bench.in_turns(measured, given.rounds)
        outputs = {}
        for name, system in systems.items():
            if name.startswith(("ours", "st-")):
                system.ask(f"save {folder / 'said.npy'}")
                outputs[name] = np.load(folder / "said.npy")
        for system in systems.values():
            system.close()
        result = evaluated(rates, outputs, chosen, bench.flops_of_a_token(encoder, 128))
    result |= {"machine": machine, "threads": threads, "texts": len(texts), "tokens": tokens, "rounds": given.rounds}
    result["batch_sizes"] = {name: system.batch for name, system in systems.items() if system.batch}
    bench.write("encode", result, page(result), given.out)
    return 0


def evaluated(
    rates: dict[str, list[float]], outputs: dict[str, Any], chosen: dict[str, Any], flops: float
) -> dict[str, Any]:
    """The rates, how far outputs agree, and the bars."""
    exact = outputs["ours encode float32"]
    cosine = {
        name: float((vectors * exact).sum(1).min()) for name, vectors in outputs.items() if vectors.shape == exact.shape
    }
    labels = outputs["ours classify float32"].argmax(1)
    agree = {
        name: float((outputs[f"ours classify {name}"].argmax(1) == labels).mean()) for name in ("bfloat16", "int8")
    }
    share = statistics.median(
        rate * flops / 1e9 / peak for rate, peak in zip(rates["ours full rows"], rates["matrix product"], strict=True)
    )

    def over(ours: str, theirs: str) -> float:
        return statistics.median(bench.ratios(rates[ours], rates[theirs]))

    low, eight = "ours encode bfloat16", "ours classify int8"
    bars = [
        bench.bar("bfloat16 over pipeline (float32)", over(low, "pipeline float32"), 8),
        bench.bar("bfloat16 over pipeline (bfloat16)", over(low, "pipeline bfloat16"), 8),
        bench.bar("bfloat16 over sentence-transformers (torch, float32)", over(low, "st-torch float32"), 3.5),
        bench.bar("bfloat16 over sentence-transformers (torch, bfloat16)", over(low, "st-torch bfloat16"), 3.5),
        bench.bar("bfloat16 over sentence-transformers (OpenVINO, bfloat16)", over(low, "st-openvino bfloat16"), 1),
        bench.bar(
            "float32 over sentence-transformers (OpenVINO, float32)",
            over("ours encode float32", "st-openvino float32"),
            1,
        ),
        bench.bar("int8 over pipeline (float32)", over(eight, "pipeline float32"), 12),
        bench.bar("int8 over sentence-transformers (torch, float32)", over(eight, "st-torch float32"), 6),
        bench.bar("bfloat16: least cosine with float32", cosine[low], 0.9999),
        bench.bar("int8: labels as in float32", agree["int8"], 0.995),
        bench.bar("share of the matrix product's rate, full rows", share, 0.6),
    ]
    return {"rates": rates, "cosine": cosine, "labels": agree, "chosen": chosen, "bars": bars}


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    base = result["rates"]["pipeline float32"]
    rows = [
        [
            name,
            result["batch_sizes"].get(name, ""),
            bench.spread(rates),
            bench.times(bench.ratios(rates, base)),
            f"{result['cosine'][name]:.5f}" if name in result["cosine"] else "",
        ]
        for name, rates in result["rates"].items()
        if name not in ("matrix product", "ours full rows")
    ]
    head = ["system", "batch", "tokens/s", "over the pipeline", "least cosine with ours in float32"]
    choices = "\n".join(f"* {name}: {said['choice']}" for name, said in result["chosen"].items())
    return f"""# Encoding and classifying, beside others

{result["machine"]}.
{result["texts"]:,} texts of mixed lengths, {result["tokens"]:,} tokens, {result["threads"]} threads;
medians of {result["rounds"]} rounds in turns, with the least and the largest. How: benchmarks/encode.py.

{bench.table(head, rows)}

Full rows (128 tokens each): {bench.spread(result["rates"]["ours full rows"])} tokens/s; the matrix product reaches
{bench.spread(result["rates"]["matrix product"])} GFLOP/s. Labels as in float32:
bfloat16 {result["labels"]["bfloat16"]:.4f}, int8 {result["labels"]["int8"]:.4f}.

{bench.bars_table(result["bars"])}

What was chosen, on a sample of these texts:

{choices}
"""


if __name__ == "__main__":
    sys.exit(main())
