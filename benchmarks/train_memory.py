"""Memory of a training worker by ZeRO stage, and what checkpoints cost: `python benchmarks/train_memory.py`.

A BERT-base shape (110M parameters) with random weights, two gloo workers, a few steps of 16 rows of 64 tokens. The
kernel tells the most resident memory of each worker, over building the engine (weights stand twice for a moment) and
over the steps. What the process takes without a model is the same run with a model of 0.2M parameters: the difference
is held against `bizllm.train.memory`'s estimate, which `bizllm plan` tells.

Checkpoints: full fine-tuning of the built-in MiniLM on Banking77's train (BIZLLM_DATA), a checkpoint an epoch, without
Ray: seconds in which training waits for the best weights and the shards to be written, as a share of all. Under Ray
Train the upload goes on beside the training; the writing is the same. Writes results/train_memory.json and .md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from training import WORKERS, measured, place, random_bert, torchrun

RESULTS = Path(__file__).parent / "results"
BERT_BASE: dict[str, int] = {}  # transformers' defaults are its shape
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1_000,
}
ROWS, TOKENS = 16, 64  # of a step, of a row


# -- what a worker does -------------------------------------------------------------------------------------------


def worker(folder: Path) -> None:
    """Train the work folder; this process's memory and its waits for checkpoints go to the folder."""
    from bizllm.train import checkpoint, loop, plain
    from bizllm.train.work import Work

    plain.open_group()
    host = plain.PlainHost(folder)
    waits: list[float] = []
    for owner, name in (
        (checkpoint, "trainable"),
        (checkpoint, "save_weights"),
        (checkpoint, "save"),
        (host, "keep"),
        (host, "save"),
    ):
        setattr(owner, name, clocked(getattr(owner, name), waits))
    training = loop._Training(Work.load(folder), host)
    opened: dict[str, float] = {}
    step = training._step

    def first(number: int, rows: Any) -> None:
        if not opened:
            gc.collect()
            opened["built_peak"] = status_mb("VmHWM")
            forget_peak()
        step(number, rows)

    training._step = first  # type: ignore[method-assign]  # memory is looked at between building and the first step
    forget_peak()
    summary = training.run()
    steps_peak = status_mb("VmHWM")
    found = {
        "peak_mb": max(opened["built_peak"], steps_peak),
        "steps_peak_mb": steps_peak,
        "after_mb": status_mb("VmRSS"),
        "seconds": summary.seconds,
        "waits_s": sum(waits),
        "checkpoints": summary.steps // training.every or 1,
        "steps": summary.steps,
    }
    (folder / f"memory.{host.rank}.json").write_text(json.dumps(found))


def clocked(function: Callable[..., Any], waits: list[float]) -> Callable[..., Any]:
    """The function; its seconds are noted."""

    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments, **named)
        waits.append(time.perf_counter() - began)
        return result

    return timed


