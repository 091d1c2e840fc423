"""The retail night on real data: wall time and peak memory, step by step. `BIZLLM_DATA=… python benchmarks/nightly.py`

The job runs as a user runs it, in a process of its own with its own local Ray. Memory is the sum of the proportional
set sizes (PSS) of that process and all its descendants, sampled five times a second: shared pages count once.
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

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
SAMPLE_S = 0.2


def pss_mb(root: int) -> float:
    """MB of a process and its descendants; processes that end meanwhile count nothing."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    todo, total = [root], 0
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024


def measured(job: str, date: str, warehouse: str) -> dict[str, object]:
    """One run: what it said, its wall seconds and its peak memory."""
    command = [sys.executable, "-m", "bizllm.cli", "run", job, "--date", date, "--json"]
    started, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, "BIZLLM_WAREHOUSE": warehouse}
        )
        while process.poll() is None:
            peak = max(peak, pss_mb(process.pid))
            time.sleep(SAMPLE_S)
        wall = time.perf_counter() - started
        out.seek(0)
        said = json.load(out)
    assert process.returncode == 0, said
    steps = [
        {k: s[k] for k in ("step", "state", "rows_in", "rows_out", "rows_rejected", "records_out", "tokens", "seconds")}
        for s in said["steps"]
    ]
    return {"wall_s": round(wall, 1), "peak_mb": round(peak), "state": said["state"], "steps": steps}


def main() -> int:
    """Run the night, and the same night again; write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", default="jobs/retail.yaml")
    parser.add_argument("--date", default="2011-12-09")
    given = parser.parse_args()
    if "BIZLLM_DATA" not in os.environ and "retail" in given.job:
        print("set BIZLLM_DATA to the folder of the benchmark data", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as warehouse:
        night, again = (measured(given.job, given.date, warehouse) for _ in range(2))
    name = Path(given.job).stem
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    result = {
        "job": given.job,
        "date": given.date,
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine,
        "load_before": os.getloadavg()[0],
        "night": night,
        "same_night_again": again,
    }
    (RESULTS / f"nightly-{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = "\n".join(
        f"| {s['step']} | {s['rows_in']:,} | {s['rows_out']:,} | {s['rows_rejected']:,} | {s['records_out']:,} |"
        f" {s['tokens']:,} | {s['seconds']:.1f} |"
        for s in night["steps"]  # type: ignore[attr-defined]
    )
    text = (
        f"# {given.job}, {given.date}\n\n{result['measured']}, {machine}, load {result['load_before']:.1f} before.\n\n"
        f"Wall {night['wall_s']} s, peak {night['peak_mb']:,} MB (PSS of all processes, Ray's included).\n"
        f"The same night again ({again['state']}): {again['wall_s']} s, {again['peak_mb']:,} MB.\n\n"
        "| step | in | out | rejected | records | tokens | seconds |\n|---|---|---|---|---|---|---|\n" + rows + "\n"
    )
    (RESULTS / f"nightly-{name}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
