"""Five labels on one text beside one: `python benchmarks/fused.py [--rows 50000]`.

Five `classify` steps, each a head of its own on the built-in encoder, read the same questions (about 20 tokens each, as
in benchmarks/nights.py): the first computes the vectors, the others put their heads on what it kept. Beside it a night
of one such step. Both are whole `bizllm run`s, in turns; the engine is chosen in a
night before, which is not timed. Seconds are those of the steps, from freezing to the commit, one after the other.
Writes benchmarks/results/fused.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

NIGHT = "2026-03-10"
LABELS = 5


def head(folder: Path, number: int) -> Path:
    """A classifier of five classes: the built-in encoder and a head of random weights."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from bizllm.models.load import resolve
    from bizllm.models.network import PooledModel, save_network
    from bizllm.models.saved import ModelInfo, write_info

    base = resolve("builtin:minilm").folder
    torch.manual_seed(number)
    save_network(PooledModel(AutoModel.from_pretrained(base), "mean", 5), folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    labels = tuple(f"{number}-{i}" for i in range(5))
    write_info(folder, ModelInfo(f"head{number}", "classification", labels, pooling="mean", max_tokens=256))
    return folder


def write(folder: Path, rows: int, models: list[Path]) -> Path:
    """The job and its data."""
    place = folder / f"questions/dt={NIGHT}"
    place.mkdir(parents=True)
    table = pa.table({"id": range(rows), "body": bench.questions(rows)})
    pq.write_table(table, place / "a.parquet", row_group_size=max(100, rows // 5))
    said = {
        "name": "shop",
        "warehouse": {"path": "wh"},
        "sources": {"questions": {"path": "questions", "key": ["id"], "partition": "dt"}},
        "steps": {
            model.name: {"task": "classify", "input": "questions", "text": "body", "model": f"path:{model}"}
            for model in models
        },
        "runtime": {"num_cpus": os.cpu_count(), "object_store_mb": 500},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    return folder / "job.yaml"


def run(job: Path) -> list[dict[str, Any]]:
    """A night from the beginning, with no vectors kept: what its steps say."""
    for kept in (job.parent / "wh/_bizllm/shop/vectors").rglob("*.arrow"):
        kept.unlink()
    command = [sys.executable, "-m", "bizllm.cli", "run", str(job), "--date", NIGHT, "--json", "--fresh"]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    steps: list[dict[str, Any]] = json.loads(told.stdout)["steps"]
    assert all(step["state"] == "done" for step in steps), steps
    for step in steps:
        print(f"{step['step']}: {step['seconds']:.1f} s, {step['engine']}", flush=True)
    return steps


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    machine = bench.machine("torch", "openvino", "ray")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        models = [head(folder / f"head{number}", number) for number in range(LABELS)]
        jobs = {
            "one": write(folder / "one", given.rows, models[:1]),
            "five": write(folder / "five", given.rows, models),
        }
        for job in jobs.values():
            run(job)
        said: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in jobs}

        def night(name: str) -> float:
            said[name].append(run(jobs[name]))
            return float(sum(step["seconds"] for step in said[name][-1]))

        seconds = bench.in_turns({name: lambda name=name: night(name) for name in jobs}, given.rounds)  # type: ignore[misc]
    over = bench.ratios(seconds["five"], seconds["one"])
    followers = [statistics.median(s[i]["seconds"] for s in said["five"]) for i in range(LABELS)]
    bars = [
        bench.bar("one label over a fifth of five, unfused 1, all for one 5", LABELS / statistics.median(over), 5 / 1.3)
    ]
    result = {"machine": machine, "rows": given.rows, "seconds": seconds, "steps_s": followers, "bars": bars}
    text = f"""# Five labels on one text

{machine}.
{given.rows:,} rows, medians of {given.rounds} rounds in turns, with the least and the largest.
How: benchmarks/fused.py.

{bench.table(["night", "steps, s"], [[name, bench.spread(took, 1)] for name, took in seconds.items()])}

Five labels cost {bench.times(over)} what one costs; the bar is 1.3×, and five steps that share nothing cost 5×.
Steps of the five, in order: {", ".join(f"{took:.1f} s" for took in followers)}; {said["five"][-1][-1]["engine"]}.

{bench.bars_table(bars)}
"""
    bench.write("fused", result, text, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
