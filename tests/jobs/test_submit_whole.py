"""What a cluster is given that takes minutes to see: trainings that are sent, stopped and gone on with, the scripts in
jobs/, and a cluster that has the libraries alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from heads import Head, started_head

from bizllm import api
from bizllm.jobs.code import code_of
from bizllm.jobs.submission import Submission
from bizllm.train import kept

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import trainings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NIGHT = "2026-03-10"


@pytest.fixture
def topics(tmp_path: Path) -> Callable[..., str]:
    """Writes a training file with its base and data beside it, as a folder that can be sent; results lie elsewhere."""
    folder = tmp_path / "training"
    trainings.knowing_base(folder / "base")
    written = trainings.training_file(folder, "path:base")
    shutil.move(folder / "data", folder / "jobs/data")
    shutil.move(folder / "base", folder / "jobs/base")
    assert Path(written).parent == folder / "jobs"

    def write(**changes: Any) -> str:
        data = {
            "train": {"path": "data/train.parquet", "text": "body", "label": "topic"},
            "validation": {"split": 0.2},
            "test": {"path": "data/test.parquet"},
        }
        path = trainings.training_file(
            folder, "path:base", data=data, output=str(tmp_path / "models"), workers=1, zero={"stage": 0}, **changes
        )
        shutil.rmtree(folder / "data")
        return path

    return write


def newest(tmp_path: Path) -> dict[str, str]:
    """The models that trainings registered, and the newest version of each."""
    listed = api.list_models(registry=f"sqlite:///{tmp_path}/registry.db")
    return {model["name"]: model["newest"] for model in listed}


def test_a_training_is_stopped_and_gone_on_with(
    head: Head, inside: Any, topics: Callable[..., str], tmp_path: Path
) -> None:
    path = topics(optim__epochs=100)
    sent: Submission = api.submit(path, address=head.url)
    assert sent.submission_id.startswith("topics-finetune-") and sent.date is None
    runs = tmp_path / "models/topics"

    def found() -> Any:
        return [run for run in runs.glob("*") if kept.newest(str(run)) is not None]

    deadline = time.monotonic() + 200
    while not found() and time.monotonic() < deadline:
        time.sleep(0.1)
    (run,) = found()
    told = api.stop(run.name, address=head.url)
    assert (told["submission_id"], told["verb"], told["stopped"]) == (sent.submission_id, "finetune", True)
    assert not told["killed"] and any(f"go on with: --resume {run.name}" in line for line in told["lines"]), told
    assert newest(tmp_path) == {}, "nothing is registered"

    lines: list[str] = []
    ended = api.submit(path, address=head.url, resume=run.name, wait=True, line=lines.append)
    assert (ended.state, ended.exit_status) == ("done", 0), lines
    assert newest(tmp_path) == {"topics": "1"} and (run / "result.json").exists()


def test_the_script_of_a_training(head: Head, inside: Any, topics: Callable[..., str], tmp_path: Path) -> None:
    path = Path(topics(optim__epochs=1))
    shutil.copy(ROOT / "jobs/finetune.py", path.parent)
    asked = ["python", "finetune.py", "--train", "topics.yaml"]
    status, said = head.submit(path.parent, *asked, "--set", "optim.epochs=none")
    assert status != 0 and "exit code 2" in said and "optim.epochs" in said, said
    status, said = head.submit(path.parent, *asked)
    assert status == 0 and newest(tmp_path) == {"topics": "1"}, said


def test_a_compression_is_stopped_and_made_anew(
    head: Head, inside: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a teacher in the folder that is sent: by `bizllm submit`, then by the script."""
    folder = tmp_path / "smaller"
    folder.mkdir()
    trainings.classifier(folder / "teacher", trainings.table(90, 1), num_hidden_layers=4)
    pq.write_table(trainings.table(400, 1).select(["body"]), folder / "rows.parquet")
    said = {
        "name": "topics",
        "data": {"train": {"path": "rows.parquet", "text": "body"}},
        "students": [{"layers": 2}, {"layers": 1}],
        "optim": {"epochs": 2, "batch": 32},
        "output": str(tmp_path / "models"),
        "registry": f"sqlite:///{tmp_path}/registry.db",
    }
    path = folder / "compress.yaml"
    path.write_text(yaml.safe_dump(said))
    monkeypatch.chdir(folder)
    sent = api.submit("compress.yaml", address=head.url, model="path:teacher")
    assert sent.submission_id.startswith("topics-compress-") and sent.subject() == "smaller topics"
    runs, deadline = tmp_path / "models/topics", time.monotonic() + 200
    while len(list(runs.glob("2*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    first, second = sorted(run.name for run in runs.glob("2*"))
    told = api.stop(second, address=head.url)
    assert (told["submission_id"], told["verb"], told["stopped"]) == (sent.submission_id, "compress", True)
    assert not told["killed"] and told["exit_status"] == 130, told
    assert newest(tmp_path) == {"topics": "1"} and (runs / first / "result.json").exists(), "one student stays"

    shutil.copy(ROOT / "jobs/compress.py", folder)
    asked = ["python", "compress.py", "--model", "path:teacher", "--compress", "compress.yaml"]
    status, said_there = head.submit(folder, *asked, "--set", "students=[{layers: 1}]")
    assert status == 0 and newest(tmp_path) == {"topics": "2"}, said_there
    status, said_there = head.submit(folder, *asked, "--set", "students=[{layers: 9}]")
    assert status != 0 and "exit code 2" in said_there and "the model has 4 layers" in said_there


def test_the_demo_from_the_projects_folder(head: Head, inside: Any, tmp_path: Path) -> None:
    """As docs/deploy/submit.md has it, with a shorter night."""
    status, said = head.submit(
        ROOT,
        *("python", "jobs/nightly.py", "--job", "jobs/nightly.yaml", "--date", "2026-06-30"),
        *("--only", "customer_segment", "--set", f"warehouse.path={tmp_path}/warehouse"),
    )
    assert status == 0, said


# -- a cluster with the libraries alone ---------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head whose Python has all of ours but bizllm."""
    home = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (packages,) = home.glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files do not count
    script = home / "bin/ray"
    script.write_text(f"#!{home}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    script.chmod(0o755)
    with started_head(programs=home / "bin") as started:
        yield started


def test_a_cluster_without_bizllm_runs_the_code_that_is_sent(bare: Head, night: Callable[..., str]) -> None:
    path = night()
    for option, status in (((), 1), (("--code",), 0)):
        asked = [sys.executable, "-m", "bizllm.cli", "submit", path, "--date", NIGHT, "--address", bare.url, "--wait"]
        done = subprocess.run([*asked, *option], env=bare.env, capture_output=True, text=True, timeout=250)
        assert done.returncode == status, done.stderr
        assert ("No module named" in done.stderr) == (not option)
    assert f"--sent-by {code_of()} --exactly" in done.stderr
    (count,) = api.show(path, sql="select count(*) n, count(summary) s from summary").to_pylist()
    assert count == {"n": 12, "s": 12}
