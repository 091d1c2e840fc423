"""What a night costs at 1, 10 and 100 times the rows: time a row, and the memory of the driver and of its workers.

    python benchmarks/growth.py [--rows 10000] [--out benchmarks/results]

A night of `summarize` without a model over short made-up texts, each as `bizllm run` in a process of its own with a Ray
of its own. Time a row is the step's, apart from its start, which a night of 100 rows shows. Peak resident memory is the
kernel's (VmHWM): of the driver, and the largest of Ray's workers, which both count shared memory. Units are of 10,000
rows in all three; where nobody sets `unit_rows` they grow to 50,000, and a worker's memory with them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import bench
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bizllm.jobs.job import load_job
from bizllm.tables.warehouse import Warehouse

NIGHT = "2026-03-10"
TEXT = "Parcel {} came late on day {}. The box was wet. I want my money back. Please call me on Monday."
GROUP = 50_000  # rows of a row group of the input
UNIT = 10_000


def job(folder: Path, rows: int) -> Path:
    """A job file over `rows` tickets, each of its own text."""
    with pq.ParquetWriter(folder / "tickets.parquet", pa.schema([("id", pa.int64()), ("body", pa.string())])) as writer:
        for start in range(0, rows, GROUP):
            ids = range(start, min(rows, start + GROUP))
            writer.write_table(pa.table({"id": ids, "body": [TEXT.format(i, i % 30) for i in ids]}, writer.schema))
    said = {
        "name": "growth",
        "warehouse": {"path": "wh"},
        "sources": {"tickets": {"path": "tickets.parquet", "key": ["id"]}},
        "steps": {"summary": {"task": "summarize", "input": "tickets", "text": "body", "max_sentences": 1}},
        "runtime": {"num_cpus": os.cpu_count(), "object_store_mb": 300, "unit_rows": UNIT},
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


def workers() -> dict[int, str]:
    """Processes of Ray that work, or wait for work, and what they do."""
    found = {}
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = line.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"Agent" not in title:
            found[int(line.parent.name)] = title.rstrip(b"\0 ").decode()
    return found


def measure(rows: int) -> dict[str, Any]:
    """One night: seconds of its step and of the command, peaks in MB, data files that were published."""
    with tempfile.TemporaryDirectory() as folder:
        path = job(Path(folder), rows)
        command = [sys.executable, "-m", "bizllm.cli", "run", str(path), "--date", NIGHT, "--json"]
        began, driver, worker = time.perf_counter(), 0.0, (0.0, "")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
            while run.poll() is None:
                driver = max(driver, peak_mb(run.pid))
                worker = max([worker, *((peak_mb(pid), title) for pid, title in workers().items())])
                time.sleep(0.2)
            said = json.loads(run.stdout.read() if run.stdout else "{}")
        (step,) = said["steps"]
        assert step["rows_out"] == rows, said
        warehouse = Warehouse(load_job(str(path)).job.warehouse)
        files = len(warehouse.files("growth", "summary", date.fromisoformat(NIGHT)).files)
        return {
            "rows": rows,
            "step_s": step["seconds"],
            "command_s": round(time.perf_counter() - began, 1),
            "driver_mb": round(driver),
            "worker_mb": round(worker[0]),
            "worker": worker[1],
            "files": files,
        }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    machine = bench.machine("ray", "pyarrow")
    start = measure(100)
    found = []
    for times in (1, 10, 100):
        found.append(measure(given.rows * times))
        found[-1]["row_us"] = round((found[-1]["step_s"] - start["step_s"]) / found[-1]["rows"] * 1e6, 1)
        print(found[-1], flush=True)
    least, most = found[0], found[-1]
    bars = [  # within 10 %: the last night is worth at least 0.9 of what the first promises
        bench.bar("time a row, 10 times over 100 times the rows", found[1]["row_us"] / most["row_us"], 0.9),
        bench.bar("driver's peak memory, 1 over 100 times the rows", least["driver_mb"] / most["driver_mb"], 0.9),
        bench.bar("a worker's peak memory, 10 over 100 times the rows", found[1]["worker_mb"] / most["worker_mb"], 0.9),
    ]
    head = ["rows", "step, s", "µs a row", "command, s", "driver's peak, MB", "a worker's peak, MB", "files published"]
    names = ("rows", "step_s", "row_us", "command_s", "driver_mb", "worker_mb", "files")
    text = f"""# Growth

{machine}.
How: benchmarks/growth.py. The start: {start["step_s"]} s of the step, {start["command_s"]} s of the command.

{bench.table(head, [[f"{night[name]:,}" for name in names] for night in found])}

{bench.bars_table(bars)}
"""
    bench.write("growth", {"machine": machine, "start": start, "nights": found, "bars": bars}, text, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
