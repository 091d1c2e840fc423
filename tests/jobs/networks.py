"""Two machines on one: network namespaces with addresses of their own, a cable between them, and a Ray node in each."""

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


def need_namespaces() -> None:
    """Skip, or fail where BIZLLM_REQUIRE_NETNS says that nothing may be missing."""
    missing = "no root" if os.geteuid() else "no iproute2" if shutil.which("ip") is None else ""
    if not missing:
        probe = f"bizllm-{os.getpid()}-probe"
        made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
        missing = made.stderr.strip() if made.returncode else ""
        if not missing:
            subprocess.run(["ip", "netns", "delete", probe], check=True)
    if missing:
        told = f"network namespaces: {missing}"
        (pytest.fail if os.environ.get("BIZLLM_REQUIRE_NETNS") else pytest.skip)(told)


class Machine:
    """A namespace with one address. Its processes see the same disks as everybody here."""

    def __init__(self, name: str, address: str, env: dict[str, str], log: Path) -> None:
        self.name, self.address, self.env, self.log = name, address, env, log

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """A command in the namespace, in a session of its own."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(inside, env=self.env, text=True, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]

    def start_ray(self, *more: str) -> None:
        """`ray start` in the namespace, with one CPU; waits until it says that it runs."""
        asked = [str(VENV_BIN / "ray"), "start", "--block", "--num-cpus", "1", "--object-store-memory", "150000000"]
        with self.log.open("wb") as log:
            node = self.start(*asked, "--node-ip-address", self.address, *more, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in self.log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def processes(self) -> dict[int, str]:
        """pid → command of everything that runs in the namespace."""
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        found = {}
        for pid in map(int, told.stdout.split()):
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def lose(self) -> None:
        """Everything ends at once and nothing says good-bye on the wire, as when a machine loses its power."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "wire", "down"], check=True)
        self.kill()

    def kill(self) -> None:
        """kill -9 of every process in the namespace, until none is left."""
        deadline = time.monotonic() + 30
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


@contextmanager
def two_machines(**settings: str) -> Iterator[tuple[Machine, Machine]]:
    """A head and a worker that see each other through a cable of their own and nobody else. settings: environment."""
    need_namespaces()
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # Ray refuses long paths for its sockets
    (folder / "token").write_text("a" * 64)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "BIZLLM_"))}
    env = outside | {
        "PATH": f"{VENV_BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A node that answers no more is given up after 5 s instead of 15: the test waits for it.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "1000",
        "RAY_health_check_failure_threshold": "5",
        **settings,
    }
    names = [f"bizllm-{os.getpid()}-{kind}" for kind in ("head", "worker")]
    machines = []
    try:
        for number, name in enumerate(names, start=1):
            ip("netns", "add", name)
            machines.append(Machine(name, f"{NETWORK}.{number}", env, folder / f"{number}.log"))
        ip("link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1])
        for machine in machines:
            ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", machine.name, "link", "set", device, "up")
        head, worker = machines
        web = ["--include-dashboard", "false", "--temp-dir", str(folder)]
        head.start_ray("--head", "--port", str(GCS_PORT), *web)
        worker.start_ray("--address", f"{head.address}:{GCS_PORT}")
        yield head, worker
    finally:
        for machine in machines:
            machine.kill()
            subprocess.run(["ip", "netns", "delete", machine.name], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def ip(*words: str) -> None:
    """An `ip` command that must work."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
