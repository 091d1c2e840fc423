"""The two ways of a stage through Ray, and a bare loop: plain tasks and actors against Ray Data, by number of units.

`python benchmarks/pipeline.py`. A unit is 10,000 short texts: hashing stands for a light model (about 8 µs a row). Each
figure is the median of three interleaved runs in one local Ray, without `ray.init`. It decides `FEW_UNITS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from bizllm.infer import pipeline
from bizllm.infer.groups import Bucket
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.infer.work import write_parquet

RESULTS = Path(__file__).parent / "results"
ROWS, ROUNDS = 10_000, 3


@dataclass
class Light:
    """Makes texts, hashes them twenty times, writes them."""

    folder: str
    name: str = "light"
    holds_model: bool = True
    uses_gpu: bool = False

    def open(self) -> None:
        """Nothing to load."""

    def read(self, unit: Bucket) -> list[pa.Table]:
        """10,000 texts of the unit."""
        seed = np.random.default_rng(unit.number)
        return [pa.table({"text": [f"{unit.id} {n}" for n in seed.integers(0, 1 << 40, ROWS)]})]

    def work(self, unit: Bucket, tables: list[pa.Table]) -> Receipt:
        """About 8 µs a row."""
        texts = tables[0]["text"].to_pylist()
        digests = []
        for text in texts:
            value = text.encode()
            for _ in range(12):
                value = hashlib.md5(value).digest()
            digests.append(value)
        write_parquet(tables[0].append_column("digest", pa.array(digests)), f"{self.folder}/{unit.id}.parquet")
        return Receipt(self.name, unit.id, "bench", rows_in=len(texts), rows_out=len(texts))


def bare(stage: Light, units: list[Bucket]) -> None:
    """One process, no Ray."""
    for unit in units:
        stage.work(unit, stage.read(unit))


def through_ray(few: int) -> Callable[[Light, list[Bucket]], None]:
    """`run_stage` with the bound between the two ways moved."""

    def go(stage: Light, units: list[Bucket]) -> None:
        pipeline.FEW_UNITS = few
        with tempfile.TemporaryDirectory() as state:
            run = pipeline.run_stage
            run(stage, units, ReceiptBook(state, stage.name))

    return go


def main() -> int:
    """Measure, print, write results."""
    ways = {"bare loop": bare, "plain Ray": through_ray(10**9), "Ray Data": through_ray(-1)}
    ray.init(address="local", num_cpus=os.cpu_count(), object_store_memory=400_000_000, include_dashboard=False,
             log_to_driver=False)  # fmt: skip
    seconds: dict[int, dict[str, float]] = {}
    for count in (1, 4, 16, 64, 256):
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, go in ways.items():
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    go(Light(folder), [Bucket(n) for n in range(count)])
                    taken[way].append(time.perf_counter() - started)
        seconds[count] = {way: round(statistics.median(times), 2) for way, times in taken.items()}
        print(count, seconds[count], flush=True)
    ray.shutdown()
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, ray {ray.__version__}"
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    result = {"measured": day, "machine": machine, "load_after": os.getloadavg()[0], "seconds_by_units": seconds}
    (RESULTS / "pipeline.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = "\n".join(f"| {n} | " + " | ".join(f"{row[way]:.2f}" for way in ways) + " |" for n, row in seconds.items())
    head = "| units | " + " | ".join(ways) + " |\n|---|" + "---|" * len(ways)
    (RESULTS / "pipeline.md").write_text(
        f"# Units through Ray: seconds by way\n\n{day}, {machine}. 10,000 rows a unit, median of {ROUNDS} rounds.\n\n"
        f"{head}\n{lines}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
