"""A teacher's answers: what a pupil gets of them, what its loss asks for, and what can't be taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tiny
import torch
import trainings

from bizllm.errors import UserError
from bizllm.jobs.training_file import load_recipe
from bizllm.models.classifier import Classifier
from bizllm.models.network import load_network
from bizllm.models.saved import read_info, write_info
from bizllm.train import judge
from bizllm.train.frozen import freeze
from bizllm.train.objectives.classification import Classification
from bizllm.train.prepare import Prepared, prepare
from bizllm.train.teacher import LOGITS, VECTOR, Teacher
from bizllm.train.work import Work, take


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainings.classifier(tmp_path_factory.mktemp("teacher"), trainings.table(90, 1), num_hidden_layers=4)


def frozen(folder: Path, teacher: Path, **changes: Any) -> tuple[Prepared, Work]:
    """A pupil's work folder: half of the teacher's layers."""
    distill = {"teacher": f"path:{teacher}", **changes.pop("distill", {})}
    said = {"prune": {"layers": 2}, "distill": distill, "promote": None, **changes}
    loaded = load_recipe(trainings.training_file(folder, said.pop("base", teacher), **said))
    prepared = prepare(loaded.recipe, loaded.place, "cpu")
    return prepared, freeze(prepared, folder / "work", loaded.place)[0]


@pytest.fixture(scope="module")
def pupil(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> tuple[Prepared, Work]:
    return frozen(tmp_path_factory.mktemp("pupil"), teacher)


def test_a_teacher_is_asked_each_text_once(teacher: Path) -> None:
    texts = [text for text, _ in tiny.texts(30)]
    model = Teacher(Classifier.load(teacher))
    logits, vectors = model.answers(texts[:20])
    assert vectors is not None
    assert np.allclose(logits, model.classifier.logits(texts[:20])[0], atol=1e-5)
    asked: list[int] = []
    outputs = model.classifier.engine.outputs
    model.classifier.engine.outputs = lambda windows: asked.append(len(windows)) or outputs(windows)  # type: ignore[method-assign]
    again, _ = model.answers([*texts, *texts])
    assert asked == [len(set(texts)) - len(set(texts[:20]))]
    assert np.array_equal(again[:20], logits) and np.array_equal(again[:30], again[30:])
    network: Any = load_network(teacher, model.info)
    assert np.allclose(
        vectors @ network.head.weight.detach().numpy().T + network.head.bias.detach().numpy(), logits, atol=1e-4
    )


def test_a_pupil_reads_what_its_teacher_says(pupil: tuple[Prepared, Work], teacher: Path) -> None:
    prepared, work = pupil
    again = Work.load(work.folder)
    assert again.base == work.folder / "base" and read_info(again.base) == read_info(teacher)
    texts = prepared.parts.train.rows["text"].to_pylist()
    logits, vectors = Teacher(Classifier.load(teacher)).answers(texts)
    train = again.examples("train")
    flat = pc.list_flatten(train[LOGITS]).to_numpy().reshape(len(texts), -1)
    assert np.allclose(flat, logits, atol=1e-5) and vectors is not None
    assert np.allclose(pc.list_flatten(train[VECTOR]).to_numpy().reshape(len(texts), -1), vectors, atol=1e-5)
    assert LOGITS not in again.examples("validation").column_names
    # What turns logits into probabilities is the teacher's, and stays so.
    assert (again.info.temperature, again.info.threshold) == (0.8, 0.1)
    rows = again.rows("validation")
    answers = judge.ask(again.objective, again.network(), rows)
    assert judge.calibrated(again.objective, answers.outputs, rows) == again.info


def losses(work: Work, network: Any, train: pa.Table | None = None, **distill: Any) -> float:
    """The mean loss on some of train with these settings."""
    asked = work.recipe.distill
    assert asked is not None
    recipe = work.recipe.model_copy(update={"distill": asked.model_copy(update=distill)})
    objective = Classification(recipe, work.tokenizer, work.info)
    train = work.examples("train") if train is None else train
    objective.prepare(objective.units(train), train)
    with torch.no_grad():
        return float(objective.loss(network, objective.collate(take(train, np.arange(64))))) / 64


def test_nothing_is_better_than_to_answer_as_the_teacher(pupil: tuple[Prepared, Work], teacher: Path) -> None:
    """Of a network that says what the teacher says, only the entropy of its softened answers is left."""
    _, work = pupil
    info = read_info(teacher)
    assert info is not None
    network: Any = load_network(teacher, info)
    said = work.examples("train")[LOGITS].slice(0, 64)
    heated = torch.tensor(said.to_pylist()) / 2
    entropy = float(-(heated.softmax(-1) * heated.log_softmax(-1)).sum(-1).mean())
    assert losses(work, network, temperature=2.0) == pytest.approx(4 * entropy, abs=2e-3)
    for way in ({"vectors": 0.0}, {"vectors": 1.0}):
        assert losses(work, work.network().eval(), **way) > losses(work, network, **way) + 0.01
    with torch.no_grad():
        network.backbone.encoder.layer[-1].output.LayerNorm.bias += 0.5
        network.head.bias -= network.head.weight.sum(1) * 0.5  # the same logits, from other vectors
    assert losses(work, network, vectors=0.0) == pytest.approx(4 * entropy, abs=2e-3)
    assert losses(work, network, vectors=1.0) > 4 * entropy + 0.1


def test_labels_count_only_where_they_are_asked_for(tmp_path: Path, teacher: Path) -> None:
    """The same rows with labels turned round give the same loss at `share: 1`, and another one below."""
    _, work = frozen(tmp_path, teacher)
    network = work.network().eval()
    train = work.examples("train")
    turned = train.set_column(
        train.column_names.index("target"), "target", pa.array((train["target"].to_numpy() + 1) % 3, pa.int32())
    )
    before = {share: losses(work, network, share=share) for share in (1.0, 0.5)}
    after = {share: losses(work, network, turned, share=share) for share in (1.0, 0.5)}
    assert after[1.0] == before[1.0] and abs(after[0.5] - before[0.5]) > 0.05


def test_a_pupil_of_several_labels(tmp_path: Path) -> None:
    """Its loss is least where each label's probability is the teacher's."""
    rows = trainings.table(40, 1)
    several = pa.table(
        {"body": rows["body"], "topic": [[t] if i % 4 else [] for i, t in enumerate(rows["topic"].to_pylist())]}
    )
    folder = trainings.classifier(tmp_path / "teacher", rows)
    info = read_info(folder)
    assert info is not None
    write_info(folder, replace(info, objective="multi_label", threshold=0.4))
    import pyarrow.parquet as pq

    for part in ("train", "test"):
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(several, tmp_path / f"data/{part}.parquet")
    _, work = frozen(tmp_path, folder, objective="multi_label", data__drop_overlap="none", prune={"layers": 1})
    objective = work.objective
    train = work.examples("train")
    objective.prepare(objective.units(train), train)
    batch = objective.collate(take(train, np.arange(8)))

    def loss(shift: float) -> float:
        answers = (batch["teacher_logits"] + shift, batch["teacher_vector"])
        return float(objective.loss(lambda **_: answers, batch))

    assert loss(0.0) < min(loss(0.3), loss(-0.3))
    heated = batch["teacher_logits"] / 2
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(heated, heated.sigmoid(), reduction="none").mean(-1)
    assert loss(0.0) == pytest.approx(4 * float(entropy.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "regression"}, "teaches classification, multi_label, pair of texts, not regression"),
        ({"base": "builtin:minilm"}, "prune: 'builtin:minilm': needs a base that was fine-tuned for classification"),
        ({"optim__r_drop": 1.0}, "optim.r_drop: can't be used together with distill"),
        ({"distill": {"teacher": "builtin:minilm"}}, "expected a model that was fine-tuned for classification"),
        ({"base": "builtin:minilm", "prune": None, "distill": {"vectors": 1.0}}, "must pool vectors of one length"),
        ({"prune": {"layers": 9}}, "prune.layers: 9: the model has 4 layers"),
        ({"prune": {}}, "expected `layers` or `feed_forward` below 1"),
    ],
)
def test_what_cant_be_taught(tmp_path: Path, teacher: Path, changes: dict[str, Any], said: str) -> None:
    if changes.get("objective") == "regression":
        changes["data__train"] = {"path": "../data/train.parquet", "text": "body", "label": "id"}
    with pytest.raises(UserError) as caught:
        frozen(tmp_path, teacher, **changes)
    assert said in str(caught.value)


def test_other_classes_than_the_teachers(tmp_path: Path, teacher: Path) -> None:
    import pyarrow.parquet as pq

    rows = trainings.table(60, 1)
    (tmp_path / "data").mkdir()
    topics = ["pets" if t == "home" else t for t in rows["topic"].to_pylist()]
    pq.write_table(rows.set_column(2, "topic", pa.array(topics)), tmp_path / "data/train.parquet")
    pq.write_table(trainings.table(30, 2, unseen=True, topics=("money", "travel")), tmp_path / "data/test.parquet")
    with pytest.raises(UserError, match=r"the teacher's classes and train's differ in 'pets'"):
        frozen(tmp_path, teacher)
