"""The frozen input: what train gets besides its own rows, and that held-out rows stay as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import trainings

from bizllm.jobs.training_file import load_recipe
from bizllm.train.frozen import EARLIER_TEST, UNLABELLED, _near_tokens, freeze
from bizllm.train.prepare import Prepared, prepare
from bizllm.train.work import Work

Freeze = Callable[..., tuple[Prepared, Work, dict[str, Any]]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def frozen(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Freeze:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(base: Path = bert, **changes: Any) -> tuple[Prepared, Work, dict[str, Any]]:
        loaded = load_recipe(trainings.training_file(tmp_path, base, **changes))
        prepared = prepare(loaded.recipe, loaded.place, "cpu")
        return prepared, *freeze(prepared, tmp_path / "work", loaded.place)

    return run


def texts_of(work: Work) -> list[str]:
    """Of train's examples, decoded."""
    ids = work.examples("train")["input_ids"].to_pylist()
    return [work.tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def test_what_workers_read_is_what_was_prepared(frozen: Freeze) -> None:
    prepared, work, facts = frozen()
    again = Work.load(work.folder)
    assert again.info == prepared.info and again.recipe == prepared.recipe
    train = prepared.parts.train.rows
    assert texts_of(again) == train["text"].to_pylist()
    target = again.examples("train")["target"].to_pylist()
    assert [prepared.info.labels[i] for i in target] == train["label"].to_pylist()
    assert facts["rows"] == {"train": 128, "validation": 32, "test": 120} and facts["augmented"] == 0
    assert again.rows("test").equals(prepared.parts.test.rows)
    assert facts["tokens"]["train"] == sum(len(text.split()) + 2 for text in train["text"].to_pylist())


def test_replayed_rows_are_balanced_and_none_is_held_out(frozen: Freeze, tmp_path: Path) -> None:
    """Earlier rows: one class is rare, and some are in the new test."""
    many = trainings.table(300, 9, topics=("home", "money"))
    few = trainings.table(20, 10, topics=("travel",))
    (tmp_path / "data").mkdir()
    earlier = pa.concat_tables([many, few])
    pq.write_table(pa.concat_tables([earlier, trainings.table(120, 2, unseen=True)]), tmp_path / "data/old.parquet")
    prepared, work, facts = frozen(continual={"replay": 0.25, "path": "../data/old.parquet"})
    assert prepared.earlier.rows is not None
    held_out = {t for part in ("validation", "test") for t in work.rows(part)["text"].to_pylist()}
    assert not held_out & set(prepared.earlier.rows["text"].to_pylist())
    assert facts["replayed"] == round(128 / 3) and facts["rows"]["train"] == 128
    new = Counter(prepared.parts.train.rows["text"].to_pylist())
    texts, target = texts_of(work), work.examples("train")["target"].to_pylist()
    old = []
    for text, code in zip(texts, target, strict=True):
        if new[text]:
            new[text] -= 1
        else:
            old.append(prepared.info.labels[code])
    assert len(old) == 43 and max(Counter(old).values()) - min(Counter(old).values()) <= 1
    assert set(texts) & held_out == set()


def test_ewc_has_the_earlier_rows_and_no_more(frozen: Freeze, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(trainings.table(40, 9), tmp_path / "data/old.parquet")
    _, work, facts = frozen(continual={"ewc": 1.0, "path": "../data/old.parquet"}, zero__stage=1)
    assert len(work.examples("replay")) == 40 and facts["replayed"] == 0
    assert len(work.examples("train")) == 128


def test_changed_copies_reach_train_alone(frozen: Freeze) -> None:
    prepared, work, facts = frozen(augment={"word_drop": 0.3, "synonyms": 0.2, "copies": 2})
    plain = prepared.parts.train.rows
    assert facts["augmented"] > 128 and facts["rows"]["train"] == 128
    assert len(work.examples("train")) == 128 + facts["augmented"]
    assert texts_of(work)[:128] == plain["text"].to_pylist()
    for part in ("validation", "test"):
        rows = dict(prepared.parts.items())[part].rows
        assert work.rows(part).equals(rows) and len(work.examples(part)) == len(rows)


def test_near_tokens_are_of_words_whatever_stands_beside_them(frozen: Freeze) -> None:
    prepared, _, _ = frozen()
    bare = _near_tokens(prepared, ["lamp kettle desk"])
    assert _near_tokens(prepared, ["Lamp, kettle! (desk) lamp_2 9"]) == bare


def test_the_teacher_s_answers_are_over_the_new_classes(frozen: Freeze, fine_tuned: Any, tmp_path: Path) -> None:
    words = " ".join(tiny.WORDS[:-10])
    base = fine_tuned(objective="classification", labels=("zoo", "money"), words=words)
    prepared, work, _ = frozen(base, continual={"distill": 0.5})
    assert prepared.info.labels == ("zoo", "money", "home", "travel"), "those of the base keep their places"
    teacher = np.array(work.examples("train")["teacher"].to_pylist())
    assert teacher.shape == (128, 4) and np.allclose(teacher[:, 2:], 0) and np.allclose(teacher.sum(1), 1)
    assert np.ptp(teacher[:, 0]) > 0.01 and set(work.examples("train")["trust"].to_pylist()) == {0.5}


@pytest.mark.parametrize("most", [1_000, 15])
def test_unlabelled_rows_are_learned_and_none_that_is_held_out(frozen: Freeze, tmp_path: Path, most: int) -> None:
    (tmp_path / "data").mkdir()
    new, known = trainings.table(40, 11), trainings.table(120, 2, unseen=True)
    more = pa.concat_tables([known, new, trainings.table(160, 1)]).drop_columns(["topic"])
    pq.write_table(more, tmp_path / "data/more.parquet")
    prepared, work, facts = frozen(pseudo_labels={"path": "../data/more.parquet", "rows": most, "label_names": True})
    texts, examples = texts_of(work), work.examples("train")
    trust, teacher = examples["trust"].to_numpy(), np.array(examples["teacher"].to_pylist())
    held_out = {text for part in ("validation", "test") for text in work.rows(part)["text"].to_pylist()}
    fresh = [
        t for t in new["body"].to_pylist() if t not in held_out | set(prepared.parts.train.rows["text"].to_pylist())
    ]
    assert facts["pseudo_labelled"]["rows"] == min(most, len(fresh)) == int(trust.sum())
    assert facts["pseudo_labelled"]["teachers"] == [prepared.base.uri]
    assert facts["rows"]["train"] == 128 and texts[:128] == prepared.parts.train.rows["text"].to_pylist()
    assert set(texts[128:]) <= set(fresh) and not trust[:128].any() and trust[128:].all()
    assert np.allclose(teacher[128:].sum(1), 1, atol=1e-4)
    assert examples["target"].to_pylist()[128:] == teacher[128:].argmax(1).tolist()
    assert bool(prepared.warnings and "drawn by chance" in prepared.warnings[-1]) == (most < len(fresh))


def test_rows_that_are_only_asked_lie_beside(frozen: Freeze, fine_tuned: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(trainings.table(30, 9), tmp_path / "data/old.parquet")
    pq.write_table(trainings.table(50, 11).drop_columns(["topic"]), tmp_path / "data/new.parquet")
    base = fine_tuned(objective="classification", labels=("home", "money"))
    _, work, facts = frozen(
        base, continual={"test": "../data/old.parquet"}, propose={"path": "../data/new.parquet", "filter": "id < 20"}
    )
    assert len(work.examples(EARLIER_TEST)) == 30 and work.examples(EARLIER_TEST).column_names[:2] == ["text", "label"]
    assert work.examples(UNLABELLED).column_names == ["text", "row"] and len(work.examples(UNLABELLED)) == 20
    assert set(facts["rows"]) == {"train", "validation", "test"}
