"""How much of an earlier training is left, against figures by scikit-learn; rows that must not come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import trainings
from sklearn.metrics import accuracy_score, f1_score

from bizllm.errors import UserError
from bizllm.jobs.training_file import load_recipe
from bizllm.models.saved import read_info
from bizllm.train import earlier, judge
from bizllm.train.prepare import prepare
from bizllm.train.recipe import Recipe

Make = Callable[..., Path]
WORDS = " ".join(tiny.WORDS[:-10])


def labels_of(folder: Path, rows: pa.Table, recipe: Recipe) -> tuple[judge.Answers, list[str]]:
    info = read_info(folder)
    assert info is not None
    found = judge.answer(folder, info, rows, recipe)
    return found, [info.labels[i] for i in found.outputs["logits"].argmax(1)]


def test_transfer_and_forgetting_are_told_of_both_tests(fine_tuned: Make) -> None:
    """The base knows two classes, the new model three: rows of the third are wrong for the base, and no fault."""
    base = fine_tuned(objective="classification", labels=("home", "money"), words=WORDS)
    new = fine_tuned(
        objective="classification", labels=("home", "money", "travel"), words=WORDS, weights=lambda _, p: -p.flip(0)
    )
    recipe = Recipe.model_validate(tiny._DEFAULTS)
    old_rows = tiny.table(80, seed=1)
    old_rows = old_rows.filter(pa.array([label != "travel" for label in old_rows["label"].to_pylist()]))
    new_rows = tiny.table(80, seed=2)
    tests = {
        name: (rows, {"model": labels_of(new, rows, recipe)[0], "naive": labels_of(base, rows, recipe)[0]})
        for name, rows in (("earlier", old_rows), ("new", new_rows))
    }
    told = earlier.retained("macro_f1", base, tests, recipe)
    for name, rows in (("earlier", old_rows), ("new", new_rows)):
        truth = rows["label"].to_pylist()
        for who, folder in (("base", base), ("model", new)):
            _, said = labels_of(folder, rows, recipe)
            assert told[name][who]["accuracy"] == pytest.approx(accuracy_score(truth, said))
            occur = sorted({*truth, *said})
            expected = f1_score(truth, said, average="macro", labels=occur, zero_division=0)
            assert told[name][who]["macro_f1"] == pytest.approx(expected)
    gain = told["earlier"]["model"]["macro_f1"] - told["earlier"]["base"]["macro_f1"]
    assert gain != 0 and told["backward_transfer"] == pytest.approx({"model": gain, "naive": 0.0})
    assert told["forgetting"] == pytest.approx({"model": max(0.0, -gain), "naive": 0.0})


def test_a_lower_error_is_a_gain(fine_tuned: Make) -> None:
    base = fine_tuned(objective="regression")
    recipe = Recipe.model_validate({**tiny._DEFAULTS, "objective": "regression"})
    rows = pa.table({"text": ["the lamp", "kettle", "broken"], "label": [1.0, 2.0, 3.0]})
    info = read_info(base)
    assert info is not None
    truth = np.array([[1.0], [2.0], [3.0]])
    perfect = judge.Answers(info, {"numbers": truth, "loss": np.zeros(3), "units": np.ones(3)}, {})
    told = earlier.retained("mae", base, {"earlier": (rows, {"model": perfect})}, recipe)
    error = told["earlier"]["base"]["mae"]
    assert error > 0 and told["backward_transfer"]["model"] == pytest.approx(error)
    assert told["forgetting"]["model"] == 0.0


@pytest.fixture
def prepared(tmp_path: Path, fine_tuned: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    base = fine_tuned(objective="classification", labels=("home", "zoo"), words=WORDS)

    def run(rows: pa.Table, **continual: Any) -> Any:
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "data/old.parquet")
        loaded = load_recipe(trainings.training_file(tmp_path, base, continual=continual))
        return prepare(loaded.recipe, loaded.place, "cpu")

    return run


def test_replayed_rows_are_in_no_test_of_earlier_either(prepared: Callable[..., Any], tmp_path: Path) -> None:
    rows = trainings.table(60, 5)
    (tmp_path / "data").mkdir(exist_ok=True)
    pq.write_table(rows.slice(0, 25), tmp_path / "data/old_test.parquet")
    made = prepared(rows, replay=0.2, path="../data/old.parquet", test="../data/old_test.parquet")
    assert len(made.earlier.test) == 25
    assert not set(made.earlier.rows["text"].to_pylist()) & set(made.earlier.test["text"].to_pylist())


def test_faults_of_earlier_tables_have_their_place(prepared: Callable[..., Any]) -> None:
    rows = trainings.table(10, 5)
    with pytest.raises(UserError, match=r"continual\.path: .*has labels that neither the base nor train has: 'sea'"):
        prepared(rows.set_column(2, "topic", pa.array(["sea"] * 10)), replay=0.2, path="../data/old.parquet")
    with pytest.raises(UserError, match=r"continual\.test: 'topic': no such column; there are id, body"):
        prepared(rows.drop_columns(["topic"]), test="../data/old.parquet")
    known = prepared(rows.set_column(2, "topic", pa.array(["zoo"] * 10)), test="../data/old.parquet")
    assert known.info.labels == ("home", "zoo", "money", "travel")
    with pytest.raises(UserError, match=r"continual\.path: .*validation and test hold all its texts"):
        prepared(trainings.table(120, 2, unseen=True), replay=0.2, path="../data/old.parquet")
