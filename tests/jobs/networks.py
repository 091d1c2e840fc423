"""Several machines on one: network namespaces with addresses of their own on one switch, and a Ray node in each.

`python tests/jobs/networks.py` removes what tests left that were killed; each cluster does so before it begins.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

VENV_BIN = Path(sys.executable).parent
GCS_PORT = 6379  # nobody else is in the namespace
NETWORK = "10.213.7"
OWN = f"bizllm-{os.getpid()}-"  # namespaces and folders of this process


def need_namespaces() -> None:
    """Skip, or fail where BIZLLM_REQUIRE_NETNS says that nothing may be missing."""
    missing = "no root" if os.geteuid() else "no iproute2" if shutil.which("ip") is None else ""
    if not missing:
        probe = f"{OWN}probe"
        made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
        missing = made.stderr.strip() if made.returncode else ""
        if not missing:
            subprocess.run(["ip", "netns", "delete", probe], check=True)
    if missing:
        told = f"network namespaces: {missing}"
        (pytest.fail if os.environ.get("BIZLLM_REQUIRE_NETNS") else pytest.skip)(told)


def remove_leftovers() -> None:
    """Namespaces, with all that runs in them, and folders of tests that live no more."""
    names = [Path("/run/netns"), Path(tempfile.gettempdir())]
    for left in [file for folder in names for file in folder.glob("bizllm-*-*")]:
        owner = left.name.split("-")[1]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        if left.parent == names[0]:
            Machine(left.name, "", {}, left).remove()
        else:
            shutil.rmtree(left, ignore_errors=True)


class Machine:
    """A namespace with one address. Its processes see the same disks as everybody here; `/tmp` is its own."""

    def __init__(self, name: str, address: str, env: dict[str, str], log: Path) -> None:
        self.name, self.address, self.env, self.log = name, address, env, log

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """A command in the namespace, in a session of its own."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(inside, env=self.env, text=True, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]

    def start_ray(self, *more: str, cpus: int = 1) -> None:
        """`ray start` in the namespace; waits until it says that it runs.

        One after another: nodes that start at once on one disk take the same name for their sockets.
        """
        asked = [str(VENV_BIN / "ray"), "start", "--block", "--num-cpus", str(cpus)]
        asked += ["--object-store-memory", "150000000", "--node-ip-address", self.address]
        with self.log.open("wb") as log:
            node = self.start(*asked, *more, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in self.log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def join(self, head: Machine) -> None:
        """A Ray node of the head's cluster, with one CPU."""
        self.start_ray("--address", f"{head.address}:{GCS_PORT}")

    def processes(self) -> dict[int, str]:
        """pid → command of everything that runs in the namespace."""
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        found = {}
        for pid in map(int, told.stdout.split()):
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def link(self, up: bool) -> None:
        """Its cable, plugged in or pulled out. No connection is closed, and its processes live on."""
        ip("-n", self.name, "link", "set", "wire", "up" if up else "down")

    def lose(self) -> None:
        """Everything ends at once and nothing says good-bye on the wire, as when a machine loses its power."""
        self.link(up=False)
        self.kill()

    def signal(self, number: int) -> None:
        """To every process in the namespace."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """kill -9 of every process in the namespace, until none is left."""
        deadline = time.monotonic() + 30
        while self.processes() and time.monotonic() < deadline:
            self.signal(signal.SIGKILL)
            time.sleep(0.05)

    def remove(self) -> None:
        """With all that runs in it."""
        self.kill()
        subprocess.run(["ip", "netns", "delete", self.name], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def machines(count: int, head_cpus: int = 1, dashboard: bool = False, **settings: str) -> Iterator[list[Machine]]:
    """A head and `count` - 1 others on one switch, which nobody else sees. settings: environment of all of them.

    Ray runs on the head alone; the others `join`. The token is asked for everywhere.
    """
    need_namespaces()
    remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=OWN))  # Ray refuses long paths for its sockets
    (folder / "token").write_text("a" * 64)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "BIZLLM_"))}
    env = outside | {
        "PATH": f"{VENV_BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "80",
        "GLOO_SOCKET_IFNAME": "wire",  # all have the name of this machine, which leads to no address of theirs
        # A node that answers no more is given up after 5 s instead of 15: the test waits for it.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "1000",
        "RAY_health_check_failure_threshold": "5",
        **settings,
    }
    switch = f"{OWN}switch"
    made: list[Machine] = []
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "switch", "type", "bridge")
        ip("-n", switch, "link", "set", "switch", "up")
        for number in range(1, count + 1):
            name, port, own = f"{OWN}{number}", f"port{number}", folder / f"{number}"
            own.mkdir()
            machine = Machine(name, f"{NETWORK}.{number}", env | {"TMPDIR": str(own)}, folder / f"{number}.log")
            made.append(machine)
            ip("netns", "add", name)
            ip("link", "add", "wire", "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
            ip("-n", switch, "link", "set", port, "master", "switch", "up")
            ip("-n", name, "address", "add", f"{machine.address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", name, "link", "set", device, "up")
        web = ["--include-dashboard", str(dashboard).lower(), "--dashboard-host", made[0].address]
        made[0].start_ray("--head", "--port", str(GCS_PORT), *web, "--temp-dir", str(folder), cpus=head_cpus)
        yield made
    finally:
        for machine in made:
            machine.remove()
        subprocess.run(["ip", "netns", "delete", switch], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster(workers: int, **options: object) -> Iterator[tuple[Machine, list[Machine]]]:
    """A head without CPUs for tasks, and so many nodes with one each."""
    with machines(workers + 1, head_cpus=0, **options) as (head, *others):  # type: ignore[arg-type]
        for other in others:
            other.join(head)
        yield head, others


def ip(*words: str) -> None:
    """An `ip` command that must work."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)


if __name__ == "__main__":
    remove_leftovers()
