"""`bizllm submit`: what is refused before anything is sent, and by which names runs and submissions know each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from heads import free_ports
from typer.testing import CliRunner

from bizllm import api
from bizllm.cli import app
from bizllm.errors import RunError, UserError
from bizllm.jobs import code, submitted
from bizllm.jobs.submission import Submission

NIGHT = "2026-03-10"
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there
Job = Callable[..., str]


def faults(path: str, **options: object) -> list[str]:
    """What `submit` finds wrong. Nobody listens at the address: a fault of the job must come first."""
    with pytest.raises(UserError) as refused:
        api.submit(path, **{"address": NOBODY, "date": NIGHT, **options})  # type: ignore[arg-type]
    return str(refused.value).splitlines()


@pytest.mark.parametrize("path", ["wh", "../out/wh", "~/wh"])
def test_a_warehouse_in_the_copy_is_refused(night: Job, path: str) -> None:
    (line,) = faults(night(warehouse={"path": path}))
    assert "warehouse.path" in line and f"'{path}'" in line and "s3://" in line


@pytest.mark.parametrize("path", ["wh", "../wh"])
def test_a_job_of_the_cluster_refuses_it_too(night: Job, path: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Where a variable of the cluster's leads there, which `submit` cannot know."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    job = night(warehouse={"path": path})
    with pytest.raises(UserError, match="which Ray deletes when the job ends"):
        api.run(job, date=NIGHT)
    with pytest.raises(UserError, match="which Ray deletes when the job ends"):
        api.catch_up(job)
    assert not list(tmp_path.rglob("_bizllm")), "not even a lock lies there"


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


# -- trainings ----------------------------------------------------------------------------------------------------


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., str]:
    """Writes a training file whose data lies beside it."""
    (tmp_path / "labelled").mkdir()

    def write(more: str = "output: s3://lake/models\n") -> str:
        path = tmp_path / "train.yaml"
        data = "data: {train: {path: labelled, text: body, label: topic}}\n"
        path.write_text(f"name: topics\nbase: builtin:minilm\nobjective: classification\n{data}{more}")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("more", "place"),
    [("", "output"), ("output: models\n", "output"), ("output: s3://lake/m\nregistry: registry.db\n", "registry")],
    ids=["default", "output", "registry"],
)
def test_results_of_a_training_in_the_copy_are_refused(train: Callable[..., str], more: str, place: str) -> None:
    (line,) = faults(train(more), date=None)
    assert f" {place}: " in line and "a copy" not in line and "copy of the folder that Ray deletes" in line


def test_a_training_of_the_cluster_refuses_them_too(train: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="output: 'models': lies in the job's working folder, which Ray deletes"):
        api.finetune(train("output: models\n"))


def test_data_of_a_training_must_be_sent(train: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "labelled").rmdir()
    (line,) = faults(train(), date=None)
    assert "data.train.path" in line and "no such file or folder in the folder that is sent" in line


def test_options_of_the_other_kind(train: Callable[..., str], night: Job) -> None:
    assert [line.split(":")[0] for line in faults(train(), only=["summary"])] == ["--date", "--only"]
    (line,) = faults(night(), resume="20260310T010203-a1b2c3")
    assert line.startswith("--resume: '20260310T010203-a1b2c3': is for trainings")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"catch_up": True}, ["--date"]),
        ({"catch_up": True, "only": ["summary"], "most": 3}, ["--date", "--only"]),
        ({"date": None, "catch_up": True, "resume": "R", "model": "builtin:minilm"}, ["--resume", "--model"]),
        ({"date": None, "since": "2026-03-01", "most": 0}, ["--since", "--most"]),
        ({"date": None, "catch_up": True, "since": "2999-01-01"}, ["--since"]),
        ({"date": None, "catch_up": True, "since": "yesterday"}, ["--since"]),
        ({"date": None, "catch_up": True, "most": 0}, ["--most"]),
    ],
)
def test_options_that_do_not_go_together(night: Job, options: dict[str, object], flags: list[str]) -> None:
    assert [line.split(":")[0] for line in faults(night(), **options)] == flags


def test_flags_that_do_not_go_together_are_refused_alike_by_run_and_submit(night: Job) -> None:
    path = night()
    for given in (["--catch-up", "--date", NIGHT, "--only", "summary"], ["--since", NIGHT, "--most", "0"]):
        said = [
            CliRunner().invoke(app, [verb, path, *given, *more])
            for verb, more in (("run", []), ("submit", ["--address", NOBODY]))
        ]
        assert [done.exit_code for done in said] == [2, 2]
        assert said[0].stderr == said[1].stderr and len(said[0].stderr.splitlines()) == 2


def test_a_training_that_is_right_reaches_for_the_cluster(train: Callable[..., str]) -> None:
    (line,) = faults(train(), date=None)
    assert "connection refused" in line


# -- compressions -------------------------------------------------------------------------------------------------


@pytest.fixture
def smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a compress file whose rows lie beside it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()

    def write(more: str = "output: s3://lake/models\n") -> str:
        Path("compress.yaml").write_text(f"data: {{train: {{path: rows, text: body}}}}\n{more}")
        return "compress.yaml"

    return write


def test_results_and_data_of_a_compression(smaller: Callable[..., str], tmp_path: Path) -> None:
    asked: dict[str, object] = {"date": None, "model": "registry:topics@champion"}
    (line,) = faults(smaller(""), **asked)
    assert " output: " in line and "copy of the folder that Ray deletes" in line
    (tmp_path / "rows").rmdir()
    (line,) = faults(smaller(), **asked)
    assert "data.train.path" in line and "no such file or folder in the folder that is sent" in line
    (line,) = faults(smaller("output: s3://lake/models\nmax_los: 0.1\n"), **asked)
    assert "did you mean 'max_loss'?" in line


def test_a_compression_of_the_cluster_refuses_a_copy_too(smaller: Callable[..., str], monkeypatch: Any) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="output: 'models': lies in the job's working folder, which Ray deletes"):
        api.compress("registry:topics@champion", smaller("output: models\n"))


def test_the_model_that_is_made_smaller(smaller: Callable[..., str], tmp_path: Path) -> None:
    path = smaller()
    (line,) = faults(path, date=None)
    assert line == "--model: expected the model that compress.yaml makes smaller, such as registry:NAME@champion"
    assert faults(path, model="topics") == [f"--date: '{NIGHT}': is for jobs; compress.yaml is a compress file"]
    (line,) = faults(path, date=None, model="topics")
    assert line.startswith("--model: 'topics': expected builtin:NAME, path:DIR")
    (line,) = faults(path, date=None, model="path:teacher")
    assert line.startswith("--model: 'path:teacher': no such folder")
    for file in ("teacher/config.json", "teacher/tokenizer.json", "teacher/model.safetensors", "sub/empty"):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    Path("compress.yaml").rename("sub/compress.yaml")
    Path("rows").rename("sub/rows")
    (line,) = faults("sub/compress.yaml", date=None, model="path:teacher")
    assert line.startswith("--model: 'path:teacher': lies outside the folder that is sent")
    for model in ("path:teacher", f"path:{tmp_path}/teacher"):
        (line,) = faults("sub/compress.yaml", date=None, model=model, working_dir=".")
        assert "connection refused" in line, "all is well here"


def test_a_submission_knows_from_the_cluster_what_it_is() -> None:
    day = date(2026, 3, 10)
    for verb, when, subject in (
        ("run", day, "shop for 2026-03-10"),
        ("catch_up", None, "shop's missing nights"),
        ("finetune", None, "training shop"),
        ("compress", None, "smaller shop"),
    ):
        sent = Submission("shop-x-a1b2c3", NOBODY, "shop", when, verb)  # type: ignore[arg-type]
        found = Submission.from_metadata(sent.submission_id, NOBODY, sent.metadata())
        assert (found, found.subject()) == (sent, subject)
    foreign = Submission.from_metadata("raysubmit_1", NOBODY, {"bizllm_verb": "sleep"})
    assert (foreign.verb, foreign.subject()) == (None, "")


# -- which bizllm -------------------------------------------------------------------------------------------------


def test_what_sent_a_job_is_held_against_what_runs() -> None:
    own = code.code_of()
    assert own.version == "0.1.0" and code.check_sender(str(own)) is None
    warned = code.check_sender(f"{own.version}/000000000000")
    assert warned is not None and str(own) in warned and "--code" in warned
    with pytest.raises(UserError, match=f"bizllm: the cluster runs bizllm {own} in .* not the 9.0/{own.content[:3]}"):
        code.check_sender(f"9.0/{own.content[:-1]}{'0' if own.content[-1] != '0' else '1'}")
    with pytest.raises(UserError, match="that came with the job"):
        code.check_sender(f"{own.version}/000000000000", exactly=True)
    with pytest.raises(UserError, match="--sent-by: 'yesterday': expected"):
        code.check_sender("yesterday")


def test_the_hash_of_the_code_sees_names_and_bytes(tmp_path: Path) -> None:
    made = {}
    for name, files in {
        "one": {"a.py": "1", "b.py": ""},
        "bytes": {"a.py": "2", "b.py": ""},
        "names": {"a.py": "1", "c.py": ""},
        "moved": {"a.py": "", "b.py": "1"},
        "compiled": {"a.py": "1", "b.py": "", "__pycache__/a.pyc": "x"},
    }.items():
        for file, text in {"__init__.py": '__version__ = "1.2.3"\n', **files}.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        made[name] = code.code_of(tmp_path / name)
    assert {found.version for found in made.values()} == {"1.2.3"}
    assert made["compiled"] == made["one"] and len({found.content for found in made.values()}) == 4


def test_another_bizllm_in_the_folder_is_not_sent_twice(night: Job, tmp_path: Path) -> None:
    path = night()
    (tmp_path / "bizllm").mkdir()
    (tmp_path / "bizllm/__init__.py").write_text('__version__ = "0.0.9"\n')
    (line,) = faults(path, code=True)
    assert line.startswith("--code: ") and "another bizllm (0.0.9/" in line


# -- names --------------------------------------------------------------------------------------------------------


def test_a_run_tells_its_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    alone = submitted.new_run_id()
    assert submitted.mark_in(alone) == "" and submitted.submission() is None
    names = [submitted.new_submission_id("shop-2026-03-10"), "raysubmit_4LamXRuQpYdSMg7J", "bizllm-nightly-5xkzq-8vbn2"]
    for name in names:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": name}}))
        made = {submitted.new_run_id() for _ in range(50)}
        assert len(made) == 50, "runs of one job differ"
        assert {submitted.mark_in(run) for run in made} == {submitted.mark_of(name)}
    assert len({submitted.mark_of(name) for name in names}) == 3
    assert names[0].endswith(submitted.mark_of(names[0]))
    assert submitted.mark_in("shop-2026-03-10-a1b2c3") is None


def test_copies_of_a_folder_are_alike() -> None:
    one, other = (
        "/tmp/ray/session_{}/runtime_resources/working_dir_files/_ray_pkg_{}/".format(*c) for c in ("1a", "2b")
    )
    said = [{"base": f"path:{copy}base", "data": [{"path": f"{copy}x.parquet"}], "seed": 1} for copy in (one, other)]
    assert submitted.outside_copies(said[0]) == submitted.outside_copies(said[1])
    assert submitted.outside_copies(said[0]) == {"base": "path:base", "data": [{"path": "x.parquet"}], "seed": 1}
    assert submitted.outside_copies({"path": "/mnt/x"}) == {"path": "/mnt/x"}
