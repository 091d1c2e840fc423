"""A worker of a training under Ray Train: where it reads, what it hands over, and what it tells the driver."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from ray.exceptions import RayError
from ray.train import Checkpoint, CheckpointUploadMode
from ray.util.queue import Full, Queue

from bizllm import logs
from bizllm.errors import RunError, safe_text
from bizllm.tables import storage
from bizllm.tables.urls import local_path
from bizllm.train import kept, plain
from bizllm.train.loop import Summary, train
from bizllm.train.work import FILE, Work

_FOLDER = "bizllm-worker-"
_log = logs.get(__name__)


def work_as_one(config: dict[str, Any]) -> Summary:
    """What every worker runs. config: run_url, launch, queue (to the driver), threads."""
    torch.set_num_threads(config["threads"])
    try:
        plain.open_group()
        with RayHost(config["run_url"], config["launch"], config["queue"]) as host:
            return train(host.work(), host)
    except Exception as fault:
        rank = ray.train.get_context().get_world_rank()
        _log.error("worker_failed", rank=rank, error=safe_text(fault))
        tell(config["queue"], "failed", rank, safe_text(fault))
        raise


def tell(queue: Queue, *item: Any) -> None:
    with suppress(RayError, Full):  # no curve is worth a training
        queue.put_nowait(item)


class RayHost:
    """A worker's surroundings: the run's URL, this machine's temporary disk, and a queue to the driver.

    Checkpoints and best weights are uploaded in the background, one at a time each, so that a slow store holds up the
    training rather than fill the disk. A checkpoint counts only once the best weights that it knows of are kept.
    """

    def __init__(self, run_url: str, launch: str, queue: Queue) -> None:
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self.local_rank = context.get_local_rank()
        self.run_url, self.launch = run_url, launch
        self._storage = context.get_storage()
        self._queue = queue
        self._room = threading.Semaphore(1)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="best")
        self._best: Future[None] | None = None
        self._restored: Path | None = None
        self._own, self._shared, self._nodes = self._folders()
        told = [kept.Group.begin(run_url).name if self.rank == 0 else ""]
        dist.broadcast_object_list(told, src=0)
        self._group = kept.Group(run_url, told[0])

    def __enter__(self) -> RayHost:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        if fault is None:
            self._room.acquire()  # the last checkpoint
            if self._best is not None:
                self._best.result()
        shutil.rmtree(self._own, ignore_errors=True)

    # -- what it reads --------------------------------------------------------------------------------------------

    def work(self) -> Work:
        """The frozen input: read where it lies, or copied once a machine."""
        url = storage.join(self.run_url, kept.WORK)
        folder = Path(local_path(url)) if storage.is_local(url) else self._fetched(url, kept.WORK)
        if not (folder / FILE).is_file():
            raise RunError(f"{url}: not seen from every machine of the cluster; use a shared folder or s3://")
        work = Work.load(folder)
        if not work.base.is_dir():
            raise RunError(f"{work.base}: the base model is not on every machine of the cluster, nor in {url}")
        return work

    def restore(self) -> Path | None:
        """The newest whole checkpoint, copied once a machine. Rank 0 looks and tells the others."""
        told = [kept.newest(self.run_url) if self.rank == 0 else None]
        dist.broadcast_object_list(told, src=0)
        found = told[0]
        if self.rank == 0:
            tell(self._queue, "started", self._nodes, found.step if found else 0)
        if found is None:
            return None
        self._restored = self._fetched(found.url, f"from-{found.step}")
        return self._restored

    def _fetched(self, url: str, name: str) -> Path:
        folder = self._shared / name
        if self.local_rank == 0:
            kept.download(url, folder)
        dist.barrier()
        return folder

    # -- what it hands over ---------------------------------------------------------------------------------------

    def scratch(self, name: str) -> Path:
        """Below a folder of this worker's own."""
        if self._restored is not None and self.local_rank == 0:
            # All workers have loaded it: they have made steps together since.
            for left in self._restored.parent.glob(f"{self._restored.name}*"):
                shutil.rmtree(left)
        self._restored = None
        return self._own / name

    def save(self, folder: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Give this worker's shards to Ray Train, which uploads them in a thread and merges those of all workers."""
        self._room.acquire()
        self._group.check()
        ray.train.report(
            dict(metrics),
            Checkpoint.from_directory(folder),
            checkpoint_dir_name=f"step-{step:08d}-{uuid.uuid4().hex[:8]}",  # rank 0's name counts; never used again
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,  # done here, before the next one is let in
            checkpoint_upload_fn=self._upload,
        )

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        try:
            if self._best is not None:
                self._best.result()
            url = storage.join(self.run_url, kept.CHECKPOINTS, self.launch, name)
            kept.upload(Path(checkpoint.path), url)
            self._group.check()
            storage.write_bytes(storage.join(url, kept.done_name(self.rank)), b"")
        finally:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
            self._room.release()
        return Checkpoint(self._storage.build_checkpoint_path_from_name(name), self._storage.storage_filesystem)

    def keep(self, folder: Path) -> str:
        """Upload the best weights in a thread. The fault of the upload before comes up here."""
        if self._best is not None:
            self._best.result()
        name = f"{folder.name}-{self._group.name}"
        self._best = self._background.submit(self._keep, folder, name)
        return name

    def _keep(self, folder: Path, name: str) -> None:
        self._group.keep_best(folder, name)
        shutil.rmtree(folder)

    def log(self, step: int, values: Mapping[str, float], split: str) -> None:
        """To the driver, which has the trackers and the terminal."""
        tell(self._queue, "figures", step, dict(values), split)

    # -- this machine's disk --------------------------------------------------------------------------------------

    def _folders(self) -> tuple[Path, Path, list[str]]:
        """(this worker's folder, the one of its machine's first worker, which the others read from, all nodes by rank).

        A lock tells a living worker's folder from one that a killed worker left, which is deleted. A folder gets the
        name that is looked for only once it is locked.
        """
        top = Path(tempfile.gettempdir())
        if self.local_rank == 0:
            for left in top.glob(f"{_FOLDER}*"):
                with suppress(OSError), (left / "lock").open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix="."))
        self._lock = (made / "lock").open("a")  # held until the process ends
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        own = made.rename(top / f"{_FOLDER}{made.name[1:]}")
        node = ray.util.get_node_ip_address()  # by which Ray Train counts local ranks
        told: list[Any] = [None] * self.workers
        dist.all_gather_object(told, (node, self.local_rank, str(own)))
        shared = next(Path(folder) for at, rank, folder in told if at == node and rank == 0)
        return own, shared, [at for at, _, _ in told]
