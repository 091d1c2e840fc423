"""The training loop under a real local Ray with two gloo workers, against the same loop under torchrun without Ray."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny

from bizllm.errors import RunError, UserError
from bizllm.train.progress import TrainingObserver
from bizllm.train.work import Work

STEPS = 320
RECIPE: dict[str, Any] = {
    "workers": 2,
    "optim": tiny.optim(epochs=40, lr=1e-4, head_lr=1e-3),
    "stop": {"every": 40},
}
Losses = dict[tuple[str, int], float]

# A driver with a Ray of its own: prints a line for each figure.
DRIVER = """
import logging, sys
from pathlib import Path
import ray
from bizllm.train.launch import launch
from bizllm.train.work import Work

quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
ray.init(address="local", num_cpus=2, object_store_memory=100_000_000, **quiet)
log = lambda step, values, split: print(split, step, repr(values["loss"]), flush=True)
launch(Work.load(Path(sys.argv[1])), sys.argv[2], log=log)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A work folder with its base model inside, so that it may be copied anywhere."""
    folder = tmp_path_factory.mktemp("run") / "work"
    return tiny.work(folder, tiny.bert(folder / "base"), tiny.table(64), **RECIPE)


@pytest.fixture(scope="module")
def uninterrupted(template: Work, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Losses of two plain processes."""
    work = _copied(template, tmp_path_factory.mktemp("plain"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, "-m", "bizllm.train.plain", str(work.folder)], check=True, capture_output=True, env=environment
    )
    lines = map(json.loads, (work.folder / "metrics.jsonl").read_text().splitlines())
    losses = {(line["split"], line["step"]): line["loss"] for line in lines}
    assert max(losses) == ("validation", STEPS)
    return losses


@pytest.mark.slow  # universal checkpoints, two groups of workers
def test_elastic_workers_take_what_there_is_and_give_the_losses_of_torchrun(
    template: Work, uninterrupted: Losses, tmp_path: Path, local_ray: None, told: list[tuple[Any, ...]]
) -> None:
    from bizllm.train import kept
    from bizllm.train.launch import launch

    work, heard = _copied(template, tmp_path, workers=(1, 8)), _Heard()
    summary = launch(work, str(tmp_path), observer=heard, log=heard.log)
    assert heard.losses == pytest.approx(uninterrupted, rel=1e-6)
    assert summary.steps == STEPS
    assert heard.steps[-1] == (STEPS, STEPS)
    assert [(len(item[1]), item[2]) for item in told if item[0] == "started"] == [(2, 0)]
    kept_checkpoints = kept.checkpoints(str(tmp_path))
    assert [(found.step, found.workers) for found in kept_checkpoints] == [(STEPS - 40, 2), (STEPS, 2)]
    best = kept.best(str(tmp_path), summary.best_weights)
    assert best is not None and Path(best).name.startswith(f"best-{summary.best_step}-")
    assert [folder.name for folder in (tmp_path / "best").iterdir()] == [summary.best_weights]
    assert json.loads((Path(best) / "state.json").read_text())["scores"]["macro_f1"] == summary.best
    assert not _left_on_disk()


def test_a_killed_worker_changes_no_loss(
    template: Work, uninterrupted: Losses, tmp_path: Path, local_ray: None, told: list[tuple[Any, ...]]
) -> None:
    from bizllm.train.launch import launch

    work, heard = _copied(template, tmp_path), _Heard()

    def log(step: int, values: Any, split: str) -> None:
        heard.log(step, values, split)
        if step == 100:
            os.kill(_workers()[1].pid, signal.SIGKILL)

    assert launch(work, str(tmp_path), log=log).steps == STEPS
    assert heard.losses == pytest.approx(uninterrupted, rel=1e-6)
    starts = [item[2] for item in told if item[0] == "started"]
    assert len(starts) == 2 and starts[0] == 0 and starts[1] >= 80