def status_mb(name: str) -> float:
    """VmRSS (resident now) or VmHWM (the most since `forget_peak`) of this process, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Let the kernel count the most resident memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


# -- the driver ---------------------------------------------------------------------------------------------------


def frozen(folder: Path, said: dict[str, Any]) -> Any:
    """The work folder of a recipe."""
    from bizllm.train.frozen import freeze
    from bizllm.train.prepare import prepare
    from bizllm.train.recipe import Recipe

    recipe = Recipe.model_validate({"name": "memory", "objective": "classification", "promote": None, **said})
    return freeze(prepare(recipe, place, "cpu"), folder, place)[0]


def stage_run(scratch: Path, base: Path, vocabulary: int, stage: int, steps: int, precision: str) -> dict[str, Any]:
    """Memory of the workers at one stage, beside the estimate."""
    from bizllm.train import memory

    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, row)) for row in rng.integers(1, vocabulary, (ROWS * steps, TOKENS))]
    table = scratch / "rows.parquet"
    pq.write_table(pa.table({"text": texts, "label": np.arange(len(texts)) % 2}), table)
    folder = scratch / f"stage{stage}"
    data = {"train": {"path": str(table), "text": "text", "label": "label"}, "validation": {"path": str(table)}}
    work = frozen(
        folder,
        {
            "base": f"path:{base}",
            "pooling": "mean",
            "data": {**data, "drop_overlap": "none"},
            "optim": {"epochs": 1, "batch": ROWS},
            "stop": {"every": 10**9},
            "zero": {"stage": stage, "precision": precision},
            "output": str(scratch),
        },
    )
    shape = memory.shape_of(work)
    estimated = memory.estimates(work, shape, WORKERS, ROWS // WORKERS * TOKENS, work.recipe.zero.precision, "cpu")
    told = next(one.mb for one in estimated if one.chosen)
    torchrun([__file__, "--worker", str(folder)], WORKERS, folder / "run.log")
    workers = [json.loads((folder / f"memory.{rank}.json").read_text()) for rank in range(WORKERS)]
    shutil.rmtree(folder)
    found = {name: max(one[name] for one in workers) for name in ("peak_mb", "steps_peak_mb", "after_mb")}
    estimate = {"estimate_mb": told, "estimated_process_mb": memory.PROCESS_MB}
    return {"parameters": shape.parameters, **estimate, **found, "workers": workers}


def checkpoint_run(scratch: Path, rows: int | None, epochs: float) -> dict[str, Any]:
    """Seconds that training waits for checkpoints, of Banking77's train and a checkpoint an epoch."""
    table = pq.read_table(Path(os.environ["BIZLLM_DATA"]) / "banking77" / "train.parquet")
    if rows is not None:
        table = table.take(np.random.default_rng(0).permutation(len(table))[:rows])
    path = scratch / "banking77.parquet"
    pq.write_table(table, path)
    folder = scratch / "checkpoints"
    frozen(
        folder,
        {
            "base": "builtin:minilm",
            "data": {"train": {"path": str(path), "text": "text", "label": "intent"}},
            "optim": {"lr": 1e-4, "epochs": epochs, "batch": 32},
            "output": str(scratch),
        },
    )
    torchrun([__file__, "--worker", str(folder)], WORKERS, folder / "run.log")
    found = json.loads((folder / "memory.0.json").read_text())
    shutil.rmtree(folder)
    return {**found, "share": found["waits_s"] / found["seconds"], "rows": len(table)}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    stages, waits = report["stages"], report.get("checkpoints")
    lines = ["# Training: memory and checkpoints", ""]
    lines += [f"{report['measured']}, {report['machine']}, load {report['load_before']} before.", ""]
    if stages:
        whole = next(iter(stages.values()))
        lines += [
            f"{whole['parameters'] / 1e6:.0f}M parameters with Adam, {report['precision']}, {WORKERS} workers, {ROWS} "
            f"rows of {TOKENS} tokens a step. MB of a worker, of the one with more. `model`: what the same run with a "
            "model of next to nothing takes is subtracted, of the estimate "
            f"{whole['estimated_process_mb']:,.0f} MB.",
            "",
            "| stage | peak | peak of the steps | estimate | model, peak | model, steps | model, estimate |",
            "|---|---|---|---|---|---|---|",
        ]
        for stage, s in stages.items():
            empty = report["without_model"][stage]
            model = [s[name] - empty[name] for name in ("peak_mb", "steps_peak_mb")]
            cells = [s["peak_mb"], s["steps_peak_mb"], s["estimate_mb"], *model]
            shown = " | ".join(f"{cell:,.0f}" for cell in [*cells, s["estimate_mb"] - s["estimated_process_mb"]])
            lines.append(f"| {stage} | {shown} |")
        lines.append("")
    if waits:
        lines += [
            f"Checkpoints: {waits['checkpoints']} in {waits['steps']:,} steps of {waits['rows']:,} rows an epoch; "
            f"training waits {waits['waits_s']:.2f} s of {waits['seconds']:.0f} s for them: {waits['share']:.2%}.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the results; or be one worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="*", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--epochs", type=float, default=2.0, help="of the checkpoints' training; 0 leaves it out")
    parser.add_argument("--rows", type=int, help="of the checkpoints' training; all by default")
    parser.add_argument("--tiny", action="store_true", help="a small shape, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker)
        return
    report: dict[str, Any] = {**measured(), "precision": given.precision}
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bizllm-bench-") as temporary:
        scratch = Path(temporary)
        shape = TINY if given.tiny else BERT_BASE
        for key, one in (("without_model", TINY), ("stages", shape)):
            base, words = random_bert(scratch / key, **one), one.get("vocab_size", 30_522)
            report[key] = {}
            for stage in given.stages:
                found = stage_run(scratch, base, words, stage, given.steps, given.precision)
                report[key][str(stage)] = found
                print(key, stage, {k: v for k, v in found.items() if k != "workers"}, flush=True)
        if given.epochs:
            report["checkpoints"] = checkpoint_run(scratch, given.rows, given.epochs)
    (given.out / "train_memory.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.out / "train_memory.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
