"""`bizllm submit`, `ray job submit`, a driver elsewhere: what is refused before anything is sent, and nights on a real
head that asks for a token."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from heads import Head, end, free_ports, started_head

from bizllm import api
from bizllm.errors import RunError, UserError
from bizllm.jobs import ray_jobs
from bizllm.jobs import submit as submitting
from bizllm.jobs.lock import RunLock

NIGHT = "2026-03-10"
ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there
Job = Callable[..., str]


@pytest.fixture
def night(job: Job, tmp_path: Path) -> Callable[..., str]:
    """One step of the shop's job with a warehouse that the cluster's nodes see."""

    job(steps__segments=None, sources__orders=None, warehouse={"path": str(tmp_path / "wh")})
    return job


def command(path: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "bizllm.cli", "submit", path, "--date", NIGHT, *more]


def submit(head: Head, path: str, *more: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`bizllm submit` in a process of its own, with the environment that lets it in, or `env`."""
    asked = command(path, "--address", head.url, *more)
    return subprocess.run(asked, env=env or head.env, capture_output=True, text=True, timeout=200)


def faults(path: str, **options: object) -> list[str]:
    """What `submit` finds wrong. Nobody listens at the address: a fault of the job must come first."""
    with pytest.raises(UserError) as refused:
        api.submit(path, date=NIGHT, **{"address": NOBODY, **options})  # type: ignore[arg-type]
    return str(refused.value).splitlines()


# -- before anything is sent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["wh", "../out/wh", "~/wh"])
def test_a_warehouse_in_the_copy_is_refused(night: Job, path: str) -> None:
    (line,) = faults(night(warehouse={"path": path}))
    assert "warehouse.path" in line and f"'{path}'" in line and "s3://" in line


