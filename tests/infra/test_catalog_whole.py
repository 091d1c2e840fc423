"""PostgreSQL under whole runs: two at once of which one is killed, and MLflow's server with a training and a night."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bizllm import api
from bizllm.models.content import content_hash
from bizllm.models.registry import Registry
from tests.postgres import FOLDER, PASSWORDS, Server, catalog

NIGHT, BEFORE = "2026-03-10", "2026-03-09"
ROOT = Path(__file__).parents[2]
Job = Callable[..., str]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pg() -> Iterator[Server]:
    with catalog() as running:
        yield running


@pytest.fixture
def path(pg: Server, job: Job, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DB_PASSWORD", quote(PASSWORDS["BIZLLM_JOB_PASSWORD"], safe=""))
    uri = pg.uri("bizllm_job", "${DB_PASSWORD}")
    return job(
        steps__segments=None,
        sources__orders=None,
        warehouse={"path": "wh", "catalog": "sql", "uri": uri},
        runtime={"num_cpus": 1, "object_store_mb": 100, "unit_rows": 4, "workers": 1},
    )


def cli(*asked: str, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bizllm.cli", *asked]
    return subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def rows(path: str, *sets: str) -> list[dict[str, Any]]:
    asked = "select * exclude (run_id, produced_at) from summary order by all"
    return api.show(path, sql=asked, sets=sets).to_pylist()


@pytest.mark.timeout(900)
def test_two_runs_at_once_and_one_is_killed(path: str, tmp_path: Path) -> None:
    first = cli("run", path, "--date", BEFORE, "--json")
    killed = cli("run", path, "--date", NIGHT, "--json")
    receipts = tmp_path / f"wh/_bizllm/shop/state/{NIGHT}/summary/receipts/answer"
    deadline = time.monotonic() + 200
    while not list(receipts.glob("*.json")):
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    said, told = first.communicate(timeout=200)
    assert first.returncode == 0, said + told
    assert {str(row["run_date"]) for row in rows(path)} == {BEFORE}
    again = cli("run", path, "--date", NIGHT, "--json")
    said, told = again.communicate(timeout=200)
    assert (again.returncode, json.loads(said)["state"]) == (0, "done"), told
    quiet = [f"warehouse.path={tmp_path / 'quiet'}", "warehouse.catalog=sqlite", "warehouse.uri=null"]
    for day in (BEFORE, NIGHT):
        alone = cli("run", path, "--date", day, *(part for one in quiet for part in ("--set", one)))
        assert alone.wait(timeout=200) == 0, alone.communicate()
    assert rows(path) == rows(path, *quiet) and len(rows(path)) == 24
    ledger = [(str(run["run_date"]), run["state"]) for run in api.runs(path)]
    assert ledger == [(NIGHT, "done"), (BEFORE, "done")]


# -- MLflow -------------------------------------------------------------------------------------------------------


@contextmanager
def mlflow(pg: Server, home: Path) -> Iterator[str]:
    """Address of MLflow's server as mlflow.service starts it, on the mlflow database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(exist_ok=True)
    program = Path(sys.executable).parent / "mlflow"
    env = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": pg.uri("mlflow", PASSWORDS["MLFLOW_PASSWORD"], "mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": str(home),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    upgrade = [program, "db", "upgrade", env["MLFLOW_BACKEND_STORE_URI"]]
    done = subprocess.run(upgrade, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    log = (home / "log").open("ab")
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(900):
            assert server.poll() is None, (home / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        log.close()


def folder(tmp_path: Path, content: str) -> Path:
    made = tmp_path / content
    made.mkdir()
    (made / "model.safetensors").write_text(content)
    return made


def test_a_registry_moves_from_sqlite_and_survives_a_restore(pg: Server, tmp_path: Path) -> None:
    old = Registry(f"sqlite:///{tmp_path}/registry.db")
    for content in ("one", "two", "three"):
        old.register(
            "churn",
            folder(tmp_path, content),
            metrics={"test.macro_f1": 0.9},
            params={"lr": 1e-4},
            tags={"base": "builtin:minilm"},
            intervals={"test.macro_f1": (0.85, 0.95)},
            card=f"# {content}",
        )
    old.delete("churn", "2")
    for version in ("1", "3"):
        old.set_alias("churn", "champion", version)
    script = FOLDER / "copy_registry.py"
    with mlflow(pg, tmp_path / "mlflow") as server:
        for _ in range(2):  # the second time there is nothing to do
            done = subprocess.run(
                [sys.executable, script, str(tmp_path / "registry.db"), server],
                capture_output=True,
                text=True,
                timeout=200,
                env=os.environ | {"BIZLLM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
            )
            assert (done.returncode, done.stdout) == (0, "churn: 2 versions, champion\n"), done.stderr
        new = Registry(server)
        for before, after in zip(old.versions("churn"), new.versions("churn"), strict=True):
            same = ("version", "aliases", "metrics", "params", "tags", "card", "content_hash")
            assert {name: getattr(before, name) for name in same} == {name: getattr(after, name) for name in same}
            assert after.interval("test.macro_f1") == (0.85, 0.95)
        assert new.history("churn") == old.history("churn") == ["1"]
        assert content_hash(new.fetch("churn", "1", tmp_path / "elsewhere")) == content_hash(tmp_path / "one")
    dumped = pg.run(FOLDER / "backup.sh", "mlflow", tmp_path)
    assert dumped.returncode == 0, dumped.stderr
    pg.sql("delete from registered_model_aliases", "mlflow")
    restored = pg.run(FOLDER / "restore.sh", "mlflow", dumped.stdout.strip())
    assert restored.returncode == 0, restored.stderr
    with mlflow(pg, tmp_path / "mlflow") as server:  # which looks at the schema first, and finds it as it should be
        assert Registry(server).get("churn").version == "3"


@pytest.mark.timeout(900)
def test_a_training_and_a_night_through_the_server(pg: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = tmp_path / "jobs"
    sample.mkdir()
    for name in ("finetune_intent.yaml", "demo_intent.yaml"):
        (sample / name).write_text((ROOT / "jobs" / name).read_text())
    (sample / "data").symlink_to(ROOT / "jobs/data")
    with mlflow(pg, tmp_path / "mlflow") as server:
        monkeypatch.setenv("BIZLLM_CACHE", str(tmp_path / "cache"))
        training = cli("finetune", str(sample / "finetune_intent.yaml"), "--registry", server, "--json")
        said, told = training.communicate(timeout=280)
        assert training.returncode == 0, told
        made = json.loads(said)
        assert made["promoted"], "the first model that beats its control"
        night = cli(
            "run", str(sample / "demo_intent.yaml"), "--date", "2026-06-30", "--set", f"registry={server}", "--json"
        )
        said, told = night.communicate(timeout=280)
        assert (night.returncode, json.loads(said)["state"]) == (0, "done"), told
        labels = api.show(
            str(sample / "demo_intent.yaml"),
            sql="select distinct model, model_version from ticket_intent",
            sets=[f"registry={server}"],
        ).to_pylist()
        (used,) = labels
        assert used["model"].startswith("registry:ticket_intent@1") and used["model_version"].startswith("1-")
