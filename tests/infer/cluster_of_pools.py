"""A cluster of three nodes, with labels and GPUs that only Ray counts, and what stages do there: one JSON object.

A process of its own (`tests/infer/test_placement.py` runs it): Ray's clusters for tests want the main thread.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from ray.util.annotations import RayDeprecationWarning

from bizllm import api
from bizllm.errors import RunError, UserError
from bizllm.infer import pipeline
from bizllm.infer.pipeline import run_stage
from bizllm.infer.pools import ACCELERATOR, GpuPool, Pool, Pools
from bizllm.infer.receipts import Receipt, ReceiptBook
from bizllm.infer.room import look
from bizllm.infer.workers import Workers

POOLS = Pools(cpu=Pool(labels={"tier": "cpu"}), gpu=GpuPool(accelerator="H100"))


def unit(number: int) -> Any:
    """A plain namespace: the pipeline pickles units without their class."""
    return SimpleNamespace(id=f"u{number}")


def here() -> str:
    labels: dict[str, str] = ray.get_runtime_context().get_node_labels()
    return labels["tier"]


@dataclass
class Tells:
    """Where it was read and worked on, and which GPUs it had."""

    name: str
    holds_model: bool
    uses_gpu: bool

    def open(self) -> None:
        pass

    def read(self, unit: Any) -> list[pa.Table]:
        return [pa.table({"read": [here()]})]

    def work(self, unit: Any, tables: list[pa.Table]) -> Receipt:
        said = {"read": tables[0]["read"].to_pylist(), "work": here(), "gpus": len(ray.get_gpu_ids())}
        return Receipt(self.name, unit.id, "r", extra={**said, "pid": os.getpid()})


def main(job: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())

    def stage(name: str, *, model: bool, gpu: bool, units: int = 3, pools: Pools = POOLS, **more: Any) -> Any:
        """What its units told, or why it failed and after how many seconds."""
        book, began = ReceiptBook(str(folder), name), time.monotonic()
        try:
            held = run_stage(Tells(name, model, gpu), [unit(i) for i in range(units)], book, pools=pools, **more)
        except RunError as fault:
            return {"fault": str(fault), "seconds": time.monotonic() - began}
        told = {"units": [receipt.extra for receipt in book], "cpu_hours": held.cpu_hours}
        return told | {"gpu_hours": dict(held.gpu_hours), "seconds": time.monotonic() - began}

    told: dict[str, Any] = {}
    warnings.simplefilter("error", RayDeprecationWarning)
    with Workers() as processes:
        told["cpu"] = stage("cpu", model=False, gpu=False, processes=processes)
        told["gpu"] = stage("gpu", model=True, gpu=True, processes=processes)
        told["kept"] = stage("kept", model=True, gpu=True, processes=processes)
        told["endpoint"] = stage("endpoint", model=True, gpu=False, processes=processes)
    few, pipeline.FEW_UNITS = pipeline.FEW_UNITS, 0
    told["streamed"] = stage("streamed", model=True, gpu=True)
    pipeline.FEW_UNITS = few

    absent = Pools(gpu=GpuPool(accelerator="B200"))
    told["infeasible"] = stage("infeasible", model=True, gpu=True, pools=absent, wait_s=60)

    @ray.remote(num_cpus=0)
    class Holds:
        def ready(self) -> None:
            pass

    def holding(gpus: int) -> Any:
        actor: Any = Holds.options(num_gpus=gpus).remote()
        ray.get(actor.ready.remote())
        return actor

    one = holding(1)
    told["partly"] = stage("partly", model=True, gpu=True)
    two = holding(1)
    told["full"] = stage("full", model=True, gpu=True, wait_s=2)
    pipeline.FEW_UNITS = 0
    told["full_streamed"] = stage("full_streamed", model=True, gpu=True, wait_s=2)
    pipeline.FEW_UNITS = few
    with Workers() as processes, processes.floor.taken("gpu"):
        leave = threading.Timer(4, lambda: [ray.kill(actor) for actor in (one, two)])
        leave.start()
        told["behind another"] = stage("behind another", model=True, gpu=True, wait_s=1, processes=processes)

    address = ray.get_runtime_context().gcs_address
    told["plan"] = api.plan(job, date="2026-03-10", address=address).to_dict()
    try:
        api.plan(job, date="2026-03-10", address=address, sets=["runtime.pools.gpu.accelerator=B200"])
    except UserError as fault:
        told["plan fault"] = str(fault)
    told["grows"] = look().grows
    return told


if __name__ == "__main__":
    size: dict[str, Any] = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "labels": {"tier": "head"}, **size})
    cluster.add_node(num_cpus=3, labels={"tier": "cpu"}, **size)
    cluster.add_node(num_cpus=2, num_gpus=2, labels={"tier": "gpu", ACCELERATOR: "H100"}, **size)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        print(json.dumps(main(sys.argv[1])))
    finally:
        ray.shutdown()
        time.sleep(2)  # Ray Data's thread of the stage that was given up connects once more while it ends
        ray.shutdown()
        cluster.shutdown()
