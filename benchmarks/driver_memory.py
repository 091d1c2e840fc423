"""The driver's memory at 1, 10 and 100 times the rows: it holds receipts and counts, never rows.

    python benchmarks/driver_memory.py [--rows 5000] [--out benchmarks/results]

A night of `summarize` over short made-up texts, in units of `--rows` rows, each as `bizllm run` in a process of its own
with a Ray of its own. Peak resident memory is the kernel's (VmHWM), of the driver alone and of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

NIGHT = "2026-03-10"
TEXT = "Parcel {} came late on day {}. The box was wet. I want my money back. Please call me on Monday."


def job(folder: Path, rows: int, unit: int) -> Path:
    """A job file over `rows` tickets, each of its own text."""
    with pq.ParquetWriter(folder / "tickets.parquet", pa.schema([("id", pa.int64()), ("body", pa.string())])) as writer:
        for start in range(0, rows, unit):
            ids = range(start, min(rows, start + unit))
            writer.write_table(pa.table({"id": ids, "body": [TEXT.format(i, i % 30) for i in ids]}, writer.schema))
    said = {
        "name": "memory",
        "warehouse": {"path": "wh"},
        "sources": {"tickets": {"path": "tickets.parquet", "key": ["id"]}},
        "steps": {"summary": {"task": "summarize", "input": "tickets", "text": "body", "max_sentences": 1}},
        "runtime": {"num_cpus": 2, "object_store_mb": 300, "unit_rows": unit},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(said))
    return path


def peak_mb(pid: int) -> float:
    """What the process had at most so far; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), 0.0)


def measure(rows: int, unit: int) -> dict[str, Any]:
    """One night: rows, units, the driver's peak in MB, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = job(Path(folder), rows, unit)
        command = [sys.executable, "-m", "bizllm.cli", "run", str(path), "--date", NIGHT, "--json"]
        began, peak = time.perf_counter(), 0.0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
            while run.poll() is None:
                peak = max(peak, peak_mb(run.pid))
                time.sleep(0.1)
            said = json.loads(run.stdout.read() if run.stdout else "{}")
        (step,) = said["steps"]
        assert step["rows_out"] == rows, said
        seconds = round(time.perf_counter() - began, 1)
        return {"rows": rows, "units": -(-rows // unit), "driver_peak_mb": round(peak), "seconds": seconds}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    found = []
    for times in (1, 10, 100):
        found.append(measure(given.rows * times, given.rows))
        print(found[-1], flush=True)
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    )
    growth = found[-1]["driver_peak_mb"] / found[0]["driver_peak_mb"]
    lines = [
        "# The driver's memory",
        "",
        f"{machine}: peak resident memory of the driver; at 100 times the rows {growth:.2f} times that of the first.",
        "",
        "| rows | units | driver's peak, MB | seconds |",
        "|---|---|---|---|",
        *(f"| {f['rows']:,} | {f['units']} | {f['driver_peak_mb']:,} | {f['seconds']:,} |" for f in found),
        "",
        "More than 64 units go through Ray Data, whose own bookkeeping is in the last line.",
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "driver_memory.md").write_text("\n".join(lines) + "\n")
    (given.out / "driver_memory.json").write_text(json.dumps({"machine": machine, "nights": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
