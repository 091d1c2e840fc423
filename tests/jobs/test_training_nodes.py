"""A fine-tuning over Ray nodes with addresses of their own: machines are killed, cut off the network, and come back."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from networks import GCS_PORT, NETWORK, Machine, cluster
from test_nodes import SOON

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import trainings

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

EVERY = 20  # steps between checkpoints
STEPS = 800
LOSE_AT = 160
# Parts of two rows: each step takes long enough for a machine to be lost, and another to come, within the training.
SETTINGS: dict[str, Any] = {"optim__epochs": STEPS // 8, "optim__micro_batch": 2, "stop__every": EVERY}
HEAD_IN_HEX = socket.inet_aton(f"{NETWORK}.1")[::-1].hex().upper()  # as the kernel's tables write it
Losses = dict[tuple[str, int], float]


@dataclass
class Training:
    """`bizllm finetune` on the head, and what can be seen of it from outside."""

    home: Path
    process: subprocess.Popen[str]
    began: float

    @classmethod
    def start(cls, head: Machine, home: Path, *more: str, **changes: Any) -> Training:
        home.mkdir(exist_ok=True)
        if not (home / "base").exists():
            trainings.knowing_base(home / "base")
        path = trainings.training_file(home, home / "base", **SETTINGS, **changes)
        command = [sys.executable, "-m", "bizllm.cli", "finetune", path, "--address", f"{head.address}:{GCS_PORT}"]
        told = {**head.env, "BIZLLM_LOG": "info", "BIZLLM_LOG_FILE": str(home / "log")}
        head = Machine(head.name, head.address, told, head.log)
        out: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": (home / "said").open("w"), "cwd": home}
        return cls(home, head.start(*command, *more, **out), time.monotonic())

    @property
    def folder(self) -> Path:
        """Of the run."""
        (found,) = (self.home / "out/models/topics").glob("2*")
        return found

    def figures(self) -> Losses:
        """What was told so far; each step once."""
        losses: Losses = {}
        for file in (self.home / "out/models/topics").glob("2*/metrics.jsonl"):
            for line in file.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    one = json.loads(line)
                    assert (one["split"], one["step"]) not in losses
                    losses[one["split"], one["step"]] = one["loss"]
        return losses

    def step(self) -> int:
        return max((step for _, step in self.figures()), default=0)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under that name."""
        lines = (self.home / "log").read_text().splitlines() if (self.home / "log").exists() else []
        return [one for line in lines if (one := json.loads(line))["event"] == name]

    def groups(self) -> list[tuple[int, list[str]]]:
        """(step, addresses by rank) of each group of workers that started."""
        return [(one["step"], one["nodes"].split(", ")) for one in self.events("workers_started")]

    def until(self, happens: Callable[[], bool], within_s: float = 240, every_s: float = 0.05) -> float:
        """Wait; the seconds."""
        began = time.monotonic()
        while not happens():
            assert self.process.poll() is None, (self.home / "said").read_text()[-3000:]
            assert time.monotonic() - began < within_s, (self.home / "said").read_text()[-3000:]
            time.sleep(every_s)
        return time.monotonic() - began

    def end(self, status: int = 0) -> float:
        """Wait for its end; the seconds since its start."""
        assert self.process.wait(400) == status, (self.home / "said").read_text()[-3000:]
        return time.monotonic() - self.began

    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "result.json").read_text()))


def workers_on(machine: Machine) -> list[int]:
    """Processes of the training on a machine."""
    return [pid for pid, command in machine.processes().items() if "RayTrainWorker" in command]


def joining(machine: Machine) -> bool:
    """Whether a worker on it has a connection to another machine's: their group is being made."""
    for pid in workers_on(machine):
        with suppress(OSError):
            sockets = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
            for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
                _, here, there, state, *_, inode = line.split()[:10]
                away = there[:8] not in (here[:8], HEAD_IN_HEX)
                if state == "01" and away and f"socket:[{inode}]" in sockets:
                    return True
    return False


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Losses, float, dict[str, Any]]:
    """Losses, seconds and result of a training on two nodes that nobody disturbed."""
    with cluster(2, **SOON) as (head, _):
        training = Training.start(head, tmp_path_factory.mktemp("quiet") / "home")
        seconds = training.end()
    losses = training.figures()
    assert max(step for _, step in losses) == STEPS and training.result()["metrics"]["test"]["macro_f1"] > 0.8
    return losses, seconds, training.result()


