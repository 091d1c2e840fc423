"""A night over two Ray nodes with addresses of their own, one of which is lost in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import GCS_PORT, Machine, two_machines
from nights import NIGHT, ROWS, night, receipts

UNITS = 60

# What cluster/ sets on every node, shorter: how soon a driver asks a silent machine whether it is there.
SOON = {"RAY_grpc_client_keepalive_time_ms": "5000", "RAY_grpc_client_keepalive_timeout_ms": "5000"}


def at_work(machine: Machine) -> bool:
    """Whether a process of the machine answers units right now."""
    return any(command.startswith(("ray::_both", "ray::_Work")) for command in machine.processes().values())


@pytest.mark.parametrize("how", ["killed", pytest.param("powerless", marks=pytest.mark.slow)])
def test_a_node_that_is_lost_in_the_middle_changes_nothing(
    how: str, many: Callable[..., str], undisturbed: Callable[[str], Any], tmp_path: Path
) -> None:
    """killed: kill -9 of all its processes. powerless: its cable is cut first, so that no connection is closed."""
    path = many(UNITS)
    with two_machines(**SOON) as (head, worker):
        address = f"{head.address}:{GCS_PORT}"
        command = [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--json", "--address", address]
        command += ["--set", "runtime.workers=2"]
        run = head.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not (len(receipts(tmp_path)) >= 4 and at_work(worker) and at_work(head)):
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline, "the run never came to both nodes"
            time.sleep(0.005)
        if how == "powerless":
            worker.lose()
        else:
            worker.kill()
        assert len(receipts(tmp_path)) < UNITS and worker.processes() == {}, "lost in the middle"
        out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    (step,) = json.loads(out)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"], step["rows_rejected"]) == ("done", ROWS, ROWS - 3, 3)
    assert night(path) == undisturbed(path)