@pytest.mark.parametrize("path", ["wh", "../wh"])
def test_a_job_of_the_cluster_refuses_it_too(night: Job, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a variable of the cluster's leads there, which `submit` cannot know."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="which Ray deletes when the job ends"):
        api.run(night(warehouse={"path": path}), date=NIGHT)


def test_a_warehouse_of_a_relative_override_is_refused(night: Job) -> None:
    (line,) = faults(night(), sets=["warehouse.path=out"])
    assert line.startswith("--set warehouse.path: 'out'")


def test_a_catalog_in_the_copy_is_refused(night: Job) -> None:
    warehouse = {"path": "s3://lake/wh", "catalog": "sql", "uri": "sqlite:///catalog.db"}
    (line,) = faults(night(warehouse=warehouse))
    assert "warehouse.uri" in line and "catalog.db" in line


def test_data_outside_the_folder_is_refused(night: Job, tmp_path: Path) -> None:
    (line,) = faults(night(sources__tickets__path="../elsewhere"))
    assert "sources.tickets.path" in line and "outside the folder that is sent" in line
    (line,) = faults(night(sources__tickets__path="nowhere"))
    assert "sources.tickets.path" in line and "no such file or folder" in line


def test_every_fault_at_once(night: Job, tmp_path: Path) -> None:
    path = night(warehouse={"path": "wh"}, sources__tickets__path="nowhere")
    said = faults(path, only=["summry"], working_dir=str(tmp_path / "gone"))
    assert [line.split(": ")[0].split(" ")[-1] for line in said] == [
        "--only",
        "--working-dir",
        "sources.tickets.path",
        "warehouse.path",
    ]
    assert "did you mean 'summary'?" in said[0]


def test_faults_of_the_file_come_first(night: Job) -> None:
    (line,) = faults(night(steps__summary__task="sumarize"))
    assert "did you mean 'summarize'?" in line


@pytest.mark.parametrize("address", ["ray://head:10001", "auto", "head:8265", "http://", "http://head:port", "ftp://h"])
def test_addresses_that_are_none(night: Job, address: str) -> None:
    (line,) = faults(night(), address=address)
    assert line.startswith(f"--address: '{address}'") and "http://HEAD:8265" in line


def test_without_an_address(night: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (line,) = faults(night(), address=None)
    assert line.startswith("--address: expected")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", NOBODY)
    (line,) = faults(night(), address=None)
    assert "connection refused" in line


def test_nobody_at_the_address(night: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where Ray's own variables name another: what is asked for counts."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:7")
    (line,) = faults(night())
    assert line.startswith(f"--address: '{NOBODY}': no Ray cluster answers there (connection refused)")
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:7"


def test_a_server_that_is_no_ray(night: Job, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    asked = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    server = subprocess.Popen(asked, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while "refused" in (said := _error(night(), f"http://127.0.0.1:{port}")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert said.startswith(f"--address: 'http://127.0.0.1:{port}'") and "\n" not in said
    finally:
        server.terminate()
        server.wait()


def _error(path: str, address: str) -> str:
    with pytest.raises((UserError, RunError)) as refused:
        api.submit(path, date=NIGHT, address=address)
    return str(refused.value)


def test_tokens_that_are_none(night: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    path = night()
    (line,) = faults(path)
    assert line.startswith("RAY_AUTH_TOKEN_PATH: ") and "No such file" in line
    (tmp_path / "token").write_text("\n")
    assert "is empty" in faults(path)[0]
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert faults(path)[0].startswith("RAY_AUTH_MODE: 'token': there is no token")


def test_a_training_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("name: x\nbase: builtin:minilm\nobjective: classification\n")
    assert "bizllm finetune" in faults(str(path))[0]


# -- on a head ----------------------------------------------------------------------------------------------------


def test_a_night_is_sent_and_waited_for(head: Head, night: Job, tmp_path: Path) -> None:
    path = night()
    (tmp_path / ".gitignore").write_text("/mine/\n")
    for folder in (".git", ".venv", "out", "mine", "sub"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"kept-{folder.strip('.')}").write_text("x")
    done = submit(head, path, "--wait", "--json", "--set", "steps.summary.max_sentences=1")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["state"], said["exit_status"], said["date"]) == ("done", 0, NIGHT)
    assert re.fullmatch(rf"shop-{NIGHT}-[0-9a-f]{{6}}", said["submission_id"])
    assert f"ray job stop --address {head.url} {said['submission_id']}" in done.stderr
    assert re.search(r"summary +summarize +done +12 +12", done.stderr), "the job's own lines are shown"
    assert "a" * 64 not in done.stdout + done.stderr
    (count,) = api.show(path, sql="select count(*) n, count(summary) s from summary").to_pylist()
    assert count == {"n": 12, "s": 12}
    unpacked = Path(head.env["RAY_TMPDIR"]).glob("session_2*/runtime_resources/working_dir_files/*/**/*")
    assert {file.name for file in unpacked if file.is_file()} >= {"shop.yaml", "part-0.parquet", "kept-sub"}
    sent = {file.name for file in Path(head.env["RAY_TMPDIR"]).rglob("kept-*")}
    assert sent == {"kept-sub"}, "neither git's own, nor environments, nor results, nor what git ignores"


def test_the_job_ends_with_its_own_status(head: Head, night: Job) -> None:
    """What is wrong with the data is found where the data is: status 2 from there, and its line."""
    done = submit(head, night(steps__summary__text="bdy"), "--wait")
    assert done.returncode == 2, done.stderr
    assert "did you mean 'body'?" in done.stderr and "Traceback" not in done.stderr
    assert "failed (the input was wrong)" in done.stdout


def test_a_held_lock_is_status_3_there_and_here(head: Head, night: Job, tmp_path: Path) -> None:
    lock = str(tmp_path / f"wh/_bizllm/shop/locks/{NIGHT}.json")
    with RunLock(lock, holder="another", lease_s=60):
        done = submit(head, night(), "--wait", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["exit_status"] == 3 and "another" in done.stderr


@pytest.mark.parametrize("env", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "b" * 64}], ids=["no", "wrong"])
def test_without_the_token_nobody_gets_in(head: Head, night: Job, env: dict[str, str]) -> None:
    bare = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    done = submit(head, night(), env=bare | env)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"--address: '{head.url}'") and "token" in line
    assert "b" * 64 not in line


def test_ctrl_c_leaves_the_job_and_stopping_ends_it(head: Head, night: Job) -> None:
    path = night(runtime={"unit_rows": 1})
    first = subprocess.Popen(
        command(path, "--address", head.url, "--wait"), env=head.env, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    name = next(line.split()[1] for line in first.stderr if line.startswith("submitted "))
    time.sleep(1.0)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert f"{name} goes on" in said and f"ray job stop --address {head.url} {name}" in said
    assert "Traceback" not in said

    ray = str(Path(sys.executable).parent / "ray")
    stopped = subprocess.run(
        [ray, "job", "stop", "--address", head.url, name], env=head.env, capture_output=True, text=True, timeout=100
    )
    assert stopped.returncode == 0 and "was stopped" in stopped.stdout + stopped.stderr, stopped


def test_a_job_that_is_stopped_meanwhile(head: Head, night: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(variable, head.env[variable])
    client = ray_jobs.connect(head.url)
    ended = api.submit(
        night(),
        address=head.url,
        date=NIGHT,
        wait=True,
        sent=lambda sent: client.stop_job(sent.submission_id),
    )
    assert (ended.state, ended.exit_status) == ("cancelled", 130)


@pytest.mark.slow  # two more heads
def test_a_cluster_that_is_lost_meanwhile(night: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "LOST_AFTER_S", 3.0)
    (port,) = free_ports(1)
    with started_head(port) as first:
        for variable in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.setenv(variable, first.env[variable])
        with pytest.raises(RunError) as lost:
            api.submit(night(), address=first.url, date=NIGHT, wait=True, sent=lambda _: end(first.process))
        assert "has not answered for 3 s" in str(lost.value) and "\n" not in str(lost.value)
    with started_head(port) as second:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", second.env["RAY_AUTH_TOKEN_PATH"])
        sent = submitting.Submission("shop-gone", second.url, "shop", date.fromisoformat(NIGHT))
        with pytest.raises(RunError, match="the cluster lost it"):
            submitting.follow(sent, ray_jobs.connect(second.url), print)


# -- without `bizllm submit` --------------------------------------------------------------------------------------


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


def assert_a_night_from_elsewhere(head: Head, path: str) -> None:
    """A whole night, whose driver is a Ray client."""
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


def test_a_night_from_elsewhere(head: Head, job: Job) -> None:
    """The driver is a Ray client; more units than go through plain Ray on the cluster itself."""
    path = job(steps__summary=None, sources__tickets=None, runtime={"unit_rows": 2})
    assert_a_night_from_elsewhere(head, path)


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
    assert_a_night_from_elsewhere(head, path)


def test_a_client_without_the_token_is_refused(head: Head, shop: Path) -> None:
    bare = {name: value for name, value in head.env.items() if not name.startswith("RAY_AUTH")}
    status, said = head.submit(shop, "python", "-c", "print('ran')", env=bare | {"RAY_AUTH_MODE": "disabled"})
    assert status != 0 and "ran\n" not in said
    assert "token" in said.lower(), said
