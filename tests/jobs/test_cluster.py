"""The nightly script as a Ray job: submitted to a real head that asks for a token."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bizllm import api

NIGHT = "2026-03-10"
ROOT = Path(__file__).parents[2]
VENV_BIN = Path(sys.executable).parent
Job = Callable[..., str]


@dataclass(frozen=True)
class Head:
    """A Ray head with a dashboard. env: what a client needs to be let in. client: for drivers elsewhere (ray://)."""

    url: str
    client: str
    env: dict[str, str]

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


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Ray refuses long paths for its sockets, hence a short folder of its own; `ray stop` would end every Ray here."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    (folder / "token").write_text("a" * 64)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_", "BIZLLM_"))}
    env = outside | {
        "PATH": f"{VENV_BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "AWS_ACCESS_KEY_ID": "testing",  # nodes have an identity; where the store is they must be told
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    gcs, dashboard, client, agent = _free_ports(4)
    sizes = ["--num-cpus", "2", "--object-store-memory", "200000000"]
    ports = ["--port", str(gcs), "--dashboard-port", str(dashboard), "--ray-client-server-port", str(client)]
    # The Ray of other tests has an agent too: with the default port, jobs find no agent.
    ports += ["--dashboard-agent-listen-port", str(agent)]
    web = ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--node-ip-address", "127.0.0.1"]
    process = subprocess.Popen(
        [str(VENV_BIN / "ray"), "start", "--head", "--block", "--temp-dir", str(folder), *sizes, *ports, *web],
        env=env,
        stdout=(folder / "head.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _await(dashboard, process, folder / "head.log")
        yield Head(f"http://127.0.0.1:{dashboard}", f"ray://127.0.0.1:{client}", env)
    finally:
        _end(process)
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


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head, then whatever of its session is left."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == process.pid:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue


@pytest.fixture
def shop(job: Job, tmp_path: Path) -> Path:
    """A folder to submit: the job, its data and the script; the package itself is installed on the cluster."""
    folder = tmp_path / "upload"
    folder.mkdir()
    job(steps__segments=None, sources__orders=None)
    shutil.copy(ROOT / "jobs" / "nightly.py", folder)
    shutil.move(tmp_path / "tickets", folder)
    shutil.move(tmp_path / "shop.yaml", folder)
    return folder


def test_a_warehouse_in_the_jobs_own_copy_is_refused(head: Head) -> None:
    """The whole project as working folder, and the demo, whose warehouse is beside it by default."""
    status, said = head.submit(
        ROOT, "python", "jobs/nightly.py", "--job", "jobs/demo.yaml", "--date", "2026-06-30", "--only", "ticket_summary"
    )
    assert status != 0 and "exit code 2" in said, said
    assert "warehouse.path: " in said and "working folder, which Ray deletes when the job ends" in said
    assert "Traceback (most recent call last)" not in said


def test_a_night_as_a_ray_job(head: Head, shop: Path, tmp_path: Path) -> None:
    script = ["python", "nightly.py", "--job", "shop.yaml", "--date", NIGHT]
    warehouse = f"warehouse.path={tmp_path / 'wh'}"
    status, said = head.submit(shop, *script, "--set", warehouse)
    assert status == 0 and "succeeded" in said.lower(), said
    path = str(shop / "shop.yaml")
    (count,) = api.show(path, sql="select count(*) n, count(summary) s from summary", sets=[warehouse]).to_pylist()
    assert count == {"n": 12, "s": 12}
    assert [row["state"] for row in api.runs(path, sets=[warehouse])] == ["done"]


def test_a_night_from_elsewhere(head: Head, job: Job) -> None:
    """The driver is a Ray client; more units than go through plain Ray on the cluster itself."""
    path = job(steps__summary=None, sources__tickets=None, runtime={"unit_rows": 2})
    done = subprocess.run(
        [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--address", head.client, "--json"],
        env=head.env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"]) == ("done", 40, 40)


@pytest.mark.slow
def test_workers_elsewhere_are_told_of_the_store(head: Head, job: Job, s3_endpoint: str, tmp_path: Path) -> None:
    """Neither the cluster nor the driver has more than keys: what the file says of the store must reach both."""
    import boto3

    store = boto3.client("s3", endpoint_url=s3_endpoint)
    store.create_bucket(Bucket="elsewhere")
    store.upload_file(str(tmp_path / "orders/part-0.parquet"), "elsewhere", "orders/part-0.parquet")
    path = job(
        steps__summary=None,
        sources={"orders": {"path": "s3://elsewhere/orders", "key": ["order_id"]}},
        warehouse={"path": "s3://elsewhere/wh", "uri": f"sqlite:///{tmp_path}/catalog.db"},
        storage={"endpoint": s3_endpoint, "region": "us-east-1"},
    )
    done = subprocess.run(
        [sys.executable, "-m", "bizllm.cli", "run", path, "--date", NIGHT, "--address", head.client, "--json"],
        env=head.env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert (step["state"], step["rows_in"], step["rows_out"]) == ("done", 40, 40)


def test_a_client_without_the_token_is_refused(head: Head, shop: Path) -> None:
    bare = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    status, said = head.submit(shop, "python", "-c", "print('ran')", env=bare | {"RAY_AUTH_MODE": "disabled"})
    assert status != 0 and "ran\n" not in said
    assert "token" in said.lower(), said
