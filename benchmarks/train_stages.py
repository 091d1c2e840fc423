"""What exchanging state costs on one machine's CPUs: `BIZLLM_DATA=… python benchmarks/train_stages.py`.

A quarter of an epoch of full fine-tuning of the built-in MiniLM on Banking77's train (rows of some 15 tokens, 32 a
step), by workers and ZeRO stage, with and without huge pages (`plain.HUGE_PAGES`). Tokens/s are medians over windows
of ten steps; memory is the first worker's peak. Takes turns, so that a slow minute does not fall on one case.
Writes benchmarks/results/train_stages.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from training import measured, place, steady_rate, torchrun

from bizllm.train import zero
from bizllm.train.frozen import freeze
from bizllm.train.plain import HUGE_PAGES
from bizllm.train.prepare import prepare
from bizllm.train.recipe import Recipe

RESULTS = Path(__file__).parent / "results"
CASES = [(workers, stage, pages) for workers in (1, 2) for stage in (0, 1, 2, 3) for pages in ("huge", "of 4 kB")]


def work_folder(folder: Path, stage: int, epochs: float) -> Path:
    """The frozen input of a case."""
    train = Path(os.environ["BIZLLM_DATA"]) / "banking77/train.parquet"
    said = {
        "name": "bench",
        "base": "builtin:minilm",
        "objective": "classification",
        "data": {"train": {"path": str(train), "text": "text", "label": "intent"}, "drop_overlap": "none"},
        "optim": {"epochs": epochs, "batch": 32},
        "stop": {"every": 10**9},
        "zero": {"stage": stage},
        "output": str(folder),
        "promote": None,
    }
    work, _ = freeze(prepare(Recipe.model_validate(said), place, zero.device_name()), folder / "work", place)
    return work.folder


def once(work: Path, workers: int, pages: str) -> tuple[float, float]:
    """(tokens a second of all workers, MB of the first one)."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "metrics.jsonl").unlink(missing_ok=True)
    setting = {HUGE_PAGES[0]: "1" if pages == "huge" else "0"}
    threads = max(1, (os.cpu_count() or 1) // workers)
    torchrun(["-m", "bizllm.train.plain", str(work)], workers, work.with_name("run.log"), threads, **setting)
    return steady_rate(work / "metrics.jsonl"), json.loads((work / "summary.json").read_text())["memory_mb"]


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# Training on one machine's CPUs: workers, stages, pages",
        "",
        f"{report['measured']}, {report['machine']}, load {report['load_before']} before. {report['rounds']} rounds, "
        "medians. Full fine-tuning of 22M parameters, short rows, 32 a step; all CPUs are used, as threads of one "
        "worker or one each.",
        "",
        "| workers | ZeRO stage | pages | tokens/s | MB of a worker |",
        "|---|---|---|---|---|",
    ]
    for row in report["cases"]:
        cells = (row["workers"], row["stage"], row["pages"], f"{row['tokens_per_s']:,.0f}", f"{row['memory_mb']:,.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all cases in turn and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=0.25)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    report: dict[str, Any] = {**measured(), "rounds": given.rounds}
    found: dict[tuple[int, int, str], list[tuple[float, float]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="bizllm-bench-") as scratch:
        works = {stage: work_folder(Path(scratch) / f"zero{stage}", stage, given.epochs) for _, stage, _ in CASES}
        for _ in range(given.rounds):
            for workers, stage, pages in CASES:
                found[workers, stage, pages].append(once(works[stage], workers, pages))
                print(workers, stage, pages, found[workers, stage, pages][-1], flush=True)
    report["cases"] = []
    for (workers, stage, pages), seen in found.items():
        rate, memory = np.median(seen, axis=0)
        case = {"workers": workers, "stage": stage, "pages": pages}
        report["cases"].append({**case, "tokens_per_s": float(rate), "memory_mb": float(memory), "rounds": seen})
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "train_stages.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.out / "train_stages.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
