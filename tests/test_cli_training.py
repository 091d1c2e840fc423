"""`bizllm finetune`, `evaluate` and `plan TRAIN.yaml` as a person types them: exit status, stdout, stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix
from typer.testing import CliRunner, Result

from bizllm import api
from bizllm.cli import app
from bizllm.errors import Cancelled, RunError
from bizllm.models.classifier import Classifier

sys.path.insert(0, str(Path(__file__).parent / "train"))
import tiny
import trainings

Make = Callable[..., Path]
WORDS = " ".join(tiny.WORDS[:-10])


@pytest.fixture
def bizllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the command line in a folder of its own; (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        result: Result = CliRunner().invoke(app, list(words))
        out, err = capfd.readouterr()
        return result.exit_code, result.stdout + out, result.stderr + err

    return run


def test_wrong_input_is_exit_2_one_line_a_fault(bizllm: Callable[..., Any], tmp_path: Path) -> None:
    path = trainings.training_file(tmp_path, "builtin:minilm", optim__epoch=3, workers=0)
    status, out, err = bizllm("finetune", path)
    lines = err.strip().splitlines()
    assert status == 2 and out == "" and len(lines) == 2
    assert lines[0].endswith("optim.epoch: unknown key 'epoch'; did you mean 'epochs'?") and "workers: 0:" in lines[1]
    status, out, _ = bizllm("finetune", path, "--json")
    told = json.loads(out)
    assert status == 2 and told["status"] == 2 and len(told["faults"]) == 2
    assert told["faults"][0]["place"].endswith("topics.yaml:19 optim.epoch")
    assert not (tmp_path / "out").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "optm.lr=1"], "--set optm.lr: no 'optm' in a training file; did you mean 'optim'?"),
        (["--set", "data.train.label=topci"], "--set data.train.label: 'topci': no such column"),
        (["--resume", "20260101T000000-abcdef"], "--resume: '20260101T000000-abcdef': no run of topics"),
        (["--registry", "file:///mlruns"], "registry: 'file:///mlruns': MLflow closed its store of plain files"),
    ],
)
def test_flags_that_are_wrong(bizllm: Callable[..., Any], tmp_path: Path, words: list[str], says: str) -> None:
    status, _, err = bizllm("finetune", trainings.training_file(tmp_path, "builtin:minilm"), *words)
    lines = [line for line in err.strip().splitlines() if line != "stage check"]
    assert status == 2 and len(lines) == 1 and says in lines[0]


def test_no_such_file(bizllm: Callable[..., Any]) -> None:
    assert bizllm("finetune", "nothing.yaml")[0] == 2
    assert "nothing.yaml: no such file" in bizllm("plan", "nothing.yaml")[2]


@pytest.mark.parametrize(("error", "status"), [(Cancelled, 130), (RunError, 1)])
def test_a_run_that_ends_early(
    bizllm: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, status: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("the loss of step 7 is nan: training stopped; go on with: --resume R")

    monkeypatch.setattr(api, "finetune", fail)
    said = bizllm("finetune", "x.yaml")
    assert (
        said[0] == status and said[2].strip() == "the loss of step 7 is nan: training stopped; go on with: --resume R"
    )
    status_, out, _ = bizllm("finetune", "x.yaml", "--json")
    assert status_ == status and json.loads(out)["error"].endswith("--resume R")


def test_a_plan_of_a_training_file(bizllm: Callable[..., Any], tmp_path: Path) -> None:
    path = trainings.training_file(tmp_path, tiny.bert(tmp_path / "base"), zero__stage=3)
    status, out, _ = bizllm("plan", path, "--json")
    plan = json.loads(out)
    assert status == 0 and plan["name"] == "topics" and plan["steps"] == 32
    assert [row["stage"] for row in plan["memory"] if row["chosen"]] == [3]
    status, out, err = bizllm("plan", path)
    assert status == 0 and "32 steps" in out + err


@pytest.fixture
def labelled(tmp_path: Path, fine_tuned: Make) -> tuple[str, Path, pa.Table]:
    """(data file, model folder, rows)."""
    rows = trainings.table(60, 3)
    pq.write_table(rows, tmp_path / "rows.parquet")
    (tmp_path / "eval.yaml").write_text("path: rows.parquet\ntext: body\nlabel: topic\nslices: [shop]\n")
    shop = pa.array(["north", "south"] * 30)
    pq.write_table(rows.append_column("shop", shop), tmp_path / "rows.parquet")
    model = fine_tuned(objective="classification", labels=tuple(tiny.TOPICS), words=WORDS)
    return "eval.yaml", model, rows


def test_evaluate_tells_what_the_model_would_say_at_night(
    bizllm: Callable[..., Any], labelled: tuple[str, Path, pa.Table]
) -> None:
    data, model, rows = labelled
    status, out, _ = bizllm("evaluate", f"path:{model}", data, "--json")
    told = json.loads(out)
    likely, _ = Classifier.load(model).probabilities(rows["body"].to_pylist())
    labels = list(tiny.TOPICS)
    said, truth = [labels[i] for i in likely.argmax(1)], rows["topic"].to_pylist()
    assert status == 0 and told["rows"] == 60 and told["labels"] == labels
    assert told["metrics"]["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert told["confusion"] == confusion_matrix(truth, said, labels=labels).tolist()
    assert {(row["slice"], row["value"]) for row in told["slices"]} >= {("shop", "north"), ("shop", "south")}
    low, high = told["intervals"]["macro_f1"]
    assert low <= told["metrics"]["macro_f1"] <= high
    status, out, _ = bizllm("evaluate", f"path:{model}", data)
    assert status == 0 and "macro_f1" in out and "on 60 rows" in out and "None" not in out


def test_what_can_not_be_evaluated(bizllm: Callable[..., Any], labelled: tuple[str, Path, pa.Table]) -> None:
    data, model, rows = labelled
    assert "MODEL: 'builtin:minilm': was not fine-tuned by bizllm" in bizllm("evaluate", "builtin:minilm", data)[2]
    assert "there is no registry yet" in bizllm("evaluate", "registry:topics@champion", data)[2]
    pq.write_table(rows.set_column(2, "topic", pa.array(["sea"] * 60)), "rows.parquet")
    Path(data).write_text("path: rows.parquet\ntext: body\nlabel: topic\n")
    status, _, err = bizllm("evaluate", f"path:{model}", data)
    assert status == 2 and "eval.yaml:3 label: has labels that the model does not know: 'sea'" in err
    Path(data).write_text("path: rows.parquet\ntext: body\n")
    assert "label: 'label' is missing: classification needs that column" in bizllm("evaluate", f"path:{model}", data)[2]


def test_numbers_of_another_horizon(bizllm: Callable[..., Any], fine_tuned: Make) -> None:
    model = fine_tuned(objective="regression", horizon=2)
    pq.write_table(pa.table({"body": ["the lamp", "kettle"], "next": [[1.0] * 3, [2.0] * 3]}), "rows.parquet")
    Path("eval.yaml").write_text("path: rows.parquet\ntext: body\nlabel: next\n")
    status, _, err = bizllm("evaluate", f"path:{model}", "eval.yaml")
    assert status == 2 and "label: has 3 numbers a row; the model answers with 2" in err
