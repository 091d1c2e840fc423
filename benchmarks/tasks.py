"""What the tasks are worth on real data, beside an honest baseline and the published figure: `make bench-tasks`.

    BIZLLM_DATA=... python benchmarks/tasks.py [--only answer …]      writes benchmarks/results/tasks.json and .md

Each task learns and answers as on a night, without Ray; a module of benchmarks/measured/ for each, which says what its
baselines are. With --only the figures of the others stay as they were measured before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import bench
import measured

NAMES = sorted(module.name for module in iter_modules(measured.__path__))


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    data = Path(os.environ["BIZLLM_DATA"])
    before = given.out / "tasks.json"
    tasks: dict[str, Any] = json.loads(before.read_text())["tasks"] if before.exists() else {}
    for name in given.only:
        tasks[name] = measure(name, data)
    tasks = {name: tasks[name] for name in NAMES if name in tasks}
    bars = [bar for found in tasks.values() for bar in found["bars"]]
    bench.write("tasks", {"tasks": tasks, "bars": bars}, page(tasks, bars), given.out)
    return 0


def measure(name: str, data: Path) -> dict[str, Any]:
    """One task's figures, with the machine and the time."""
    module = importlib.import_module(f"measured.{name}")
    machine = bench.machine("torch", "scikit-learn")
    began = time.perf_counter()
    lines = module.lines(data)
    return {
        "machine": machine,
        "seconds": round(time.perf_counter() - began, 1),
        "lines": [asdict(line) for line in lines],
        "bars": module.bars(lines) if hasattr(module, "bars") else [],
        "remarks": getattr(module, "REMARKS", ""),
    }


def page(tasks: Mapping[str, Any], bars: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    parts = [
        "# Tasks on real data",
        "How: benchmarks/tasks.py; benchmarks/measured/ says what the baselines are. Bold: better than the best.",
        bench.bars_table(bars),
    ]
    for name, found in tasks.items():
        rows = [
            [
                line["data"],
                line["metric"],
                f"**{line['ours']:.3f}**" if _better(line) else f"{line['ours']:.3f}",
                f"{line['baseline']:.3f} ({line['against']})",
                line["published"],
                line["note"],
            ]
            for line in found["lines"]
        ]
        head = ["data", "metric", "ours", "best baseline", "published", "note"]
        parts += [f"## {name}", f"{found['machine']}; {found['seconds']:,.0f} s.", bench.table(head, rows)]
        parts += [found["remarks"]] if found["remarks"] else []
    return "\n\n".join(parts)


def _better(line: Mapping[str, Any]) -> bool:
    ahead: bool = line["ours"] < line["baseline"] if line["less_is_better"] else line["ours"] > line["baseline"]
    return ahead


if __name__ == "__main__":
    sys.exit(main())
