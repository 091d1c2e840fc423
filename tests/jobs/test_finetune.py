"""Whole trainings through a real local Ray with two workers: from the file to the model that the night uses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from bizllm import api
from bizllm.errors import Cancelled, RunError, UserError
from bizllm.jobs.finetune import finetune
from bizllm.jobs.training_file import load_recipe
from bizllm.models.classifier import Classifier
from bizllm.models.generator import Generator
from bizllm.models.registry import Registry
from bizllm.train.progress import TrainingObserver

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import trainings

NIGHT = "2026-03-10"
WEAK = {"optim__epochs": 1, "optim__head_lr": 1e-2}


class Heard(TrainingObserver):
    """What a training told; raises `error` when the stage `at` begins."""

    def __init__(self, at: str = "", error: BaseException | None = None) -> None:
        self.at, self.error = at, error
        self.stages: list[str] = []
        self.facts: dict[str, Any] = {}
        self.steps: list[tuple[int, int]] = []

    def training_started(self, facts: Any) -> None:
        self.facts = dict(facts)

    def stage(self, name: str) -> None:
        self.stages.append(name)
        if name == self.at and self.error is not None:
            raise self.error

    def step(self, step: int, total: int, values: Any) -> None:
        self.steps.append((step, total))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project's folder, with a base that knows words which train does not have."""
    folder = tmp_path_factory.mktemp("home")
    trainings.knowing_base(folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        yield folder


def written(home: Path, **changes: Any) -> str:
    return trainings.training_file(home, changes.pop("base", home / "base"), **changes)


def stopped(home: Path, error: BaseException, **changes: Any) -> tuple[Heard, BaseException]:
    """A run that ends as its training begins."""
    heard = Heard("train", error)
    with pytest.raises((Cancelled, RunError)) as caught:
        finetune(load_recipe(written(home, **changes)), observer=heard)
    return heard, caught.value


def test_a_plan_starts_no_ray_and_writes_nothing(home: Path) -> None:
    path = written(home)
    before = {file: file.stat().st_mtime_ns for file in home.rglob("*")}
    script = f"import sys, json; from bizllm import api; made = api.plan({path!r}); print(json.dumps(made))"
    script += "; assert not {'ray', 'mlflow', 'deepspeed'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout.splitlines()[-1])
    assert {file: file.stat().st_mtime_ns for file in home.rglob("*")} == before
    assert plan["rows"] == {"train": 128, "validation": 32, "test": 120}
    assert plan["steps"] == 4 * 8 and plan["labels"] == 3 and plan["parameters"] == plan["trainable"]
    texts = pq.read_table(home / "data/train.parquet")["body"].to_pylist()
    tokens = sum(len(text.split()) + 2 for text in texts)  # each word is a token
    assert plan["tokens"] == pytest.approx(4 * 0.8 * tokens, rel=0.05)
    assert plan["batch"] == {"global": 16, "micro": 8, "accumulation": 1, "workers": 2}


def test_what_ends_early_says_how_to_go_on(home: Path) -> None:
    heard, said = stopped(home, KeyboardInterrupt())
    run_id = heard.facts["run_id"]
    assert isinstance(said, Cancelled) and str(said) == f"interrupted; go on with: --resume {run_id}"
    page = (home / "out/models/topics" / run_id / "report.html").read_text()
    assert "The training failed." in page and "interrupted" in page
    heard, said = stopped(home, ValueError("could not convert 'Jane Doe'"))
    run_id = heard.facts["run_id"]
    assert str(said).startswith("unexpected ValueError") and str(said).endswith(f"; go on with: --resume {run_id}")
    assert "Jane" not in str(said) + (home / "out/models/topics" / run_id / "report.html").read_text()
    # Before the input is whole there is nothing to go on with, and no report.
    heard = Heard("control", RunError("the disk is full"))
    with pytest.raises(RunError, match=r"^the disk is full$"):
        finetune(load_recipe(written(home)), observer=heard)
    assert not (home / "out/models/topics" / heard.facts["run_id"] / "report.html").exists()


def test_only_a_run_that_began_goes_on_and_as_it_began(home: Path) -> None:
    heard, _ = stopped(home, KeyboardInterrupt())
    run_id = heard.facts["run_id"]
    with pytest.raises(
        UserError, match=r"--resume: '20260101T000000-abcdef': no run of topics that began to train in "
    ):
        api.finetune(written(home), resume="20260101T000000-abcdef")
    with pytest.raises(UserError, match=r"--resume: the run began with other settings of optim, seed; start a new run"):
        api.finetune(written(home), resume=run_id, sets=["optim.epochs=9", "seed=2"])
    again = Heard("train", KeyboardInterrupt())
    with pytest.raises(Cancelled):
        finetune(load_recipe(written(home, workers=[1, 2])), resume=run_id, observer=again)
    assert again.stages == ["train"] and again.facts == {**heard.facts, "workers": 2}
    work = json.loads((home / "out/models/topics" / run_id / "work/work.json").read_text())
    assert work["recipe"]["workers"] == [1, 2], "the workers read the new number"


@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_the_cluster_has(home: Path) -> None:
    with pytest.raises(UserError, match=r"workers: 64: the cluster has 2 CPUs and 0 GPUs: .*; use at most 2"):
        api.finetune(written(home, workers=64))


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_from_the_file_to_the_night(home: Path) -> None:
    """Interrupted, resumed, promoted as first; the same again is no better; trained on, it is; back and forth."""
    interrupted, _ = stopped(home, KeyboardInterrupt(), **WEAK)
    heard = Heard()
    first = finetune(load_recipe(written(home, **WEAK)), resume=interrupted.facts["run_id"], observer=heard)
    assert heard.stages == ["train", "export", "test", "register"] and heard.steps[-1] == (8, 8)
    _check_result(home, first)
    assert first["promoted"] and first["version"] == "1" and first["champion"] is None
    assert first["metrics"]["test"]["macro_f1"] > first["control"]["test"]["macro_f1"] and not first["control"]["wins"]
    with pytest.raises(UserError, match="that run reached its end"):
        api.finetune(written(home, **WEAK), resume=first["run_id"])

    second = api.finetune(written(home, **WEAK))
    assert second["metrics"] == first["metrics"], "the same file and seed make the same model"
    assert not second["promoted"] and second["champion"]["version"] == "1" and second["champion"]["gain"] == 0.0

    unlabelled = trainings.table(80, 12, unseen=True).drop_columns(["topic"])
    pq.write_table(unlabelled, home / "data/new.parquet")
    third = api.finetune(
        written(
            home,
            base="registry:topics@champion",
            workers=1,  # two are above; this one trains twice
            continual={"test": "../data/test.parquet", "l2_sp": 0.01, "naive": True},
            review=True,
            propose={"path": "../data/new.parquet", "rows": 10},
            pseudo_labels={"path": "../data/new.parquet", "teachers": ["registry:topics@champion"]},
        )
    )
    _check_result(home, third)
    assert third["base"] == "registry:topics@1" and third["promoted"] and third["version"] == "3"
    assert third["champion"]["low"] > 0 and "more than +0 was asked for" in third["reason"]
    kept = third["continual"]
    assert kept["earlier"]["base"]["macro_f1"] == pytest.approx(first["metrics"]["test"]["macro_f1"])
    assert kept["earlier"] == kept["new"], "here both tests are one"
    assert kept["earlier"].keys() == {"base", "model", "naive"} and kept["earlier"]["naive"] != kept["earlier"]["model"]
    assert kept["backward_transfer"]["model"] == pytest.approx(third["champion"]["gain"])
    assert kept["forgetting"] == {"model": 0.0, "naive": 0.0}
    assert not (Path(third["path"]).parent / "naive").exists(), "it was trained to be scored"
    learned = third["pseudo_labelled"]
    assert 70 < learned["rows"] <= 80 and learned["teachers"] == ["registry:topics@1"]
    assert "fingerprint of unlabelled" in (Path(third["path"]) / "README.md").read_text(), "the card tells of them"
    picked = pq.read_table(third["propose"]["path"])
    assert picked.column_names == ["row", "score"] and 0 < len(picked) <= 10
    assert pq.read_table(third["review"]["path"]).column_names == ["row", "given", "suggested", "quality"]
    page = Path(third["report"]).read_text()
    assert "Promoted: version 3 is champion now in place of version 1" in page
    assert "trained on naively" in page
    assert f"{learned['rows']} rows without a label were learned with labels of rows near them" in page

    assert api.show_model("topics")["aliases"] == {"champion": "3"}
    _night_uses(home, "3")
    assert api.rollback_model("topics")["version"] == "1"
    _night_uses(home, "1")


@pytest.mark.slow
def test_a_run_in_object_storage(home: Path, s3_endpoint: str, tmp_path: Path) -> None:
    """Ctrl-C and on, as a person does it, with nothing of the run on this machine's disk; the base travels with it."""
    import boto3

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="runs")
    path = written(home, output="s3://runs/models", registry=f"sqlite:///{tmp_path}/registry.db", review=True, **WEAK)
    command = [sys.executable, "-m", "bizllm.cli", "finetune", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            if "stage train" in line:
                break
        driver.send_signal(signal.SIGINT)
        last = driver.stderr.read().strip().splitlines()[-1]
    assert driver.returncode == 130 and last.startswith("interrupted; go on with: --resume ")
    run_id = last.split()[-1]
    done = subprocess.run([*command, "--json", "--resume", run_id], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    top = f"models/topics/{run_id}/"
    assert result["path"] == f"s3://runs/{top}model" and result["promoted"]
    names = {item["Key"].removeprefix(top) for item in s3.list_objects_v2(Bucket="runs", Prefix=top)["Contents"]}
    assert {"report.html", "result.json", "metrics.jsonl", "review.parquet", "model/model.safetensors"} <= names
    assert {"work/facts.json", "work/base/model.safetensors", "model/head.safetensors"} <= names
    assert [name for name in names if name.startswith("best/best-") and name.endswith("/weights.safetensors")]
    kept = json.loads(s3.get_object(Bucket="runs", Key=f"{top}result.json")["Body"].read())
    assert kept["metrics"] == result["metrics"]
    lines = s3.get_object(Bucket="runs", Key=f"{top}metrics.jsonl")["Body"].read().splitlines()
    assert [json.loads(line)["split"] for line in lines] == ["train", "validation"]

    written(
        home,
        output="s3://runs/models",
        registry=f"sqlite:///{tmp_path}/registry.db",
        base="registry:topics@champion",
        continual={"test": "../data/test.parquet", "l2_sp": 0.01, "naive": True},
        **WEAK,
    )
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["continual"]["earlier"].keys() == {"base", "model", "naive"}
    top = f"models/topics/{result['run_id']}/"
    names = {item["Key"].removeprefix(top) for item in s3.list_objects_v2(Bucket="runs", Prefix=top)["Contents"]}
    left = [name for name in names if name.startswith("naive") and not name.endswith("/")]
    assert "result.json" in names and not left, "what a folder leaves in a bucket is its name"


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_model_that_writes_is_promoted_by_what_it_writes(tmp_path: Path, kind: str) -> None:
    """The words of a topic: its name is to be written. The control's answers are scored on the same rows."""
    import tiny

    folder = tmp_path / "project"
    base = tiny.BASES[kind](tmp_path / "base")
    objective = "causal_lm" if kind == "gpt2" else "seq2seq"
    path = trainings.training_file(
        folder,
        base,
        objective=objective,
        pooling=None,
        data__test={"path": "../data/train.parquet", "filter": "id < 60"},
        data__drop_overlap="none",
        optim__lr=3e-3,
        optim__epochs=12,
        max_new_tokens=8,
        promote={"metric": "rougeL"},
    )
    first = api.finetune(path)
    assert {"rougeL", "rouge1", "rouge2", "exact_match", "loss"} <= set(first["metrics"]["test"])
    assert 0 <= first["control"]["test"]["rougeL"] <= 100 and first["metric"] == "rougeL"
    assert first["metrics"]["test"]["rougeL"] > 30, "it learnt to name topics"
    second = api.finetune(path, sets=["optim.epochs=1"])
    if first["promoted"]:
        assert second["champion"]["test"]["rougeL"] == pytest.approx(first["metrics"]["test"]["rougeL"])
    assert not second["promoted"]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_are_used_by_the_night(tmp_path: Path, kind: str) -> None:
    """From the file to the registry to a night's summaries: those of the registered model, and not of its base."""
    import tiny

    folder = tmp_path / "project"
    path = trainings.training_file(
        folder,
        tiny.BASES["gpt2"](tmp_path / "base"),
        objective="causal_lm",
        pooling=None,
        method={"kind": kind, "tokens": 4},
        data__test=None,
        optim__lr=3e-2,
        optim__epochs=3,
        zero__stage=1,
        max_new_tokens=6,
        registry=f"sqlite:///{tmp_path}/registry.db",
        promote=None,
    )
    result = api.finetune(path)
    registry = Registry(f"sqlite:///{tmp_path}/registry.db")
    model = registry.fetch("topics", result["version"])
    step = {"task": "summarize", "input": "notes", "text": "body", "generator": result["model"], "max_new_tokens": 6}
    job = {
        "name": "night",
        "registry": f"sqlite:///{tmp_path}/registry.db",
        "warehouse": {"path": "../out/warehouse"},
        "sources": {"notes": {"path": "../data/test.parquet", "key": ["id"], "filter": "id < 12"}},
        "steps": {"names": {**step, "prompt": "{text}", "reject_budget": 1.0}},
    }
    night = folder / "jobs/night.yaml"
    night.write_text(yaml.safe_dump(job))
    (made,) = api.run(str(night), date=NIGHT).steps
    assert made.rows_in == 12 == (made.rows_out or 0) + (made.rows_rejected or 0) and made.rows_out
    found = {row["id"]: row["summary"] for row in api.show(str(night), sql="select * from names").to_pylist()}
    texts = {row["id"]: row["body"] for row in pq.read_table(folder / "data/test.parquet").to_pylist()}
    prompts = [texts[key] for key in found]
    assert Generator.load(model).generate(prompts, 6).texts == list(found.values())
    bare = Generator.load(Path(tmp_path / "base")).generate(prompts, 6).texts
    assert bare != list(found.values()), "the virtual tokens say something"


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_memory_is_about_what_was_planned(tmp_path: Path) -> None:
    """The embedded encoder, 22.7 million parameters, on the sample tickets at stages 0 and 3."""
    file = str(Path(__file__).parents[2] / "jobs/finetune_intent.yaml")
    for stage in (0, 3):
        sets = [f"zero.stage={stage}", "optim.epochs=2", "track=[]", f"output={tmp_path}/models", "promote=null"]
        planned = next(row["mb"] for row in api.plan(file, sets=sets)["memory"] if row["chosen"])
        measured = api.finetune(file, sets=sets)["memory_mb"]
        assert planned / 1.3 < measured < planned * 1.3, (stage, planned, measured)


def _check_result(home: Path, result: dict[str, Any]) -> None:
    folder = home / "out/models/topics" / result["run_id"]
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result, default=float))
    assert result["path"] == str(folder / "model") and result["report"] == str(folder / "report.html")
    assert {"validation", "test"} == set(result["metrics"]) and result["rows"]["train"] == 128
    assert result["model"] == f"registry:topics@{result['version']}"
    low, high = result["intervals"]["test"]["macro_f1"]
    assert low <= result["metrics"]["test"]["macro_f1"] <= high
    names = {path.name for path in folder.iterdir()}
    assert names >= {"work", "best", "model", "metrics.jsonl", "report.html"} and "ray" not in names
    _check_model(folder / "model", home, result)
    # What was planned against what was measured: almost all of it is the process itself.
    planned = next(row["mb"] for row in api.plan(str(home / "jobs/topics.yaml"))["memory"] if row["chosen"])
    assert planned / 1.6 < result["memory_mb"] < planned * 1.6
    version = Registry(f"sqlite:///{home}/out/registry.db").get("topics", result["version"])
    assert version.metrics["test.macro_f1"] == pytest.approx(result["metrics"]["test"]["macro_f1"])
    assert version.tags["run_id"] == result["run_id"] and version.tags["base"] == result["base"]
    assert "macro_f1" in version.card


