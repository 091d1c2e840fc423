"""Data and base models that can't be trained on: one clear fault each, before any work, by `plan` as by `finetune`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
import tiny
import trainings

Plan = Callable[..., dict[str, Any]]
BODIES = ["my lamp", "a coin", "the hotel", "old desk", "new bank", "big train"] * 4
TOPICS = ["home", "money", "travel"] * 8


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def plan(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Plans a training file; train and test: columns `body`, `topic` and others in the place of the usual tables."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(base: Any = bert, train: Any = None, test: Any = None, **changes: Any) -> dict[str, Any]:
        path = trainings.training_file(tmp_path, base, **changes)
        for name, columns in (("train", train), ("test", test)):
            if columns is not None:
                pq.write_table(
                    columns if isinstance(columns, pa.Table) else pa.table(columns), tmp_path / f"data/{name}.parquet"
                )
        made: dict[str, Any] = api.plan(path)
        return made

    return run


def fault(plan: Plan, **said: Any) -> str:
    with pytest.raises(UserError) as caught:
        plan(**said)
    assert len(caught.value.faults) == 1, "one clear fault"
    return str(caught.value)


def rows(body: Any = None, topic: Any = None) -> dict[str, Any]:
    return {"body": BODIES if body is None else body, "topic": TOPICS if topic is None else topic}


# -- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"data__train__label": "topci"}, "topics.yaml:8 data.train.label: 'topci': no such column; there are "),
        ({"data__train__label": None}, "data.train.label: 'label' is missing: classification needs that column"),
        ({"train": rows(topic=["home"] * 24)}, "data.train.label: train has one class only: 'home'"),
        (
            {"test": rows(topic=["hime"] * 24)},
            "data.test.label: test has labels that train never had: 'hime'; did you mean 'home'?",
        ),
        (
            {"train": rows(body=[*BODIES[:-2], "", " "])},
            '2 of 24 rows have no text (the first is row 22); leave them out: filter: "length(trim(body)) > 0"',
        ),
        ({"train": rows(body=[*BODIES[:-1], None])}, "1 of 24 rows have no text (the first is row 23)"),
        (
            {"train": rows(topic=[None, *TOPICS[1:]])},
            "data.train.label: 'topic': 1 of 24 rows have no answer (the first is row 0)",
        ),
        (
            {"train": rows(topic=[1.5] * 24)},
            "data.train.label: 'topic': expected a column of text or whole numbers; it is double; cast in `select`",
        ),
        ({"train": rows(body=list(range(24)))}, "data.train.text: 'body': expected a column of text; it is int64"),
        ({"train": pa.table(rows()).slice(0, 0)}, "data.train.path: the table has no rows"),
        ({"test": pa.table(rows()).slice(0, 0)}, "data.test.path: the table has no rows"),
        ({"data__test__filter": "topic = 'none'"}, "data.test.path: the table has no rows; look at `filter`"),
        ({"data__train__path": "../data/nothing.parquet"}, "data.train.path: "),
        ({"data__train__slices": ["shop"]}, "data.train.slices: 'shop': no such column"),
        (
            {"data__validation__split": 0.01, "train": rows(topic=[*TOPICS[:-1], "other"])},
            "data.validation.split: 0.01: leaves no row of 24",
        ),
        (
            {"data__test__path": "../data/train.parquet", "data__validation__split": 0.5},
            "data.drop_overlap: 'exact': nothing is left of train",
        ),
    ],
)
def test_tables_that_cannot_be_trained_on(plan: Plan, said: dict[str, Any], says: str) -> None:
    assert says in fault(plan, **said)


NUMBERS: dict[str, Any] = {"objective": "regression", "promote": None}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (
            {**NUMBERS, "train": rows(topic=[float("nan"), *range(23)])},
            "data.train.label: 'topic': 1 of 24 rows have no answer (the first is row 0)",
        ),
        (
            {**NUMBERS, "train": rows(topic=[[1.0], *[[1.0, 2.0]] * 23]), "data__test": None},
            "data.train.label: expected lists of one length; they have 1 to 2 numbers",
        ),
        ({**NUMBERS, "train": rows(topic=[[1.0, None]] * 24)}, "24 of 24 rows have no answer"),
        (
            {**NUMBERS, "train": rows(topic=[[1.0, 2.0]] * 24), "test": rows(topic=[[1.0, 2.0, 3.0]] * 24)},
            "data.test.label: test has 3 numbers a row, train has 2",
        ),
        (
            {**NUMBERS, "train": rows(topic=[[1.0, 2.0]] * 24), "test": rows(topic=[[1.0]] * 12 + [[1.0, 2.0]] * 12)},
            "data.test.label: expected lists of one length",
        ),
        ({**NUMBERS, "train": rows(topic=[1.0] * 24), "test": rows()}, "data.test.label: 'topic': expected "),
        (
            {
                "objective": "token_classification",
                "pooling": None,
                "train": rows(body=[["the", "lamp"]] * 24, topic=[["O"]] * 24),
            },
            "data.train.label: 'topic': 24 rows have another number of tags than tokens (the",
        ),
        (
            {
                "objective": "token_classification",
                "pooling": None,
                "train": rows(body=[["lamp"]] * 24, topic=[["O"]] * 24),
                "data__test": None,
            },
            "data.train.label: train has one class only: 'O'",
        ),
        (
            {
                "objective": "multi_label",
                "train": rows(topic=pa.array([[]] * 24, pa.list_(pa.string()))),
                "data__test": None,
            },
            "data.train.label: no row of train has a label",
        ),
        ({"objective": "multi_label", "train": rows(topic=[["home", None]] * 24)}, "24 of 24 rows have no answer"),
        (
            {"objective": "multi_label", "train": rows()},
            "data.train.label: 'topic': expected a list of text; it is string",
        ),
        ({"objective": "pair"}, "data.train.pair: 'pair' is missing: pair needs that column"),
    ],
)
def test_answers_that_cannot_be_learnt(plan: Plan, said: dict[str, Any], says: str) -> None:
    assert says in fault(plan, **said)


def test_no_fault_quotes_a_row(plan: Plan) -> None:
    secret = "Jane Doe, 5 Mill Lane"
    for said in ({"body": [secret, "", *BODIES[2:]]}, {"body": [[secret]] * 24}, {"topic": [[secret]] * 24}):
        assert "Jane" not in fault(plan, train=rows(**said))


def test_classes_are_the_same_whatever_their_type(plan: Plan, tmp_path: Path) -> None:
    """1 in one table and '1' in the other are one class, not two; a blank more is another."""
    numbers = [1, 2, 3] * 8
    made = plan(train=rows(topic=numbers), test=rows(body=["an invoice"] * 24, topic=[str(n) for n in numbers]))
    assert made["labels"] == 3
    assert "never had: '1 ', '2 ', '3 '; did you mean '1'?" in fault(plan, test=rows(topic=[f"{n} " for n in numbers]))


def test_rows_are_left_out_or_told(plan: Plan) -> None:
    train = rows(topic=["money", *TOPICS[1:]])  # 'my lamp' is home in three other rows
    made = plan(train=train, data__drop_overlap="none", data__validation={"path": "../data/test.parquet"})
    assert "4 rows of train contradict each other: 1 texts stand there with different labels" in " ".join(
        made["warnings"]
    )
    made = plan(train=rows(body=[f"{b} {i}" for i, b in enumerate(BODIES)]), test=rows(body=[f"{b} 0" for b in BODIES]))
    assert made["rows"] == {"train": 18, "validation": 5, "test": 24}
    assert made["warnings"][-1] == "1 rows of train are left out for that"


def test_a_split_takes_its_share_of_each_class_and_no_class_whole(plan: Plan, tmp_path: Path, bert: Path) -> None:
    from bizllm.jobs.training_file import load_recipe
    from bizllm.train.prepare import prepare

    topics = ["home"] * 50 + ["money"] * 20 + ["travel"] * 2 + ["other"]
    table = rows(body=[f"lamp {i} {chr(97 + i % 26)}" for i in range(len(topics))], topic=topics)
    for share in (0.1, 0.5, 0.85):
        plan(train=table, data__validation__split=share, data__drop_overlap="none")
        loaded = load_recipe(str(tmp_path / "jobs/topics.yaml"))
        parts = prepare(loaded.recipe, loaded.place, "cpu").parts
        count = {name: part.rows["label"].to_pylist() for name, part in parts.items()}
        assert set(count["train"]) == set(topics) and len(count["train"]) + len(count["validation"]) == len(topics)
        for topic in ("home", "money"):
            assert abs(count["validation"].count(topic) - share * topics.count(topic)) <= 1


# -- base models and settings -------------------------------------------------------------------------------------


def changed(bert: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(bert, folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in {**said, **config}.items() if v is not None}))
    return folder


def test_base_models_that_cannot_be_trained(plan: Plan, bert: Path, tmp_path: Path) -> None:
    bare = changed(bert, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert "topics.yaml:2 base: " in (said := fault(plan, base=bare))
    assert said.endswith("the model's folder has no tokenizer.json")
    broken = changed(bert, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    assert "its tokenizer can't be loaded" in fault(plan, base=broken)
    (broken / "config.json").write_text("{")
    assert "its config.json can't be read" in fault(plan, base=broken)
    odd = changed(bert, tmp_path / "odd", model_type="oracle")
    assert "is of the type 'oracle'; transformers knows no such model" in fault(plan, base=odd)
    assert "base: 'builtin:minilm': causal_lm needs a GPT-type model; this one is of type bert" in fault(
        plan, base="builtin:minilm", objective="causal_lm", pooling="auto"
    )
    assert "there is no registry yet" in fault(plan, base="registry:topics@champion")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"max_tokens": 65}, "max_tokens: 65: the base model reads at most 64 tokens"),
        ({"max_tokens": 2}, "max_tokens: 2: leaves no room for a text beside the special tokens"),
        ({"stop": {"metric": "f1"}}, "stop.metric: 'f1': expected one of macro_f1, accuracy"),
        ({"promote": {"metric": "f1"}}, "promote.metric: 'f1': expected one of macro_f1"),
        ({**NUMBERS, "promote": {"metric": "r2"}}, "promote.metric: 'r2': expected one of mae, rmse"),
        (
            {"objective": "quantile", "levels": [0.1, 0.9], "stop": {"metric": "mae"}},
            "stop.metric: 'mae': expected one of pinball",
        ),
        ({**NUMBERS, "review": True}, "review: True: is for classification, pair, multi_label"),
        ({**NUMBERS, "propose": {"path": "x.parquet"}}, "is for classification, pair, multi_label"),
        ({"propose": {"path": "../data/eval.parquet"}}, "propose.path: "),
        ({**NUMBERS, "pseudo_labels": {"path": "x.parquet"}}, "pseudo_labels: 'regression': is for classification"),
        ({"pseudo_labels": {"path": "../data/train.parquet"}}, "validation and test hold all its texts"),
        ({"pseudo_labels": {"path": "../data/eval.parquet"}}, "pseudo_labels.path: "),
        (
            {"pseudo_labels": {"path": "../data/train.parquet", "teachers": ["registry:topics@champion"]}},
            "there is no registry yet",
        ),
        ({"pseudo_labels": {"path": "x"}, "continual": {"distill": 0.2}}, "can't be used together: each says what"),
        ({"continual": {"replay": 0.2}}, "continual.path: 'path' is missing: rows of the earlier training"),
        ({"continual": {"path": "../data/train.parquet"}}, "is read for `replay` or `ewc`; neither is set"),
        (
            {"continual": {"distill": 0.2}},
            "continual.distill: 0.2: needs a base that was fine-tuned for classification",
        ),
        ({"continual": {"test": "../data/test.parquet"}}, "needs a base that was fine-tuned for classification"),
        ({"continual": {"naive": True, "l2_sp": 0.1}}, "continual.test: 'test' is missing: what both trainings"),
        ({"continual": {"naive": True}}, "continual.naive: True: trains once more without"),
        (
            {
                **NUMBERS,
                "train": rows(body=[[1.0, 2.0]] * 24, topic=[1.0] * 24),
                "inputs": "numbers",
                "augment": {"word_drop": 0.1},
                "data__test": None,
            },
            "augment: changes texts; these rows hold tokens, chats or numbers",
        ),
        ({"augment": {"paraphrase": "registry:writer"}}, "there is no registry yet"),
    ],
)
def test_settings_that_do_not_fit(plan: Plan, said: dict[str, Any], says: str) -> None:
    assert says in fault(plan, **said)


@pytest.mark.parametrize(
    ("said", "setting"),
    [
        ({"zero__precision": "fp16"}, "zero.precision"),
        ({"zero__offload": "cpu"}, "zero.offload"),
        ({"method": {"kind": "adalora"}, "zero__stage": 3}, "zero.stage"),
        ({"zero__stage": 3, "continual": {"l2_sp": 0.1}}, "zero.stage"),
        ({"augment": {"mixup": 0.2}, "optim__r_drop": 1.0}, "optim.r_drop"),
        ({**NUMBERS, "augment": {"mixup": 0.2}}, "augment.mixup"),
        ({**NUMBERS, "optim__r_drop": 1.0}, "optim.r_drop"),
        ({"objective": "multi_label", "optim__class_weights": "balanced"}, "optim.class_weights"),
        ({**NUMBERS, "continual": {"distill": 0.5}}, "continual.distill"),
        ({"method": {"kind": "prompt"}}, "method.kind"),
        ({"method": {"kind": "prefix"}}, "method.kind"),
        ({"objective": "embedding", "data__train__pair": "topic", "method": {"kind": "head"}}, "method.kind"),
    ],
)
def test_combinations_that_cannot_work_say_why_and_what_does(plan: Plan, said: dict[str, Any], setting: str) -> None:
    text = fault(plan, **said)
    assert f" {setting}: " in text and ";" in text.split(f"{setting}: ")[1], "the reason, and a way out"


def test_virtual_tokens_are_no_base(plan: Plan, bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(bert, tmp_path / "model"))
    (base / "adapter").mkdir()
    said = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}
    (base / "adapter/adapter_config.json").write_text(json.dumps(said))
    assert "from which training can't go on; name the base that it was made from" in fault(plan, base=base)
    (base / "adapter/adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert plan(base=base)["steps"], "merged already"


def test_rows_without_a_label_are_counted_and_cost_steps(plan: Plan, tmp_path: Path) -> None:
    without = plan()
    pq.write_table(trainings.table(128, 11).select(["body"]), tmp_path / "data/more.parquet")
    made = plan(pseudo_labels={"path": "../data/more.parquet"})
    assert made["rows"] == {**without["rows"], "unlabelled": 128}
    assert made["steps"] == 2 * without["steps"] and 1.5 < made["tokens"] / without["tokens"] < 2.5


def test_every_other_method_and_stage_is_planned(plan: Plan) -> None:
    for kind in ("full", "lora", "adapter", "head"):
        for stage in (0, 1, 2, 3):
            made = plan(method={"kind": kind}, zero__stage=stage)
            assert [row["stage"] for row in made["memory"] if row["chosen"]] == [stage]
    assert plan(method={"kind": "adalora"}, zero__stage=2)["trainable"] > 0
