"""cluster/slurm/bizllm.sbatch on a real Slurm of two nodes: `make test-slurm`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nights import NIGHT, night, receipts
from slurms import SCRIPT, Slurm, slurm_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Job = Callable[..., str]
UNITS = 60
ROOT = Path(__file__).parents[2]

TELL = """
import json, os, ray
ray.init(logging_level="ERROR", log_to_driver=False)
resources = ray.cluster_resources()
token = os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777
folder = os.stat(os.path.dirname(os.environ["RAY_AUTH_TOKEN_PATH"])).st_mode & 0o777
devices = ray.get(ray.remote(num_gpus=1)(lambda: os.environ.get("CUDA_VISIBLE_DEVICES")).remote())
print(json.dumps({"cpus": resources["CPU"], "gpus": resources.get("GPU", 0), "modes": [token, folder],
                  "devices": devices}))
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_cluster() as cluster:
        yield cluster


def wait_for(ready: Callable[[], bool], what: str, within_s: float = 180.0) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def nothing_is_left(slurm: Slurm) -> None:
    wait_for(lambda: slurm.left() == [], f"left: {slurm.left()}", 15)


def submitted(slurm: Slurm, folder: Path, path: str, *more: str, flags: tuple[str, ...] = ()) -> str:
    """The night as a job of two nodes with one CPU each."""
    command = ["bizllm", "run", path, "--date", NIGHT, "--set", "runtime.workers=2", *more]
    return slurm.submit(folder, *command, flags=flags, PYTHONPATH=str(ROOT))


def at_work(slurm: Slurm, number: int) -> bool:
    """Whether a process of the node answers units right now."""
    told = slurm.machines[number].processes().values()
    return any(command.startswith(("ray::_both", "ray::_Work")) for command in told)


def test_a_night_on_two_nodes(slurm: Slurm, many: Job, undisturbed: Callable[[str], Any], tmp_path: Path) -> None:
    path = many(UNITS)
    job = submitted(slurm, tmp_path, path)
    wait_for(lambda: at_work(slurm, 0) and at_work(slurm, 1), "the run never came to both nodes")
    assert slurm.ended(job) == ("COMPLETED", "0:0"), (tmp_path / f"{job}.log").read_text()
    nothing_is_left(slurm)
    assert night(path) == undisturbed(path)


def test_the_status_is_the_nights_own(slurm: Slurm, many: Job, tmp_path: Path) -> None:
    job = submitted(slurm, tmp_path, many(), "--only", "sumary")
    assert slurm.ended(job) == ("FAILED", "2:0")
    said = (tmp_path / f"{job}.log").read_text()
    assert "did you mean 'summary'?" in said
    nothing_is_left(slurm)


def test_a_job_that_is_cancelled_leaves_nothing_and_the_next_goes_on(
    slurm: Slurm, many: Job, undisturbed: Callable[[str], Any], tmp_path: Path
) -> None:
    path = many(UNITS)
    job = submitted(slurm, tmp_path, path)
    wait_for(lambda: len(receipts(tmp_path)) >= 4 and at_work(slurm, 1), "the run never came far enough")
    slurm.command("scancel", job)
    state, _ = slurm.ended(job)
    assert state == "CANCELLED"
    wait_for(lambda: slurm.processes() == [], f"left: {slurm.processes()}", 15)
    before = receipts(tmp_path)
    assert 4 <= len(before) < UNITS, "cancelled in the middle"
    assert slurm.ended(submitted(slurm, tmp_path, path)) == ("COMPLETED", "0:0")
    nothing_is_left(slurm)  # of either
    assert night(path) == undisturbed(path)


def test_a_job_whose_time_is_up_ends_by_itself(slurm: Slurm, many: Job, tmp_path: Path) -> None:
    """The command is asked to end before Slurm kills: it says so with its own status."""
    wait = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); time.sleep(300)"
    flags = ("--time=3", "--signal=B:USR1@90")  # Slurm counts in minutes, and may be a minute early
    job = slurm.submit(tmp_path, "python", "-c", wait, flags=flags)
    assert slurm.ended(job) == ("FAILED", "130:0")
    assert "the time is almost up" in (tmp_path / f"{job}.log").read_text()
    nothing_is_left(slurm)


def test_the_cluster_is_private_and_of_the_allocations_size(slurm: Slurm, tmp_path: Path) -> None:
    """Whoever asks with the job's token is answered; with another one nobody is, however long it asks."""
    said = f"cp \"$RAY_AUTH_TOKEN_PATH\" {tmp_path}/right; python -c '{TELL}'; sleep 60"
    job = slurm.submit(tmp_path, "sh", "-c", said, flags=("--gres=gpu:1",))
    log = tmp_path / f"{job}.log"
    wait_for(lambda: log.exists() and '{"cpus"' in log.read_text(), "it never came so far")
    told = json.loads(next(line for line in log.read_text().splitlines() if line.startswith('{"cpus"')))
    assert told == {"cpus": 2.0, "gpus": 2.0, "modes": [0o600, 0o700], "devices": "0"}
    (tmp_path / "wrong").write_text("b" * 64)
    address = f"{slurm.machines[0].address}:{20000 + int(job) % 4000 * 10}"
    asked = [str(Path(sys.executable).with_name("ray")), "status", "--address", address]
    for token, answered in (("right", True), ("wrong", False)):
        given = ["env", "RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN_PATH={tmp_path / token}"]
        status = slurm.machines[0].start(*given, *asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            out, _ = status.communicate(timeout=25)
        except subprocess.TimeoutExpired:
            status.kill()
            out, _ = status.communicate()
        assert ("Active:" in out) is answered, (token, out)
    assert slurm.ended(job) == ("COMPLETED", "0:0")
    nothing_is_left(slurm)


def test_without_a_command_nothing_starts(tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: sbatch")