@pytest.mark.parametrize("how", ["killed", "cut off", "back late"])
def test_a_lost_node_is_replaced_and_no_loss_changes(
    how: str, quiet: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    losses, undisturbed_s, result = quiet
    with cluster(3, **SOON) as (head, others):
        training = Training.start(head, tmp_path / "home")
        training.until(lambda: training.step() >= LOSE_AT)
        ((_, nodes),) = training.groups()
        by_address = {machine.address: machine for machine in others}
        assert len(set(nodes)) == 2, "two workers on two nodes"
        assert sorted(len(workers_on(machine)) for machine in others) == [0, 1, 1] and all(
            workers_on(by_address[at]) for at in nodes
        )
        lost = by_address[nodes[0]]  # the first worker writes the best weights and says what a checkpoint holds
        if how == "killed":
            lost.kill()
        else:
            lost.link(up=False)
        if how == "back late":
            lost.signal(signal.SIGSTOP)
        before = training.step()
        to_progress = training.until(lambda: training.step() > before)
        seconds = training.end()
        (_, _), (resumed, now) = training.groups()
        assert LOSE_AT - 2 * EVERY <= resumed <= before and lost.address not in now and len(set(now)) == 2
        if how == "back late":
            stood = _content(training.home / "out")
            lost.link(up=True)
            lost.signal(signal.SIGCONT)
        if how != "killed":
            deadline = time.monotonic() + 100
            while any("raylet" in command or "TrainWorker" in command for command in lost.processes().values()):
                assert time.monotonic() < deadline, "a node that was given up ends itself"
                time.sleep(0.2)
        if how == "back late":
            assert _content(training.home / "out") == stood, "what it wrote late changed nothing"
    assert training.figures() == pytest.approx(losses, rel=1e-6)
    assert training.result()["metrics"]["test"] == pytest.approx(result["metrics"]["test"], rel=1e-6)
    what = {
        "killed": "kill -9 of all its processes",
        "cut off": "its cable was pulled; its processes lived on, and ended when they heard no more of Ray's head",
        "back late": "its cable was pulled and its processes were halted; both undone when the training had ended",
    }
    record_property("what", f"a training of two workers on three nodes; the first worker's: {what[how]}")
    record_property("seconds lost", f"{seconds - undisturbed_s:.1f}; {to_progress:.1f} to the next new step")
    record_property(
        "ended", f"resumed at step {resumed} of {before}; losses and test scores equal an undisturbed run's"
    )


@pytest.mark.parametrize(
    ("how", "moment"),
    [("killed", "their processes begin"), ("killed", "they join"), ("cut off", "they join")],
)
def test_a_node_that_is_lost_while_workers_start_is_replaced(
    how: str, moment: str, quiet: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    losses, _, _ = quiet
    with cluster(3, **SOON) as (head, others):
        training = Training.start(head, tmp_path / "home")
        at_it: list[Machine] = []

        def come() -> bool:
            seen = workers_on if moment == "their processes begin" else joining
            at_it[:] = [machine for machine in others if seen(machine)]
            return bool(at_it)

        training.until(come, every_s=0.0)
        lost = at_it[0]
        lost.kill() if how == "killed" else lost.link(up=False)
        assert training.step() == 0, "lost before the first step"
        to_progress = training.until(lambda: training.step() > 0)
        training.until(lambda: training.step() >= 3 * EVERY)  # the rest is as in the others
    (*_, (begun, now)) = training.groups()
    assert begun == 0 and lost.address not in now and len(set(now)) == 2
    (loss,), (made_up,) = training.events("workers_lost"), training.events("loss_made_up")
    assert moment != "their processes begin" or "while they started" in loss["reason"]
    assert made_up["seconds"] > to_progress, "counted from the launch"
    assert f"workers lost: {loss['reason']}; " in (training.home / "said").read_text()
    told = training.figures()
    assert told == pytest.approx({at: losses[at] for at in told}, rel=1e-6)
    what = "kill -9 of all its processes" if how == "killed" else "its cable was pulled"
    record_property("what", f"a training of two workers on three nodes; one of them, when {moment}: {what}")
    record_property("seconds lost", f"{to_progress:.1f} to the first step, {made_up['seconds']:.1f} after the launch")
    record_property("ended", f"other workers began at step 0 ({loss['reason'].split(':')[0]}); losses equal")


def test_an_elastic_training_goes_on_with_one_worker_and_grows_again(
    quiet: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    losses, undisturbed_s, result = quiet
    with cluster(3, **SOON) as (head, (first, second, third)):
        third.kill()  # it comes later
        training = Training.start(head, tmp_path / "home", workers=[1, 2], grow_after_s=5)
        training.until(lambda: training.step() >= LOSE_AT)
        assert set(training.groups()[0][1]) == {first.address, second.address}
        second.kill()
        before = training.step()
        to_progress = training.until(lambda: training.step() > before)
        assert training.groups()[1][1] == [first.address]
        training.until(lambda: training.step() >= before + 3 * EVERY)
        joined = time.monotonic()
        third.join(head)
        training.until(lambda: len(training.groups()) == 3)
        to_growth = time.monotonic() - joined
        seconds = training.end()
    (_, _), (fell, _), (grew, nodes) = training.groups()
    assert set(nodes) == {first.address, third.address} and LOSE_AT - 2 * EVERY <= fell < grew < STEPS
    assert grew % EVERY == 0
    assert training.figures() == pytest.approx(losses, rel=1e-3), "up to the order of sums"
    assert training.result()["metrics"]["test"]["macro_f1"] == pytest.approx(
        result["metrics"]["test"]["macro_f1"], abs=0.02
    )
    said = (training.home / "said").read_text()
    assert f"on from step {fell:,} with 1 worker\n" in said and f"on from step {grew:,} with 2 workers\n" in said
    record_property("what", "workers: [1, 2] on two nodes; one: kill -9 of all its processes; later a third node came")
    record_property(
        "seconds lost",
        f"{seconds - undisturbed_s:.1f}; {to_progress:.1f} to the next new step with one worker, "
        f"{to_growth:.1f} from the third node's start to two workers",
    )
    record_property("ended", f"one worker from step {fell}, two from step {grew}; losses equal to a thousandth")


@pytest.mark.parametrize("moment", ["in the middle", "while workers start"])
def test_a_lost_node_that_nobody_replaces_ends_the_training_and_it_can_be_resumed(
    moment: str, quiet: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    losses, _, _ = quiet
    in_the_middle = moment == "in the middle"
    with cluster(2, **SOON) as (head, (_, lost)):
        training = Training.start(head, tmp_path / "home", wait_for_room_s=10)
        training.until(lambda: training.step() >= LOSE_AT if in_the_middle else bool(workers_on(lost)))
        lost.kill()
        at = time.monotonic()
        training.end(1)
        waited = time.monotonic() - at
        assert waited < 60, "wait_for_room_s, and what it takes to notice"
        said = (training.home / "said").read_text().splitlines()[-1]
        expected = "no room for 2 workers with 1 CPU each within wait_for_room_s (10 s): 1 CPUs of which 1 are free"
        assert expected in said and f"--resume {training.folder.name}" in said, said
        if in_the_middle:
            lost.join(head)
            Training.start(head, tmp_path / "home", "--resume", training.folder.name).end()
    assert training.figures() == (pytest.approx(losses, rel=1e-6) if in_the_middle else {})
    record_property(
        "what", f"a training of two workers on two nodes; one, {moment}: kill -9 of all its processes; no other came"
    )
    record_property("seconds lost", f"{waited:.1f} to its end, wait_for_room_s being 10")
    resumed = "; with the node back, --resume gave an undisturbed run's losses" if in_the_middle else ""
    record_property("ended", f"status 1, naming what lacks{resumed}")


def _content(folder: Path) -> dict[str, str]:
    """path → hash of every file."""
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = Path(top) / name
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
