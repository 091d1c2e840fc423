"""What one driver can feed: a step over 2 to 64 nodes in a discrete simulation, from costs that are measured here.

    python benchmarks/simulate.py [--rows 1000000000] [--latency-ms 30]

Measured on this machine: what the driver spends on a unit (a receipt parsed and entered into the book, on local disk).
`--latency-ms`; a worker makes so many rows a second, give or take a fifth, alike for all units; nothing fails.

Workers take units of 50,000 rows in order, two at a time each (one is read while the other is worked on), as
`infer/pipeline.py` hands them out; receipts are entered by one thread of the driver, their writes by
`pipeline.ENTERING` at once. Not simulated: Ray's own scheduling, network bandwidth, the object store's limits on
requests, workers that start late, stages of reuse. So the table is an upper bound; it shows what bends first.
Writes benchmarks/results/simulate.json and .md.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench

from bizllm.infer.pipeline import ENTERING
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.tables.manifest import MOST_ROWS
from bizllm.tables.warehouse import StagedFile

NODES, PER_NODE = (2, 4, 8, 16, 32, 64), 8  # workers, or GPUs, of a node
KINDS = {"CPU worker, small encoder": 320.0, "GPU, large encoder": 20_000.0, "GPU, small encoder": 60_000.0}  # rows/s


def entering_s(folder: Path, count: int = 500) -> float:
    """Seconds of the driver for a receipt."""
    book = ReceiptBook(str(folder), "answer")
    staged = StagedFile("s3://bucket/wh/shop/answer/data/run_date=2026-03-10/part.parquet", MOST_ROWS, 10**7, {})
    said = [
        Receipt("answer", f"u{i:05d}", "r1", rows_in=MOST_ROWS, rows_out=MOST_ROWS, files=(staged,)).to_json()
        for i in range(count)
    ]
    began = time.perf_counter()
    for receipt in said:
        book.enter(Receipt.from_json(receipt))
    return (time.perf_counter() - began) / count


def night_s(
    units: int, workers: int, rows_per_s: float, driver_s: float, latency_s: float, at_once: int = ENTERING
) -> float:
    """Simulated seconds until the last receipt is durable."""
    chance = random.Random(0)

    def spent() -> float:
        return MOST_ROWS / rows_per_s * chance.uniform(0.8, 1.2)

    ready = [0.0] * workers  # when each worker has done what it was given
    queue: list[tuple[float, int]] = []  # (done, worker)
    given = 0
    for worker in [*range(workers), *range(workers)]:
        if given < units:
            ready[worker] = max(ready[worker], latency_s) + spent()
            heapq.heappush(queue, (ready[worker], worker))
            given += 1
    writers = [0.0] * at_once
    driver = 0.0
    while queue:
        done, worker = heapq.heappop(queue)
        driver = max(driver, done) + driver_s
        if given < units:  # handed out before the receipt is written; read while the worker is at its other unit
            ready[worker] = max(ready[worker], driver + latency_s) + spent()
            heapq.heappush(queue, (ready[worker], worker))
            given += 1
        begun = max(heapq.heappop(writers), driver)
        heapq.heappush(writers, begun + latency_s)
        driver = max(driver, begun)  # it waits where all writers are busy
    return max(writers)


def main() -> int:
    """Measure, simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument("--latency-ms", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=bench.RESULTS)
    given = parser.parse_args()
    machine = bench.machine("ray", "pyiceberg")
    with tempfile.TemporaryDirectory() as folder:
        driver_s = entering_s(Path(folder))
    units, latency_s = -(-given.rows // MOST_ROWS), given.latency_ms / 1e3
    result: dict[str, Any] = {"machine": machine, "driver_s": driver_s, "rows": given.rows, "nights": {}}
    rows = []
    for kind, rate in KINDS.items():
        for nodes in NODES:
            workers = nodes * PER_NODE
            took, ideal = night_s(units, workers, rate, driver_s, latency_s), given.rows / rate / workers
            result["nights"][f"{kind}, {nodes}"] = {"seconds": took, "ideal": ideal}
            rows.append([kind, nodes, f"{ideal:,.0f}", f"{took:,.0f}", f"{ideal / took:.0%}", f"{units / took:,.0f}"])
    slowest = min(found["ideal"] / found["seconds"] for found in result["nights"].values())
    result["bars"] = [bench.bar("ideal over simulated, the worst of all", slowest, 0.9)]
    head = ["worker", f"nodes of {PER_NODE}", "ideal, s", "simulated, s", "of the ideal", "units/s"]
    alone = ideal / night_s(units, workers, rate, driver_s, latency_s, at_once=1)
    most, allowed = 1 / driver_s, ENTERING / latency_s
    text = f"""# One driver, up to 64 nodes, simulated

{machine}.
{given.rows:,} rows in {units:,} units; {driver_s * 1e3:.2f} ms of the driver a unit (measured),
{given.latency_ms:.0f} ms a request to the store (assumed), {ENTERING} receipts written at once.
What is left out is told in benchmarks/simulate.py.

{bench.table(head, rows)}

{bench.bars_table(result["bars"])}

The driver takes at most {most:,.0f} receipts a second, and the store {allowed:,.0f} at that latency (with one receipt
written at a time the last line were {alone:.0%}). Past that, larger units (`runtime.unit_rows`) are the way: ten times
the rows are a tenth of the receipts. Freezing reads a footer for each file of the input, many at once; the commit
writes a manifest entry for each file of 128 MB and more.
"""
    bench.write("simulate", result, text, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
