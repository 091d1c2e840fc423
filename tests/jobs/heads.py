"""Real Ray heads with a dashboard that ask for a token, each with ports and a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VENV_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A Ray head with a dashboard. env: what a client needs to be let in. client: for drivers elsewhere (ray://)."""

    url: str
    client: str
    env: dict[str, str]
    process: subprocess.Popen[bytes]

    def submit(self, folder: Path, *entrypoint: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """`ray job submit` of a command in a folder that is uploaded: (exit status, everything printed)."""
        asked = [str(VENV_BIN / "ray"), "job", "submit", "--address", self.url, "--working-dir", str(folder), "--"]
        done = subprocess.run(
            [*asked, *entrypoint],
            env=self.env if env is None else env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            cwd=folder,
        )
        return done.returncode, done.stdout


def typed(*words: str) -> Any:
    """What `bizllm …` answers, typed in this process, which `inside` lets in."""
    from typer.testing import CliRunner

    from bizllm.cli import app

    return CliRunner().invoke(app, words)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def started_head(dashboard: int | None = None, programs: Path = VENV_BIN) -> Iterator[Head]:
    """A head while the block lasts. dashboard: its port. programs: where its `ray` and its jobs' `python` are.

    Ray refuses long paths for its sockets, hence a short folder of its own; `ray stop` would end every Ray here.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    (folder / "token").write_text("a" * 64)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "BIZLLM_"))}
    env = outside | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "150",  # for a driver's server, on a busy machine; 30 s by default
        "AWS_ACCESS_KEY_ID": "testing",  # nodes have an identity; where the store is they must be told
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    started_with = {name: value for name, value in env.items() if programs == VENV_BIN or name != "PYTHONPATH"}
    gcs, web_port, client, agent = free_ports(4)
    web_port = dashboard or web_port
    sizes = ["--num-cpus", "2", "--object-store-memory", "200000000"]
    ports = ["--port", str(gcs), "--dashboard-port", str(web_port), "--ray-client-server-port", str(client)]
    # The Ray of other tests has an agent too: with the default port, jobs find no agent.
    ports += ["--dashboard-agent-listen-port", str(agent)]
    web = ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--node-ip-address", "127.0.0.1"]
    process = subprocess.Popen(
        [str(programs / "ray"), "start", "--head", "--block", "--temp-dir", str(folder), *sizes, *ports, *web],
        env=started_with,
        stdout=(folder / "head.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for port in (web_port, client):
            _await(port, process, folder / "head.log")
        yield Head(f"http://127.0.0.1:{web_port}", f"ray://127.0.0.1:{client}", env, process)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, process: subprocess.Popen[bytes], log: Path, within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the head and all of its session: nothing of it is kept, and in good order Ray takes seconds to end."""
    while members := _session(process.pid):
        for pid in members:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.05)
    process.wait()


def _session(leader: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            found += [int(stat.parent.name)] if int(session) == leader and state not in "ZX" else []
    return found
