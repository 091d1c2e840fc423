"""The training file: every fault at its place, paths, presets, overrides."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bizllm import api
from bizllm.errors import UserError
from bizllm.jobs.training_file import is_compression_file, is_training_file, load_evaluation, load_recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))  # trainings and tiny lie beside their tests
import trainings

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `jobs/topics.yaml` with changes; the base is the builtin one, of which nothing is read here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(**changes: Any) -> str:
        trainings.training_file(tmp_path, changes.pop("base", "builtin:minilm"), **changes)
        return "jobs/topics.yaml"

    return make


def faults(path: str, *sets: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_recipe(path, sets)
    return [str(fault) for fault in caught.value.faults]


def test_paths_are_relative_to_the_file_those_of_flags_to_the_working_directory(write: Write, tmp_path: Path) -> None:
    path = write(registry="../own.db", continual={"test": "old.parquet"}, propose={"path": "s3://lake/new/"})
    recipe = load_recipe(path, ["data.test.path=here.parquet"]).recipe
    assert recipe.data.train.path == str(tmp_path / "data/train.parquet")
    assert recipe.data.test is not None and recipe.data.test.path == str(tmp_path / "here.parquet")
    assert recipe.output == str(tmp_path / "out/models"), "the default is relative to the file, too"
    assert recipe.registry == str(tmp_path / "own.db")
    assert recipe.continual.test == str(tmp_path / "jobs/old.parquet")
    assert recipe.propose is not None and recipe.propose.path == "s3://lake/new/"
    assert load_recipe(path, registry="flag.db").recipe.registry == str(tmp_path / "flag.db")


def test_a_preset_gives_what_the_file_leaves_open(write: Write) -> None:
    optim = load_recipe(write(recipe="document-bert", optim={"lr": 5e-4})).recipe.optim
    assert (optim.lr, optim.head_lr, optim.epochs, optim.schedule) == (5e-4, 1e-3, 5, "constant")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optim__epoch": 3}, "jobs/topics.yaml:19 optim.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"data__train__text": None}, "topics.yaml:5 data.train.text: 'text' is missing (The column that the model"),
        ({"objective": "classify"}, "topics.yaml:3 objective: 'classify': expected 'classification', 'multi_label'"),
        ({"base": "builtin:minilmm"}, "topics.yaml:2 base: 'builtin:minilmm': expected a built-in model"),
        ({"base": "path:nowhere"}, "topics.yaml:2 base: 'path:nowhere': no such folder"),
        ({"name": "Topics!"}, "topics.yaml:1 name: 'Topics!': expected a name of a-z"),
        ({"workers": [4, 2]}, "workers: expected [least, most]"),
        ({"workers": 0}, "workers: 0: expected a number greater than 0"),
        ({"zero__stage": 4}, "zero.stage: 4: expected 0, 1, 2 or 3"),
        ({"data__validation": {"split": 0.1, "path": "v.parquet"}}, "expected either `split` or `path`"),
        ({"levels": [0.5, 0.5]}, "levels: expected every level once"),
        ({"registry": "http://me:secret@host"}, "topics.yaml:24 registry: holds a password"),
        (
            {"registry": "postgresql://host/db"},
            "registry: 'postgresql://host/db': is a database; expected the address of the MLflow server",
        ),
        ({"augment": {"paraphrase": "t5"}}, "augment.paraphrase: 't5': expected builtin:NAME, path:DIR"),
        ({"pseudo_labels": {"path": "x", "teachers": ["minilm"]}}, "pseudo_labels.teachers[0]: 'minilm': expected"),
        ({"propose": {"path": "x", "rows": 0}}, "propose.rows: 0: expected a number greater than 0"),
    ],
)
def test_a_fault_is_told_at_its_place(write: Write, changes: dict[str, Any], says: str) -> None:
    said = faults(write(**changes))
    assert len(said) == 1 and says in said[0] and "secret" not in said[0]


def test_all_faults_are_told_at_once(write: Write) -> None:
    said = faults(write(optim__lr=-1, workers="two", base="nothing"))
    assert [line.split(" ")[1] for line in said] == ["base:", "optim.lr:", "workers:"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optm.lr=1", "--set optm.lr: no 'optm' in a training file; did you mean 'optim'?"),
        ("optim.lrr=1", "--set optim.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        ("optim.lr", "--set: 'optim.lr': expected PLACE=VALUE"),
        ("optim.lr=fast", "--set optim.lr: 'fast': expected a number"),
        ("name.x=1", "--set name.x: name holds no further keys"),
    ],
)
def test_overrides_that_are_wrong(write: Write, text: str, says: str) -> None:
    said = faults(write(), text)
    assert len(said) == 1 and says in said[0]


def test_what_is_a_training_file(write: Write, tmp_path: Path) -> None:
    path = write(objective=None)
    assert is_training_file(path), "one that forgot its objective is told so, not that it is no job"
    with pytest.raises(UserError, match="'objective' is missing"):
        api.plan(path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"name": "j", "steps": {}}))
    assert not is_training_file("job.yaml")


def test_what_is_a_compress_file(write: Write, tmp_path: Path) -> None:
    for said, expected in (
        ({"data": {}, "students": [], "optim": {}}, True),
        ({"data": {}, "max_los": 0.1}, True),  # so that it is told what is wrong
        ({"data": {}, "stop": {}}, False),  # a training that forgot its base and its objective
        ({"data": {}, "steps": {}}, False),
        ({"path": "x", "text": "body"}, False),
    ):
        (tmp_path / "file.yaml").write_text(yaml.safe_dump(said))
        assert is_compression_file(str(tmp_path / "file.yaml")) is expected, said
    assert not is_compression_file(write(objective=None))


def test_the_data_file_of_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eval.yaml").write_text("path: data/x.parquet\ntext: body\nlable: topic\n")
    with pytest.raises(UserError, match=r"eval.yaml:3 lable: unknown key 'lable'; did you mean 'label'"):
        load_evaluation("eval.yaml")
    Path("eval.yaml").write_text("path: data/x.parquet\ntext: body\n")
    assert load_evaluation("eval.yaml")[0].path == str(tmp_path / "data/x.parquet")
