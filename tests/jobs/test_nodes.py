"""A night over Ray nodes with addresses of their own, one of which is killed in the middle, or cut off the network."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import GCS_PORT, Machine, cluster
from nights import NIGHT, ROWS, night, receipts

UNITS = 60

# What cluster/ sets on every node, shorter: how soon a driver asks a silent machine whether it is there.
SOON = {"RAY_grpc_client_keepalive_time_ms": "5000", "RAY_grpc_client_keepalive_timeout_ms": "5000"}

WHAT = {
    "killed": "kill -9 of all its processes",
    "powerless": "its cable was pulled, then kill -9: no connection was closed",
    "cut off": "its cable was pulled; its processes lived on, and ended when they heard no more of Ray's head",
    "back at once": "its cable was pulled for 3 s, less than Ray takes to give a machine up",
    "back late": "its cable was pulled and its processes were halted in a unit; both undone when the night stood",
}
FAST = "killed"


def at_work(machine: Machine) -> bool:
    """Whether a process of the machine answers units right now."""
    return any(command.startswith(("ray::_both", "ray::_Work")) for command in machine.processes().values())


def run_night(head: Machine, path: str) -> subprocess.Popen[str]:
    """`bizllm run` on the head, with two workers."""
    command = [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--json"]
    command += ["--address", f"{head.address}:{GCS_PORT}", "--set", "runtime.workers=2"]
    return head.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def quiet_s(many_in: Callable[[Path], Callable[..., str]], tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of such a night where nothing happens."""
    path = many_in(tmp_path_factory.mktemp("quiet"))(UNITS)
    with cluster(2, **SOON) as (head, _):
        began = time.monotonic()
        run = run_night(head, path)
        _, err = run.communicate(timeout=200)
        assert run.returncode == 0, err
        return time.monotonic() - began


@pytest.mark.parametrize("how", [pytest.param(how, marks=[] if how == FAST else pytest.mark.nodes) for how in WHAT])
def test_a_node_that_is_lost_in_the_middle_changes_nothing(
    how: str,
    many: Callable[..., str],
    undisturbed: Callable[[str], Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    quiet_s = None if how == FAST else request.getfixturevalue("quiet_s")
    path = many(UNITS)
    with cluster(2, **SOON) as (head, (other, lost)):
        began = time.monotonic()
        run = run_night(head, path)
        deadline = time.monotonic() + 120
        while not (len(receipts(tmp_path)) >= 4 and at_work(lost) and at_work(other)):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline, "the run never came to both nodes"
            time.sleep(0.005)
        if how == "killed":
            lost.kill()
        elif how == "powerless":
            lost.lose()
        else:
            lost.link(up=False)
        if how == "back late":
            lost.signal(signal.SIGSTOP)
        at, before = time.monotonic(), len(receipts(tmp_path))
        assert before < UNITS, "lost in the middle"
        if how == "back at once":
            time.sleep(3)
            lost.link(up=True)
        zombies = lost.processes()
        assert bool(zombies) == (how not in ("killed", "powerless"))
        out, err = run.communicate(timeout=250)
        whole, after_loss = time.monotonic() - began, time.monotonic() - at
        if how == "back late":
            stood = night(path)
            lost.link(up=True)
            lost.signal(signal.SIGCONT)
        if how in ("cut off", "back late"):
            deadline = time.monotonic() + 100
            while any("raylet" in command for command in lost.processes().values()):
                assert time.monotonic() < deadline, "a node that was given up ends itself"
                time.sleep(0.2)
    assert run.returncode == 0, err
    table = night(path)
    assert how != "back late" or table == stood
    (step,) = json.loads(out)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"], step["rows_rejected"]) == ("done", ROWS, ROWS - 3, 3)
    assert table == undisturbed(path)
    record_property("what", f"a night of {UNITS} units on two nodes; one: {WHAT[how]}")
    record_property("seconds lost", f"{whole - quiet_s:.1f}" if quiet_s else "")
    record_property("ended", f"{after_loss:.1f} s after the loss; the table equals an undisturbed run's")
