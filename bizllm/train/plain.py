"""A training without Ray: `torchrun --nproc-per-node N -m bizllm.train.plain WORK_FOLDER`.

For a machine where Ray is not installed, and to see the loop by itself. Checkpoints, the best weights and figures lie
in the work folder; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from bizllm.train.loop import Summary, train
from bizllm.train.work import Work

# torch's own setting, read at its first allocation: tensors of 2 MB and more lie in huge pages. DeepSpeed makes buffers
# as large as the model anew in every step, and the kernel would hand them out in pages of 4 kB: what that costs is
# measured in benchmarks/train_stages.py.
HUGE_PAGES = ("THP_MEM_ALLOC_ENABLE", "1")


class PlainHost:
    """Workers of one machine, which share its folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rank, self.workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))

    def restore(self) -> Path | None:
        """The newest whole one: a checkpoint without a name in `latest` was not finished."""
        pointer = self.folder / "checkpoints" / "latest"
        return self.folder / "checkpoints" / pointer.read_text() if pointer.exists() else None

    def scratch(self, name: str) -> Path:
        return self.folder / ("best" if name.startswith("best-") else "checkpoints") / name

    def save(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        import torch.distributed as dist

        dist.barrier()  # every worker's shards are written
        if self.rank == 0:
            temporary = folder.with_name(".latest")
            temporary.write_text(folder.name)
            temporary.rename(folder.with_name("latest"))
            for other in folder.parent.glob("step-*"):
                if other.name != folder.name:
                    shutil.rmtree(other, ignore_errors=True)

    def keep(self, folder: Path) -> str:
        for other in folder.parent.glob("best-*"):
            if other.name != folder.name:
                shutil.rmtree(other)
        return folder.name

    def log(self, step: int, values: Mapping[str, float], split: str) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")


def run(folder: Path) -> Summary:
    """Train in this process, as one of the workers that the environment tells of (RANK, WORLD_SIZE)."""
    open_group()
    host = PlainHost(folder)
    summary = train(Work.load(folder), host)
    if host.rank == 0:
        (folder / "summary.json").write_text(json.dumps(asdict(summary)))
    return summary


def open_group() -> None:
    """DeepSpeed's process group, on NCCL or gloo; without a compiler where there is no GPU."""
    import deepspeed
    import torch
    from transformers.utils.logging import disable_progress_bar

    if not torch.cuda.is_available():
        # Its shared-memory collectives are compiled for a minute at the first start, and gain nothing here.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        os.environ.setdefault(*HUGE_PAGES)
    cast(Any, disable_progress_bar)()
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "29571")
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
