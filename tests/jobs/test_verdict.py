"""Who is promoted: held against the control and the model in use, without any training."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bizllm.jobs.verdict import Verdict, judge_model
from bizllm.models.registry import Registry, default_uri
from bizllm.models.saved import read_info
from bizllm.train import judge
from bizllm.train.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import tiny

Make = Callable[..., Path]
LABELS = ("home", "money", "travel")
WORDS = " ".join(tiny.WORDS[:-10])


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's folder without a model: MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("registry")
    Registry(default_uri(None, {}, str(folder))).experiment("unused")
    return folder


@pytest.fixture
def registry(empty: Path, tmp_path: Path) -> Registry:
    shutil.copytree(empty, tmp_path / "registry")
    return Registry(default_uri(None, {}, str(tmp_path / "registry")))


def recipe(**said: Any) -> Recipe:
    return Recipe.model_validate({**tiny._DEFAULTS, **said})


def rows(count: int = 60) -> pa.Table:
    return tiny.table(count, seed=8)


def skilled(folder: Path, table: pa.Table, right: float) -> judge.Answers:
    """Answers of a model that has `right` of the rows right."""
    info = read_info(folder)
    assert info is not None
    truth = np.array([info.labels.index(label) for label in table["label"].to_pylist()])
    said = np.where(np.arange(len(truth)) < right * len(truth), truth, (truth + 1) % len(info.labels))
    logits = 6.0 * np.eye(len(info.labels))[said]
    loss = np.ones(len(truth))
    from bizllm.train.objectives.base import objective_class

    objective = objective_class("classification")(recipe(), None, info)
    return judge.judged(objective, {"logits": logits, "loss": loss, "units": loss}, table)


def verdict(registry: Registry, answers: judge.Answers, table: pa.Table, **said: Any) -> Verdict:
    control = said.pop("control", None)
    test = said.pop("test", True)
    parts = {"validation": table, **({"test": table} if test else {})}
    return judge_model(recipe(**said), dict.fromkeys(parts, answers), parts, control, registry)


def use(registry: Registry, folder: Path, alias: str = "champion") -> None:
    made = registry.register("tiny", folder, metrics={}, params={}, tags={})
    registry.set_alias("tiny", alias, made.version)


def test_the_first_model_needs_to_beat_the_control_alone(registry: Registry, fine_tuned: Make) -> None:
    table, folder = rows(), fine_tuned(objective="classification", labels=LABELS)
    answers = skilled(folder, table, 0.8)
    weak, strong = ({"name": "linear", "scores": {"test": {"macro_f1": f1}}} for f1 in (0.5, 0.8))
    made = verdict(registry, answers, table, control=weak)
    assert made.promoted and made.reason == "the first champion: no model was in use"
    assert (made.metric, made.control_name, made.control_wins, made.labels) == ("macro_f1", "linear", False, LABELS)
    made = verdict(registry, skilled(folder, table, 0.7), table, control=strong)
    assert not made.promoted and made.control_wins and "the control is at least as good in macro_f1" in made.reason
    assert verdict(registry, answers, table).promoted, "an objective may have no control"


def test_a_lower_loss_beats_the_control(registry: Registry, fine_tuned: Make) -> None:
    table, folder = rows(), fine_tuned(objective="classification", labels=LABELS)
    answers = skilled(folder, table, 0.8)
    mine = answers.metrics["log_loss"]
    for theirs, wins in ((mine + 0.1, False), (mine - 0.1, True)):
        control = {"name": "linear", "scores": {"test": {"log_loss": theirs}}}
        made = verdict(registry, answers, table, control=control, promote={"metric": "log_loss"})
        assert made.control_wins == wins and made.promoted != wins


def test_nothing_is_promoted_without_a_test_or_against_the_will(registry: Registry, fine_tuned: Make) -> None:
    table, folder = rows(), fine_tuned(objective="classification", labels=LABELS)
    answers = skilled(folder, table, 0.9)
    assert "without `data.test` nothing is promoted" in verdict(registry, answers, table, test=False).reason
    assert "`promote` is null" in verdict(registry, answers, table, promote=None).reason


def test_the_model_in_use_is_asked_the_same_rows(registry: Registry, fine_tuned: Make) -> None:
    """A champion of fewer classes, in another order; its own answers decide, not what it was registered with."""
    table = rows()
    champion = fine_tuned(objective="classification", labels=("money", "home"), words=WORDS)
    use(registry, champion)
    info = read_info(champion)
    assert info is not None
    theirs = judge.answer(champion, info, table, recipe())
    truth = table["label"].to_pylist()
    right = np.mean([("money", "home")[i] == t for i, t in zip(theirs.outputs["logits"].argmax(1), truth, strict=True)])
    folder = fine_tuned(objective="classification", labels=LABELS)
    promote = {"metric": "accuracy"}
    made = verdict(registry, skilled(folder, table, 1.0), table, promote=promote)
    assert made.comparison is not None and made.comparison.champion == pytest.approx(right)
    assert made.promoted and made.champion_version == "1" and made.comparison.gain == pytest.approx(1 - right)
    made = verdict(registry, skilled(folder, table, right), table, promote=promote)
    assert not made.promoted, "as good is not better"
    made = verdict(registry, skilled(folder, table, 1.0), table, promote={**promote, "min_gain": 0.99})
    assert not made.promoted and "more than +0.99 is asked for" in made.reason
    # Another alias has no holder yet.
    assert verdict(registry, skilled(folder, table, 0.9), table, promote={"alias": "canary"}).promoted


def test_a_model_in_use_that_can_not_be_asked_loses_no_training(registry: Registry, fine_tuned: Make) -> None:
    table, folder = rows(), fine_tuned(objective="classification", labels=LABELS)
    answers = skilled(folder, table, 1.0)
    use(registry, fine_tuned(objective="multi_label", labels=LABELS))
    made = verdict(registry, answers, table)
    assert not made.promoted and made.champion_version == "1"
    assert made.reason == "version 1, in use, can't be compared: it is a model of multi_label"
    gone = fine_tuned(objective="classification", labels=LABELS)
    use(registry, gone)
    shutil.rmtree(Path(registry.get("tiny").source.removeprefix("file://")))
    made = verdict(registry, answers, table)
    assert "version 2, in use, can't be compared" in made.reason and "is not on this machine" in made.reason
    assert not made.promoted and made.comparison is None


def test_slices_say_where_the_model_is_weak(registry: Registry, fine_tuned: Make) -> None:
    table, folder = rows(60), fine_tuned(objective="classification", labels=LABELS)
    shops = ["north"] * 30 + ["south"] * 30
    sliced = table.append_column("slice.shop", pa.array(shops))
    made = verdict(registry, skilled(folder, sliced, 0.5), sliced, promote={"metric": "accuracy"})
    assert made.test is not None
    found = {(row["slice"], row["value"]): (row["rows"], row["score"]) for row in made.test.slices}
    assert found["shop", "north"] == (30, 1.0) and found["shop", "south"] == (30, 0.0)
    assert found["script", "latin"][0] == 60
    assert made.test.confusion.sum() == 60 and np.trace(made.test.confusion) == 30
    assert sum(row["support"] for row in made.test.per_class) == 60