@pytest.mark.slow  # three starts; test_room.py has what is decided after each failure
def test_workers_that_die_while_they_start_are_started_again(
    template: Work, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dies before they are joined, then one when they are joined and do not train yet. There is room for no more
    than two: what only started has given its room back."""
    from bizllm.train import launch, room

    class Last(room.WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            os.kill(worker_group.get_workers()[1].metadata.pid, signal.SIGKILL)

    class Deadly(room.Guard):
        starts = 0

        def after_worker_group_start(self, worker_group: Any) -> None:
            super().after_worker_group_start(worker_group)
            self.starts += 1
            if self.starts == 1:
                os.kill(worker_group.get_workers()[0].metadata.pid, signal.SIGKILL)
            elif self.starts == 2:
                worker_group._callbacks.append(Last())

    work, heard = _copied(template, tmp_path, wait_for_room_s=60, optim=tiny.optim(epochs=2)), _Heard()
    monkeypatch.setattr(launch, "Guard", Deadly)
    assert launch.launch(work, str(tmp_path), observer=heard, log=heard.log).steps == STEPS // 20
    assert ["while they started" in reason for reason in heard.lost_because] == [True, True]
    assert heard.made_up_at == [10], "the first step that is told"


@pytest.mark.slow  # four starts
def test_losses_without_a_checkpoint_between_end_the_training(
    template: Work, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bizllm.train import launch

    work, starts = _copied(template, tmp_path, stop={"every": STEPS}), []
    take: Callable[..., None] = launch._Relay._take

    def told(relay: Any, kind: str, *said: Any) -> None:
        take(relay, kind, *said)
        if kind == "started":
            starts.append(said[1])
            os.kill(_workers()[0].pid, signal.SIGKILL)

    monkeypatch.setattr(launch._Relay, "_take", told)
    with pytest.raises(RunError, match=r"failed 4 times without a checkpoint between; the last time: worker \d died"):
        launch.launch(work, str(tmp_path))
    assert starts == [0, 0, 0, 0]


@pytest.mark.slow  # two launches, checkpoints over HTTP
def test_a_killed_driver_goes_on_from_s3(
    template: Work, uninterrupted: Losses, tmp_path: Path, s3_endpoint: str
) -> None:
    import boto3

    from bizllm.train import kept

    boto3.client("s3").create_bucket(Bucket="training")
    run_url = "s3://training/models/tiny/run-1"
    kept.upload(template.folder, f"{run_url}/work")
    with _driver(template.folder, run_url) as driver:
        first = _read(driver, until=("train", 200))
        assert kept.newest(run_url) is not None
        workers = _workers(driver.pid)
        assert len(workers) == 2
        driver.kill()
        _gone(workers)
    with _driver(template.folder, run_url) as driver:
        second = _read(driver, until=None)
    begin = min(step for _, step in second)
    assert 40 < begin < STEPS
    assert second == pytest.approx({at: loss for at, loss in uninterrupted.items() if at[1] >= begin}, rel=1e-6)
    # What the workers told while the driver was dying is lost.
    assert first == pytest.approx({at: loss for at, loss in uninterrupted.items() if at in first}, rel=1e-6)
    assert kept.newest(run_url).step == STEPS
    assert kept.best(run_url, kept.newest(run_url).best).startswith(f"{run_url}/best/best-")


@pytest.mark.slow
def test_ctrl_c_stops_workers_and_leaves_the_checkpoint(template: Work, tmp_path: Path) -> None:
    from bizllm.train import kept

    work = _copied(template, tmp_path)
    with _driver(work.folder, str(tmp_path)) as driver:
        _read(driver, until=("train", 100))
        workers = _workers(driver.pid)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(20) != 0
        _gone(workers)
        said = driver.stderr.read().splitlines()
    assert said[-1].strip() == "KeyboardInterrupt"
    assert not [line for line in said if "TrainWorker" in line or "DeepSpeed" in line or "pid=" in line]
    newest = kept.newest(str(tmp_path))
    assert newest is not None and newest.step >= 40


def test_a_loss_that_is_no_number_is_told_once(
    template: Work, tmp_path: Path, local_ray: None, told: list[tuple[Any, ...]]
) -> None:
    from bizllm.train.launch import launch

    work = _copied(template, tmp_path, optim=tiny.optim(lr=1e30, head_lr=1e30, epochs=4, clip=None))
    with pytest.raises(RunError, match=r"the loss of step \d+ is nan: training stopped"):
        launch(work, str(tmp_path))
    assert [item[0] for item in told].count("started") == 1


def test_more_workers_than_there_is_room_for(template: Work, tmp_path: Path, local_ray: None) -> None:
    from bizllm.train.launch import launch

    work = _copied(template, tmp_path, workers=64)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"workers: 64: the cluster has 2 CPUs and 0 GPUs: .*; use at most 2"):
        launch(work, str(tmp_path))
    assert time.monotonic() - began < 5


def test_a_wait_for_room_ends_and_says_what_lacks(template: Work, tmp_path: Path, local_ray: None) -> None:
    import ray

    from bizllm.train.launch import launch

    @ray.remote(num_cpus=1)
    class Other:
        def ready(self) -> None: ...

    other = Other.remote()
    ray.get(other.ready.remote())
    work = _copied(template, tmp_path, wait_for_room_s=2)
    began = time.monotonic()
    try:
        with pytest.raises(RunError) as caught:
            launch(work, str(tmp_path))
    finally:
        ray.kill(other)
    said = "no room for 2 workers with 1 CPU each within wait_for_room_s (2 s): 2 CPUs of which 1 are free, 0 GPUs"
    assert said in str(caught.value) and str(caught.value).endswith("room for 1 of them now")
    assert time.monotonic() - began < 60, "and not the minutes that it waits by default"


# Two machines of which one is lost: Ray's nodes in processes of this machine.
CLUSTER = """
import logging, sys, threading
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from bizllm.train import launch
from bizllm.train.work import Work

size = {"num_cpus": 1, "object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
node = cluster.add_node(**size)
ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
half = threading.Event()
take = launch._Relay._take

def told(self, kind, *said):
    if kind == "started":
        print(kind, len(said[0]), said[1], flush=True)
    take(self, kind, *said)

def log(step, values, split):
    print(split, step, repr(values["loss"]), flush=True)
    if step == 160:
        half.set()

launch._Relay._take = told
training = threading.Thread(target=launch.launch, args=(Work.load(Path(sys.argv[1])), sys.argv[2]), kwargs={"log": log})
training.start()
half.wait()
cluster.remove_node(node)
training.join()
"""


@pytest.mark.slow
def test_a_lost_machine_leaves_one_worker(template: Work, uninterrupted: Losses, tmp_path: Path) -> None:
    work = _copied(template, tmp_path, workers=(1, 2))
    command = [sys.executable, "-c", CLUSTER, str(work.folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    lines = [line.split() for line in done.stdout.splitlines()]
    starts = [line[1:] for line in lines if line[0] == "started"]
    assert starts[0] == ["2", "0"]
    assert starts[1][0] == "1" and int(starts[1][1]) >= 120
    losses = {(line[0], int(line[1])): float(line[2]) for line in lines if line[0] != "started"}
    assert losses == pytest.approx(uninterrupted, rel=1e-3)


# -- parts of the tests -------------------------------------------------------------------------------------------


class _Heard(TrainingObserver):
    """And a log."""

    def __init__(self) -> None:
        self.losses: Losses = {}
        self.steps: list[tuple[int, int]] = []
        self.lost_because: list[str] = []
        self.made_up_at: list[int] = []

    def log(self, step: int, values: Any, split: str) -> None:
        assert (split, step) not in self.losses, "each step is told once"
        self.losses[split, step] = values["loss"]

    def lost(self, reason: str) -> None:
        self.lost_because.append(reason)

    def made_up(self, step: int, seconds: float) -> None:
        self.made_up_at.append(step)

    def step(self, step: int, total: int, values: Any) -> None:
        self.steps.append((step, total))

    def validated(self, values: Any) -> None:
        assert "macro_f1" in values


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What workers told the driver."""
    from bizllm.train import launch

    items: list[tuple[Any, ...]] = []
    take: Callable[..., None] = launch._Relay._take
    monkeypatch.setattr(launch._Relay, "_take", lambda self, *item: (items.append(item), take(self, *item)))
    return items


def _copied(template: Work, run: Path, **said: Any) -> Work:
    shutil.copytree(template.folder, run / "work")
    recipe = template.recipe.model_validate({**template.recipe.model_dump(mode="json"), **said})
    Work(run / "work", recipe, template.info, run / "work" / "base").save()
    return Work.load(run / "work")


@contextmanager
def _driver(work: Path, run_url: str) -> Iterator[subprocess.Popen[str]]:
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(work), run_url], **pipes)
    try:
        yield driver
    finally:
        left = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
        driver.kill()
        driver.communicate()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _read(driver: subprocess.Popen[str], until: tuple[str, int] | None, ended: bool = False) -> Losses:
    losses: Losses = {}
    for line in driver.stdout:
        if line == "done\n":
            return losses
        split, step, loss = line.split()
        losses[split, int(step)] = float(loss)
        if until is not None and split == until[0] and int(step) >= until[1]:
            return losses
    if ended:
        return losses
    raise AssertionError(f"the driver ended: {driver.stderr.read()[-2000:]}")


def _workers(parent: int | None = None) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(parent).children(recursive=True)
        if process.name().startswith("ray::") and "TrainWorker" in " ".join(process.cmdline())
    ]


def _left_on_disk() -> list[Path]:
    """Folders of workers that live no more: the lock of a living one can't be had."""
    left = []
    for folder in Path(tempfile.gettempdir()).glob("bizllm-worker-*"):
        with suppress(OSError), (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.append(folder)
    return left


def _gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
