"""Figures read back by the trackers' own readers."""

from __future__ import annotations

import importlib.util
import json
import math
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bizllm.errors import UserError
from bizllm.models.registry import load_mlflow
from bizllm.train import trackers
from bizllm.train.trackers import Trackers, flat_params, open_trackers

PARAMS = {
    "name": "ticket_intent",
    "data": {"train": {"path": "https://joe:hunter2@lake.example/tickets", "text": "body"}},
    "optim": {"lr": 1e-4, "epochs": 3.0},
    "workers": [2, 8],
    "registry": None,
}
CURVE = [(step, 2.0 / step) for step in range(1, 7)]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "ticket_intent" / "20260102T000000-abcdef"


@pytest.fixture
def start(run_folder: Path, tmp_path: Path) -> Callable[..., Trackers]:
    def start(*names: str, resumed_step: int = 0) -> Trackers:
        uri = f"sqlite:///{tmp_path}/registry.db"
        return open_trackers(names, run_folder, "full, rank 0", PARAMS, uri, resumed_step=resumed_step)

    return start


def train(tracker: Trackers, first: int = 1, last: int = 6) -> None:
    for step, loss in CURVE[first - 1 : last]:
        tracker.log(step, {"loss": loss, "lr": 1e-4})
        if step % 3 == 0:
            tracker.log(step, {"loss": loss + 0.1, "macro_f1": step / 10}, split="validation")


def lines(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_every_step_is_a_line_as_soon_as_it_is_logged(start: Callable[..., Trackers], run_folder: Path) -> None:
    tracker = start()
    tracker.log(1, {"loss": 2.0, "grad_norm": math.inf})
    tracker.log(1, {"loss": math.nan}, split="validation")
    assert lines(run_folder) == [
        {"step": 1, "split": "train", "loss": 2.0, "grad_norm": None},
        {"step": 1, "split": "validation", "loss": None},
    ]
    tracker.finish(None)


def test_a_resumed_file_is_that_of_a_training_which_never_stopped(
    start: Callable[..., Trackers], run_folder: Path
) -> None:
    whole = start()
    train(whole)
    whole.finish({})
    expected = lines(run_folder)

    killed = start()
    train(killed, 1, 5)
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "spl')  # cut short by the kill
    resumed = start(resumed_step=3)
    train(resumed, 4, 6)
    resumed.finish({})
    assert lines(run_folder) == expected


def test_a_new_training_in_an_old_folder_starts_an_empty_file(start: Callable[..., Trackers], run_folder: Path) -> None:
    train(start())
    start()
    assert lines(run_folder) == []


def test_tensorboard_reads_the_curve_also_of_a_resumed_training(
    start: Callable[..., Trackers], run_folder: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed = start("tensorboard")
    train(killed, 1, 5)
    killed.finish(None)
    resumed = start("tensorboard", resumed_step=3)
    train(resumed, 4, 6)
    resumed.finish({"test/macro_f1": 0.75})
    events = EventAccumulator(str(run_folder / "tensorboard"))
    events.Reload()
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("train/loss")] == CURVE
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("validation/macro_f1")] == [(3, 0.3), (6, 0.6)]
    assert [(e.step, e.value) for e in events.Scalars("test/macro_f1")] == [(6, 0.75)]


@pytest.fixture(scope="module")
def mlflow_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with MLflow's tables: making them takes seconds."""
    load_mlflow()
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "registry.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def client(mlflow_schema: Path, tmp_path: Path) -> Any:
    from mlflow import MlflowClient

    (tmp_path / "registry.db").write_bytes(mlflow_schema.read_bytes())
    return MlflowClient(f"sqlite:///{tmp_path}/registry.db")


def test_mlflow_has_settings_and_each_step_once_also_after_a_resume(
    client: Any, start: Callable[..., Trackers], run_folder: Path
) -> None:
    killed = start("mlflow")
    train(killed, 1, 5)
    killed.finish(None)
    run_id = killed.where["mlflow"]
    assert client.get_run(run_id).info.status == "FAILED"
    resumed = start("mlflow", resumed_step=3)
    train(resumed, 4, 6)
    resumed.finish({"test/macro_f1": 0.75})

    assert resumed.where["mlflow"] == run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "full, rank 0")
    assert client.get_experiment(run.info.experiment_id).name == "ticket_intent"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "train/loss")] == CURVE
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "validation/macro_f1")] == [(3, 0.3), (6, 0.6)]
    assert run.data.metrics["test/macro_f1"] == 0.75
    assert run.data.params["optim.lr"] == "0.0001"
    assert run.data.params["workers"] == "[2, 8]"
    assert "hunter2" not in str(run.data.params)
    assert not (Path.cwd() / "mlruns").exists()


