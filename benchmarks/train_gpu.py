"""The training loop on GPUs: `python benchmarks/train_gpu.py [--cases …] [--out FILE]`; prints JSON.

results/train_gpu.md has what one H200 gave; several GPUs, and offload, were not measured yet.

bf16 training of a BERT-large-shaped classifier and of GPT-shaped language models of 1.3 and 2.7 billion parameters, of
random weights and random tokens of one length, through `bizllm.train.loop` by torchrun: no Ray, data or network.
Tokens a second after a warm-up, model FLOPs utilization, and memory of the first worker, by ZeRO stage and offload.

MFU (Chowdhery et al. 2022, appendix B): 6 operations a parameter and token, and for attention 12 × layers × width ×
length, over the device's dense bf16 peak. What gradient checkpointing computes again does not count, nor do embeddings
that are only looked up. With one GPU a stage shards nothing: stages then show their cost, and offload what it saves.
Needs torch, transformers, pyarrow, pydantic, scikit-learn and deepspeed; offload compiles DeepSpeed's CPUAdam. A case
that fails is told with its error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bench
import numpy as np
import pyarrow as pa
import torch
from training import machine, random_bert, random_gpt, torchrun

from bizllm.models.saved import ModelInfo
from bizllm.train.recipe import Recipe
from bizllm.train.work import Work

# Dense bf16 operations a second, as the makers tell.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "bert-large": (
        "classification",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "gpt-1.3b": ("causal_lm", {"n_embd": 2048, "n_layer": 24, "n_head": 16, "n_positions": 1024}),
    "gpt-2.7b": ("causal_lm", {"n_embd": 2560, "n_layer": 32, "n_head": 32, "n_positions": 1024}),
}
TINY: dict[str, dict[str, int]] = {
    "bert-large": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 500,
    },
    "gpt-1.3b": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 500},
    "gpt-2.7b": {"n_embd": 96, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 500},
}


@dataclass(frozen=True)
class Case:
    """rows, tokens: of a step over all workers, and of a row."""

    model: str
    stage: int
    offload: str
    checkpointing: bool
    rows: int
    tokens: int

    @property
    def name(self) -> str:
        """bert-large/stage2-cpu."""
        return f"{self.model}/stage{self.stage}" + ("" if self.offload == "none" else f"-{self.offload}")


CASES = [
    *(Case("bert-large", stage, "none", False, 128, 256) for stage in (0, 1, 2, 3)),
    Case("bert-large", 2, "cpu", False, 128, 256),
    *(Case("gpt-1.3b", stage, "none", True, 16, 1024) for stage in (0, 1, 2, 3)),
    Case("gpt-1.3b", 2, "cpu", True, 16, 1024),
    Case("gpt-1.3b", 3, "cpu", True, 16, 1024),
    Case("gpt-2.7b", 1, "none", True, 8, 1024),
    Case("gpt-2.7b", 2, "cpu", True, 8, 1024),
]


def worker(folder: Path, warm_up: int) -> None:
    """Train the work folder without validation and checkpoints; rank 0 writes what it measured."""
    import resource

    from bizllm.train import loop, plain

    plain.open_group()
    training = loop._Training(Work.load(folder), plain.PlainHost(folder))
    step, marks = training._step, []

    def timed(number: int, rows: Any) -> None:
        step(number, rows)
        if number + 1 in (warm_up, training.steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append((time.perf_counter(), training.tokens))

    training._step = timed  # type: ignore[method-assign]  # a clock around it
    # A checkpoint of billions of parameters says nothing of speed, and fills the disk.
    training._validated = lambda _: False  # type: ignore[method-assign,assignment,return-value]
    training.run()
    (began, before), (ended, after) = marks
    spent = ended - began
    found = {"tokens_per_s": (after - before) / spent, "seconds_per_step": spent / (training.steps - warm_up)}
    if torch.cuda.is_available():
        found["gpu_allocated_mb"] = torch.cuda.max_memory_allocated() / 1e6
        found["gpu_reserved_mb"] = torch.cuda.max_memory_reserved() / 1e6
    found["resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if training.host.rank == 0:
        (folder / "measured.json").write_text(json.dumps(found))


def frozen(folder: Path, base: Path, case: Case, words: int, steps: int) -> Work:
    """A work folder of random tokens, as the driver of a training writes it."""
    objective = SHAPES[case.model][0]
    recipe = Recipe.model_validate(
        {
            "name": "gpu",
            "base": f"path:{base}",
            "objective": objective,
            "data": {"train": {"path": "-", "text": "text", "label": "label"}},
            "optim": {
                "lr": 1e-4,
                "epochs": 1,
                "batch": case.rows,
                "warmup": 0.0,
                "gradient_checkpointing": case.checkpointing,
            },
            "stop": {"every": 10**9},
            "zero": {"stage": case.stage, "offload": case.offload, "precision": "bf16"},
            "packing": False,
        }
    )
    classes = objective == "classification"
    labels = ("a", "b") if classes else ()
    info = ModelInfo("gpu", objective, labels, "mean" if classes else "native", max_tokens=case.tokens)
    work = Work(folder, recipe, info, base)
    work.save()
    count = case.rows * steps
    ids = np.random.default_rng(0).integers(1, words, (count, case.tokens), dtype=np.int32).tolist()
    numbers = pa.list_(pa.int32())
    columns: dict[str, pa.Array] = {"input_ids": pa.array(ids, numbers), "cut": pa.array([False] * count)}
    if classes:
        columns["target"] = pa.array(np.arange(count, dtype=np.int32) % 2)
    else:
        columns["target"] = pa.array([[*row[1:], -100] for row in ids], numbers)
        columns["parts"] = pa.array([[case.tokens]] * count, numbers)
    work.write("train", pa.table(columns))
    return work


def measure(
    scratch: Path, base: Path, case: Case, workers: int, steps: int, warm_up: int, tiny: bool
) -> dict[str, Any]:
    """One case: its figures, or why it failed."""
    from bizllm.train import memory

    shape = {**SHAPES[case.model][1], **(TINY[case.model] if tiny else {})}
    folder = scratch / case.name.replace("/", "-")
    work = frozen(folder, base, case, shape.get("vocab_size", 30_000), steps)
    counted = memory.shape_of(work)
    said = {**asdict(case), "parameters": counted.parameters, "workers": workers}
    try:
        arguments = [__file__, "--worker", str(folder), "--warm-up", str(warm_up)]
        torchrun(arguments, workers, folder / "run.log", threads=1 if tiny else 8)
    except RuntimeError as error:
        return {**said, "failed": str(error)[:3000]}
    found = json.loads((folder / "measured.json").read_text())
    shutil.rmtree(folder)
    looked_up = counted.vocabulary * counted.hidden if SHAPES[case.model][0] == "classification" else 0
    operations = 6 * (counted.parameters - looked_up) + 12 * counted.layers * counted.hidden * case.tokens
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    mfu = found["tokens_per_s"] * operations / (peak * workers) if peak else None
    return {**said, **found, "operations_per_token": operations, "mfu": mfu}


def page(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    head = ["case", "rows × tokens a step", "checkpointing", "tokens/s", "s/step", "MFU", "GB allocated"]
    rows = [
        [
            name,
            f"{found['rows']} × {found['tokens']}",
            "yes" if found["checkpointing"] else "no",
            f"{found['tokens_per_s']:,.0f}",
            f"{found['seconds_per_step']:.3f}",
            f"{found['mfu']:.1%}" if found["mfu"] else "",
            f"{found.get('gpu_allocated_mb', 0) / 1e3:.1f}",
        ]
        for name, found in report["cases"].items()
        if "tokens_per_s" in found
    ]
    what = f"{report['device']}, {report['machine']}. How: benchmarks/train_gpu.py."
    return f"# Training on a GPU\n\n{what}\n\n{bench.table(head, rows)}\n"


def main() -> None:
    """Run the cases; or be one worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES], choices=[c.name for c in CASES])
    parser.add_argument("--workers", type=int, default=max(1, torch.cuda.device_count()))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see on a CPU that it runs")
    parser.add_argument("--out", type=Path, help="a JSON file, too")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.warm_up)
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    report: dict[str, Any] = {"machine": machine(), "device": device, "tiny": given.tiny, "cases": {}}
    with tempfile.TemporaryDirectory(prefix="bizllm-bench-") as temporary:
        scratch = Path(temporary)
        bases: dict[str, Path] = {}
        for case in CASES:
            if case.name not in given.cases or (case.offload != "none" and not torch.cuda.is_available()):
                continue  # a CPU has no GPU memory to spare
            asked = Case(case.model, case.stage, case.offload, case.checkpointing, 4, 32) if given.tiny else case
            if case.model not in bases:
                for other in bases.values():
                    shutil.rmtree(other)
                objective, shape = SHAPES[case.model]
                made = random_bert if objective == "classification" else random_gpt
                shape = {**shape, **(TINY[case.model] if given.tiny else {})}
                bases = {case.model: made(scratch / case.model, half=True, **shape)}
            found = report["cases"][case.name] = measure(
                scratch, bases[case.model], asked, given.workers, given.steps, given.warm_up, given.tiny
            )
            print(case.name, json.dumps(found), file=sys.stderr, flush=True)
            if given.out:
                given.out.write_text(json.dumps(report, indent=1) + "\n")
                given.out.with_suffix(".md").write_text(page(report))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
