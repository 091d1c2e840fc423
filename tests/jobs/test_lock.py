"""The run lock, raced by real processes on local disk; tests/tables/test_warehouse_s3.py has it on S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bizllm.errors import LockHeld, RunError
from bizllm.jobs import lock as lock_module
from bizllm.jobs.lock import RunLock

HOLD = """
import sys, time
from bizllm.jobs.lock import RunLock
with RunLock(sys.argv[1], "holder", lease_s=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""

# Two of these inside at once would both create `inside`, and one of them would fail.
COUNT = """
import os, sys, time
from bizllm.errors import LockHeld
from bizllm.jobs.lock import RunLock
url, folder, done = sys.argv[1], sys.argv[2], 0
while done < 5:
    try:
        with RunLock(url, "racer", lease_s=30) as lock:
            os.close(os.open(folder + "/inside", os.O_CREAT | os.O_EXCL))
            lock.check()
            with open(folder + "/epochs", "a") as epochs:
                epochs.write(f"{lock.epoch}\\n")
            os.unlink(folder + "/inside")
            done += 1
    except LockHeld:
        time.sleep(0.002)
"""


def hold(url: str, lease_s: float = 30.0) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, url, str(lease_s)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at leases as another machine would, where the holder's pid says nothing."""
    monkeypatch.setattr(lock_module, "_machine", lambda: "elsewhere")


def test_epoch_grows_over_releases(tmp_path: Path) -> None:
    url = f"{tmp_path}/2024-01-01.json"
    for epoch in (1, 2, 3):
        with RunLock(url, "r") as lock:
            lock.check()
            assert lock.epoch == epoch
    assert [file.name for file in (tmp_path / "2024-01-01").iterdir()] == ["00000003.json"]


def test_live_run_is_named_at_once(tmp_path: Path) -> None:
    process = hold(f"{tmp_path}/d.json")
    try:
        before = time.monotonic()
        with pytest.raises(LockHeld, match=rf"\(holder\).*{os.uname().nodename}, pid {process.pid}"):
            RunLock(f"{tmp_path}/d.json", "second").__enter__()
        assert time.monotonic() - before < 2
        with RunLock(f"{tmp_path}/another-date.json", "second"):
            pass
    finally:
        process.kill()
        process.wait()


def test_killed_run_on_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    process = hold(f"{tmp_path}/d.json", lease_s=3600)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its zombie stays: that is no life
    before = time.monotonic()
    with RunLock(f"{tmp_path}/d.json", "second") as lock:
        assert lock.epoch == 2
    assert time.monotonic() - before < 5
    process.wait()


def test_pid_that_was_given_to_another_process_is_dead(tmp_path: Path) -> None:
    lock = RunLock(f"{tmp_path}/d.json", "first", lease_s=3600)
    lock.__enter__()
    assert lock._held is not None
    lock._write(replace(lock._held, started="1"))
    with RunLock(f"{tmp_path}/d.json", "second") as second:
        assert second.epoch == 2
    lock.__exit__(None, None, None)


def test_beating_run_elsewhere_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = hold(f"{tmp_path}/d.json", lease_s=1.0)
    as_elsewhere(monkeypatch)
    try:
        with pytest.raises(LockHeld):
            RunLock(f"{tmp_path}/d.json", "second", lease_s=1.0).__enter__()
    finally:
        process.kill()
        process.wait()


def test_stopped_run_elsewhere_is_followed_after_a_lease_and_fails_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{tmp_path}/d.json"
    process = hold(url, lease_s=0.5)
    os.kill(process.pid, signal.SIGSTOP)
    as_elsewhere(monkeypatch)
    before = time.monotonic()
    try:
        with RunLock(url, "second", lease_s=0.5) as lock:
            assert time.monotonic() - before >= 0.5
            assert lock.epoch == 2
            os.kill(process.pid, signal.SIGCONT)  # it wakes, and must neither beat nor get the lock back
            time.sleep(0.8)
            lock.check()
            assert [file.name for file in (tmp_path / "d").glob("*.json")] == ["00000002.json"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("days", [-10, 10])
def test_a_clock_that_jumps_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """Neither here nor there: a holder that beats holds, one that stopped is followed after a lease, not before."""
    url = f"{tmp_path}/d.json"
    process = hold(url, lease_s=1.0)
    now = time.time
    as_elsewhere(monkeypatch)
    monkeypatch.setattr(time, "time", lambda: now() + days * 24 * 3600.0)
    try:
        with pytest.raises(LockHeld, match=r"for \d+ s"):
            RunLock(url, "second", lease_s=1.0).__enter__()
        os.kill(process.pid, signal.SIGSTOP)
        before = time.monotonic()
        with RunLock(url, "second", lease_s=1.0) as lock:
            assert time.monotonic() - before >= 1.0
            lock.check()
    finally:
        process.kill()
        process.wait()


def test_check_fails_after_a_take_over(tmp_path: Path) -> None:
    url = f"{tmp_path}/d.json"
    with RunLock(url, "first", lease_s=3600) as first:
        assert first._held is not None
        first._write(replace(first._held, released=True))  # as if its lease had run out
        with RunLock(url, "second") as second:
            with pytest.raises(RunError, match="taken over"):
                first.check()
            second.check()
        with pytest.raises(RunError, match="taken over"):
            first.check()


def test_release_leaves_anothers_lock_alone(tmp_path: Path) -> None:
    url = f"{tmp_path}/d.json"
    first = RunLock(url, "first", lease_s=3600).__enter__()
    assert first._held is not None
    first._write(replace(first._held, released=True))
    with RunLock(url, "second"):
        first.__exit__(None, None, None)
        said = json.loads((tmp_path / "d" / "00000002.json").read_text())
        assert (said["holder"], said["released"]) == ("second", False)


def test_exception_in_the_block_releases(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunLock(f"{tmp_path}/d.json", "first"):
        raise KeyboardInterrupt
    with RunLock(f"{tmp_path}/d.json", "second") as lock:
        assert lock.epoch == 2


def test_one_of_many_threads_wins_an_expired_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{tmp_path}/d.json"
    process = hold(url, lease_s=0.5)
    process.kill()
    process.wait()
    as_elsewhere(monkeypatch)

    losers = threading.Semaphore(0)

    def attempt(number: int) -> bool:
        lock = RunLock(url, f"r{number}", lease_s=30)
        try:
            lock.__enter__()
        except LockHeld:
            losers.release()
            return False
        for _ in range(5):  # released before, it would be free for a thread that comes late
            assert losers.acquire(timeout=30)
        lock.check()
        lock.__exit__(None, None, None)
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1


def test_racing_processes_are_never_inside_together(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT, f"{tmp_path}/d.json", str(tmp_path)]
    racers = [subprocess.Popen(command) for _ in range(4)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0, 0, 0]
    epochs = [int(line) for line in (tmp_path / "epochs").read_text().split()]
    assert len(epochs) == 20 and epochs == sorted(set(epochs))