def _check_model(model: Path, home: Path, result: dict[str, Any]) -> None:
    """Plain transformers give the accuracy that was told."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    rows = pq.read_table(home / "data/test.parquet")
    batch = AutoTokenizer.from_pretrained(model)(rows["body"].to_pylist(), padding=True, return_tensors="pt")
    head = load_file(model / "head.safetensors")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(model).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    said = ((hidden * mask).sum(1) / mask.sum(1) @ head["weight"].T + head["bias"]).argmax(1).tolist()
    labels = json.loads((model / "bizllm.json").read_text())["labels"]
    right = np.mean([labels[i] == label for i, label in zip(said, rows["topic"].to_pylist(), strict=True)])
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(right, abs=0.02), "bf16 may turn a near tie"


def _night_uses(home: Path, version: str) -> None:
    """A night's labels are those of that version, and its rows name it."""
    job = {
        "name": "night",
        "warehouse": {"path": "../out/warehouse"},
        "sources": {"notes": {"path": "../data/test.parquet", "key": ["id"]}},
        "steps": {"topic": {"task": "classify", "input": "notes", "text": "body", "model": "registry:topics@champion"}},
    }
    path = home / "jobs/night.yaml"
    path.write_text(yaml.safe_dump(job))
    assert api.run(str(path), date=NIGHT).state == "done"
    found = api.show(str(path), sql="select * from topic order by id").to_pylist()
    folder = Registry(f"sqlite:///{home}/out/registry.db").fetch("topics", version)
    likely, _ = Classifier.load(folder).probabilities(pq.read_table(home / "data/test.parquet")["body"].to_pylist())
    labels = json.loads((folder / "bizllm.json").read_text())["labels"]
    assert [row["label"] for row in found] == [labels[i] for i in likely.argmax(1)]
    assert [row["probability"] for row in found] == pytest.approx(likely.max(1).tolist(), abs=1e-6)
    assert {row["model"] for row in found} == {f"registry:topics@{version}"}
