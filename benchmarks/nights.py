"""Whole nights beside the bare engine loop, the same night with 1 % changed rows, and without reuse.

    python benchmarks/nights.py [--rows 100000] [--only embed light]

*embed*: the built-in encoder over short questions made of words (about 20 tokens each), as `bizllm run` in a process
of its own with a Ray of its own. The bare loop encodes the same texts in one process with the same engine on all
threads, with no reading and writing; its seconds are those of encoding alone. The night's seconds are those of its
step, from freezing to the commit, and those of the whole command.

*light*: `summarize` without a model, whose rows cost microseconds: there the price of reuse (hashing all rows in a
second reading, and matching) shows, so that the full night is run without `reuse`, too.

The start is what a night of 100 rows takes. Writes benchmarks/results/nights.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

NIGHT, NEXT = "2026-03-10", "2026-03-11"
TASKS: dict[str, dict[str, Any]] = {
    "embed": {"task": "embed", "model": "builtin:minilm"},
    "light": {"task": "summarize", "max_sentences": 1},
}


class Shop:
    """A job over questions of two days, of which the second has changed a share of the first's."""

    def __init__(self, folder: Path, rows: int, task: str, reuse: bool = True) -> None:
        self.folder = folder
        self.body = bench.questions(rows)
        said = {
            "name": "shop",
            "warehouse": {"path": "wh"},
            "sources": {"questions": {"path": "questions", "key": ["id"], "partition": "dt"}},
            "steps": {"answer": {"input": "questions", "text": "body", "reuse": reuse, **TASKS[task]}},
            "runtime": {"num_cpus": os.cpu_count(), "object_store_mb": 500},
        }
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(yaml.safe_dump(said))
        self._write(NIGHT)

    def change(self, share: float) -> None:
        """Write the second day: every row as it was, but for a share of them."""
        step = int(1 / share)
        for i in range(0, len(self.body), step):
            self.body[i] = f"changed {self.body[i]}"
        self._write(NEXT)

    def _write(self, day: str) -> None:
        place = self.folder / f"questions/dt={day}"
        place.mkdir(parents=True)
        rows = pa.table({"id": range(len(self.body)), "body": self.body})
        pq.write_table(rows, place / "a.parquet", row_group_size=max(100, len(self.body) // 5))

    def run(self, day: str, *more: str) -> dict[str, Any]:
        """One night: what its step says, and the seconds of the whole command."""
        job = str(self.folder / "job.yaml")
        command = [sys.executable, "-m", "bizllm.cli", "run", job, "--date", day, "--json", *more]
        began = time.perf_counter()
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        whole = time.perf_counter() - began
        (step,) = json.loads(told.stdout)["steps"]
        assert step["state"] == "done", step
        names = ("rows_out", "rows_reused", "tokens", "seconds", "engine")
        found = {name: step[name] for name in names} | {"command_s": round(whole, 1)}
        print(day, found, flush=True)
        return found


def bare(folder: Path, body: list[str], processes: int) -> float:
    """Seconds of the engine loop over the same texts, with the engine that the nights chose, shared by so many
    processes at once, and all threads by them."""
    script = Path(__file__).parent / "peers/bare_loop.py"
    file = folder / "texts.json"
    file.write_text(json.dumps(body))
    kept = next((folder / "wh/_bizllm/shop/engines/answer").glob("*/choice.json"), None)
    threads = max(1, (os.cpu_count() or 1) // processes)
    command = [sys.executable, str(script), str(file), str(kept.parent if kept else ""), str(threads)]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(
            [*command, str(part), str(processes)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for part in range(processes)
    ]
    return max(float(process.communicate()[0].split()[-1]) for process in running)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    machine = bench.machine("torch", "openvino", "ray")
    found: dict[str, Any] = {}
    bars = []
    for task in given.only:
        with tempfile.TemporaryDirectory() as place:
            # The second of two: the first also waits for files that no process read since the machine began.
            _, start = (Shop(Path(place) / f"start{i}", 100, task).run(NIGHT) for i in range(2))
            shop = Shop(Path(place) / "shop", given.rows, task)
            chosen = shop.run(NIGHT) if task == "embed" else None  # chooses the engine, once in a model's life
            full = shop.run(NIGHT, "--fresh")
            shop.change(0.01)
            second = shop.run(NEXT)
            plain = Shop(Path(place) / "plain", given.rows, task, reuse=False).run(NIGHT) if task == "light" else None
            found[task] = {
                "start": start,
                "full": full,
                "full, and the engine chosen": chosen,
                "second": second,
                "without_reuse": plain,
            }
            if task == "embed":
                loop, two = (bare(shop.folder, bench.questions(given.rows), processes) for processes in (1, 2))
                found[task] |= {"bare_s": round(loop, 2), "two_bare_s": round(two, 2)}
                bars += [
                    bench.bar("rows/s of the whole step over the bare engine loop", loop / full["seconds"], 0.85),
                    bench.bar("rows/s of the whole step over two bare processes", two / full["seconds"], 0.9),
                ]
            share = (second["seconds"] - start["seconds"]) / (full["seconds"] - start["seconds"])
            bars.append(bench.bar(f"{task}: full night over a night with 1 % changed rows", 1 / max(share, 1e-9), 20))
    result = {"machine": machine, "rows": given.rows, "nights": found, "bars": bars}
    bench.write("nights", result, page(result), given.out)
    return 0


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        [
            task,
            night,
            f"{told['rows_out']:,}",
            f"{told['rows_reused']:,}",
            f"{told['tokens']:,}",
            told["seconds"],
            told["command_s"],
        ]
        for task, nights in result["nights"].items()
        for night, told in nights.items()
        if isinstance(told, dict)
    ]
    loops = [
        f"The bare engine loop over the same texts: {n['bare_s']} s; as two processes of half the threads each, which"
        f" is how two workers of the night read them: {n['two_bare_s']} s."
        for n in result["nights"].values()
        if "bare_s" in n
    ]
    engines = {n["full"]["engine"] for n in result["nights"].values() if n["full"]["engine"]}
    head = ["task", "night", "rows", "copied", "tokens", "step, s", "command, s"]
    return f"""# Whole nights

{result["machine"]}.
{result["rows"]:,} rows. How: benchmarks/nights.py.

{bench.table(head, rows)}

{" ".join(loops)} {"; ".join(engines)}

{bench.bars_table(result["bars"])}
"""


if __name__ == "__main__":
    sys.exit(main())
