"""From a fine-tuned model to a smaller one that a plan offers, through a real training on a local Ray."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from bizllm import api
from bizllm.console.nights import print_plan
from bizllm.console.training import print_compression
from bizllm.errors import UserError
from bizllm.models.classifier import Classifier
from bizllm.models.engines import choice
from bizllm.models.registry import Registry, default_uri

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import trainings

JOB = """
name: desk
warehouse: {path: out/warehouse}
sources: {notes: {path: data/test.parquet, key: [id]}}
models: {topic: "registry:topics@champion"}
steps: {topic: {task: classify, input: notes, text: body, model: topic}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with rows, a registered teacher of four layers, and a job that uses it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(home)
        (home / "data").mkdir()
        pq.write_table(trainings.table(400, 1).select(["body"]), home / "data/rows.parquet")
        pq.write_table(trainings.table(120, 2, unseen=True), home / "data/test.parquet")
        folder = trainings.classifier(home / "teacher", trainings.table(90, 1), num_hidden_layers=4)
        registry = Registry(default_uri(None, {}, "out"))
        made = registry.register("topics", folder, metrics={}, params={}, tags={})
        registry.set_alias("topics", "champion", made.version)
        (home / "job.yaml").write_text(JOB)
        yield home


def written(home: Path, **changes: Any) -> str:
    said = {
        "data": {
            "train": {"path": "data/rows.parquet", "text": "body"},
            "test": {"path": "data/test.parquet", "label": "topic"},
        },
        "students": [{"layers": 2, "feed_forward": 0.5}],
        "max_loss": 0.2,
        "optim": {"lr": 1e-3, "head_lr": 1e-3, "epochs": 4, "batch": 32},
        "output": "out/models",
        **changes,
    }
    (home / "compress.yaml").write_text(yaml.safe_dump(said))
    return "compress.yaml"


def test_a_smaller_model_is_made_measured_and_offered(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "TIMED_S", 0.05)  # what is measured of a tiny model is told, and means nothing
    made = api.compress("registry:topics@champion", written(home))
    json.dumps(made)
    (student,) = made["students"]
    teacher = made["teacher"]
    assert teacher["model"] == "registry:topics@1" and made["smallest"] == student["model"] == "registry:topics@2"
    assert (teacher["layers"], student["layers"], student["feed_forward"]) == (4, 2, 0.5)
    assert student["parameters"] < teacher["parameters"] and student["size_mb"] < teacher["size_mb"]
    assert made["rows"]["train"] > 8 * made["rows"]["apart"] > 0 and made["rows"]["test"] == 120
    assert student["agreement"] >= 0.8  # it learned: three topics; a pupil without training agrees in a third
    assert student["loss"] == pytest.approx(teacher["score"] - student["score"]) and student["loss"] <= 0.2
    assert student["low"] <= student["loss"] <= student["high"]
    # What is registered is what was measured.
    registry = Registry(default_uri(None, {}, "out"))
    version = registry.get("topics", "2")
    assert registry.get("topics").version == "1"  # no alias moved
    assert version.tags["teacher"] == "registry:topics@1" and float(version.tags["score_loss"]) == student["loss"]
    ours, theirs = (Classifier.load(registry.fetch("topics", which)) for which in ("2", "1"))
    texts = trainings.table(60, 5)["body"].to_pylist()
    same = (ours.probabilities(texts)[0].argmax(1) == theirs.probabilities(texts)[0].argmax(1)).mean()
    assert same >= 0.8 and ours.info.temperature == theirs.info.temperature
    # A plan offers it to those who allow the loss.
    offered = api.plan("job.yaml", date="2026-03-10", max_loss=0.2)
    assert not isinstance(offered, dict)
    (step,) = offered.steps
    assert [offer["model"] for offer in step.smaller] == ["registry:topics@2"]
    strict = api.plan("job.yaml", date="2026-03-10", max_loss=student["loss"] - 1e-9) if student["loss"] > 0 else None
    assert strict is None or (not isinstance(strict, dict) and strict.steps[0].smaller == [])
    capsys.readouterr()
    print_plan(offered.to_dict())
    assert "topic could use registry:topics@2: " in capsys.readouterr().out
    print_compression(made)
    told = capsys.readouterr().out
    assert "topics@1 " in told and "smallest registry:topics@2 loses at most 0.2 of macro_f1" in told
    # Of another content than it learned from it is no smaller version.
    registry.set_alias("topics", "champion", "2")
    later = api.plan("job.yaml", date="2026-03-10", max_loss=0.2)
    assert not isinstance(later, dict) and later.steps[0].smaller == []


@pytest.mark.parametrize(
    ("changes", "model", "said"),
    [
        ({}, "builtin:minilm", "MODEL: 'builtin:minilm': expected a model of texts that was fine-tuned for"),
        ({"students": [{"layers": 2}, {"layers": 5}]}, "", "students[1].layers: 5: the model has 4 layers; use 1 to 4"),
        ({"students": [{}]}, "", "nothing would be left out"),
        (
            {"data": {"train": {"path": "data/rows.parquet", "text": "bdy"}}},
            "",
            "data.train.text: 'bdy': no such column",
        ),
        ({"max_los": 0.1}, "", "did you mean 'max_loss'?"),
        (
            {"data": {"train": {"path": "data/rows.parquet", "text": "body", "pair": "body"}}},
            "",
            "the model reads no pairs",
        ),
    ],
)
def test_what_is_wrong_is_told_before_any_work(home: Path, changes: dict[str, Any], model: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        api.compress(model or "registry:topics@1", written(home, **changes, name="other"))
    assert said in str(caught.value)
    assert not (home / "out/models/other").exists()