def wandb_history(run_folder: Path) -> list[dict[str, Any]]:
    """Rows of the offline run's file: records of W&B's protocol in LevelDB's log format, after 7 bytes of W&B's own.

    A block of 32 KiB holds chunks: checksum (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = run_folder.glob("wandb/offline-run-*/run-*.wandb")
    data, rows, at, whole = file.read_bytes(), [], 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (room := 32_768 - at % 32_768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What processes started from here ask the network for, if they go through their proxy as told."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(200).decode("latin1").partition("\n")[0])

        threading.Thread(target=listen, daemon=True).start()
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy", "WANDB_API_KEY", "WANDB_MODE", "CI", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name, raising=False)
        yield asked
        server.shutdown(socket.SHUT_RDWR)


SCRIPT = """
import sys
from pathlib import Path
from bizllm.train.trackers import open_trackers
if sys.argv[2] == "ask":
    import urllib.request
    urllib.request.urlopen("http://example.invalid/", timeout=5)
folder = Path(sys.argv[1])
uri = f"sqlite:///{folder}/registry.db"
tracker = open_trackers(["wandb", "mlflow"], folder / "ticket_intent" / "r1", "first", {"optim": {"lr": 0.1}}, uri)
for step in range(1, 4):
    tracker.log(step, {"loss": 1 / step})
    tracker.log(step, {"macro_f1": step / 4}, split="validation")
tracker.finish({"test/macro_f1": 0.5})
"""


def test_wandb_keeps_the_history_and_nothing_asks_the_network(tmp_path: Path, proxy: list[str], client: Any) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return subprocess.run(command, timeout=120, capture_output=True, text=True, cwd=tmp_path)

    assert run(str(tmp_path), "ask").returncode != 0
    assert [line.strip() for line in proxy] == ["GET http://example.invalid/ HTTP/1.1"], "the proxy sees what is asked"
    done = run(str(tmp_path), "keep quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(proxy) == 1
    folder = tmp_path / "ticket_intent" / "r1"
    history = [(row["_step"], row["train/loss"], row["validation/macro_f1"]) for row in wandb_history(folder)]
    assert history == [(step, 1 / step, step / 4) for step in (1, 2, 3)]
    kept = [path.name for path in folder.glob("wandb/offline-run-*/files/*")]
    assert not {"requirements.txt", "wandb-metadata.json", "output.log"} & set(kept)


def test_a_tracker_that_fails_is_dropped_with_one_warning(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        asked = 0

        def log(self, step: int, values: Any, split: str = "train") -> None:
            self.asked += 1
            raise ConnectionError("secret-host.example refused")

        def finish(self, summary: Any) -> None:
            raise AssertionError("was dropped")

    broken, file = Broken(), trackers.JsonlTracker(run_folder / "metrics.jsonl", 0)
    tracker = Trackers({"broken": broken, "jsonl": file}, {})
    train(tracker)
    tracker.finish({})
    assert broken.asked == 1
    assert len(lines(run_folder)) == 8
    [warning] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (warning["event"], warning["tracker"]) == ("tracker_dropped", "broken")
    assert "secret-host" not in json.dumps(warning)


def test_a_database_that_goes_away_ends_no_training(
    client: Any, start: Callable[..., Trackers], run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = start("mlflow")
    with sqlite3.connect(tmp_path / "registry.db") as database:
        database.execute("drop table metrics")
    train(tracker)
    tracker.finish({"test/macro_f1": 0.5})
    assert len(lines(run_folder)) == 8
    events = [line for line in capsys.readouterr().err.splitlines() if "tracker_dropped" in line]
    assert len(events) == 1


def test_what_cannot_be_opened_is_told_before_any_work(
    start: Callable[..., Trackers], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"track: 'tensorbord': expected one of .*did you mean 'tensorboard'\?"):
        start("tensorbord")
    found = importlib.util.find_spec
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else found(name))
        with pytest.raises(UserError, match=r"track: 'wandb': package 'wandb' is not installed; pip install"):
            start("tensorboard", "wandb")
    assert not run_folder.exists()
    with pytest.raises(UserError, match=r"'http://127.0.0.1:9': the MLflow server does not answer") as raised:
        open_trackers(["mlflow"], run_folder, "n", {}, "http://joe:hunter2@127.0.0.1:9")
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("WANDB_MODE", "sideways")
    with pytest.raises(UserError, match=r"track: 'wandb': can't be opened \(.*; WANDB_MODE=offline needs no network"):
        start("wandb")


def test_settings_are_flat_and_without_passwords() -> None:
    assert dict(flat_params(PARAMS)) == {
        "name": "ticket_intent",
        "data.train.path": "https://lake.example/tickets",
        "data.train.text": "body",
        "optim.lr": "0.0001",
        "optim.epochs": "3.0",
        "workers": "[2, 8]",
    }
