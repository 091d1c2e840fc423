"""Steps that read the same texts by the same backbone: one computes its vectors, all answer as if alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bizllm import api
from bizllm.infer.vectors import SUFFIX
from bizllm.jobs import sharing
from bizllm.jobs.job import load_job
from bizllm.jobs.prepare import prepare
from bizllm.models.content import backbone_hash, content_hash
from bizllm.models.load import resolve

NIGHT, NEXT = "2026-03-10", "2026-03-11"
Job = Callable[..., str]
Make = Callable[..., Path]
Steps = dict[str, dict[str, Any]]


@pytest.fixture
def steps(fine_tuned: Make) -> Steps:
    """Vectors, one of three classes, and any of two labels; all by one backbone."""
    models = {
        "vectors": ("embed", fine_tuned(objective="embedding")),
        "intent": ("classify", fine_tuned(objective="classification", labels=("refund", "delivery", "other"))),
        "flags": ("classify", fine_tuned(objective="multi_label", labels=("angry", "urgent"))),
    }
    return {
        name: {"task": task, "input": "tickets", "text": "body", "model": f"path:{folder}"}
        for name, (task, folder) in models.items()
    }


def table(path: str, step: str) -> pa.Table:
    hidden = ("run_id", "produced_at")
    read = api.show(path, sql=f"select * from {step} order by ticket_id")
    return read.drop_columns([name for name in hidden if name in read.column_names])


def files(folder: Path) -> list[Path]:
    return sorted((folder / "wh/_bizllm/shop/vectors").rglob(f"*{SUFFIX}"))


def states(result: Any) -> list[str]:
    return [step.state for step in result.steps]


def engines(result: Any) -> dict[str, str]:
    return {step.step: step.engine or "" for step in result.steps}


@pytest.mark.usefixtures("local_ray")
def test_one_pass_answers_as_many(job: Job, steps: Steps, tmp_path: Path) -> None:
    # Of a source of its own each step is alone in one night as it would be in three.
    tickets = {"path": "tickets", "key": ["ticket_id"], "partition": "dt"}
    own = {name: step | {"input": f"of_{name}"} for name, step in steps.items()}
    path = job(sources={step["input"]: tickets for step in own.values()}, steps=own)
    assert states(api.run(path, date=NIGHT)) == ["done"] * 3
    alone = {name: table(path, name) for name in steps}
    assert not files(tmp_path), "a step alone shares nothing"

    path = job(name="together", sources={"tickets": tickets}, steps=steps)
    told = {step.step: step.engine for step in api.plan(path, date=NIGHT).steps}
    assert told == {"vectors": "torch", "intent": "vectors of vectors", "flags": "vectors of vectors"}
    result = api.run(path, date=NIGHT)
    said = engines(result)
    assert said["vectors"].startswith("torch ")
    count = said["intent"].partition(" of ")[0]
    assert said["intent"] == said["flags"] == f"{count} of {count} vectors are those of step 'vectors'"
    for name, expected in alone.items():
        assert table(path, name) == expected, name
    assert "vectors are those of step" in str(api.runs(path)[0]["engine"])


def test_who_shares(job: Job, steps: Steps, fine_tuned: Make) -> None:
    """The same column of the same input, the same backbone, the same wishes; never int8."""
    other = f"path:{fine_tuned(objective='embedding', layers=1)}"
    native = fine_tuned(objective="classification", labels=("a", "b"), pooling="native")
    steps |= {
        "low": steps["intent"] | {"precision": "int8"},
        "exact": steps["intent"] | {"precision": "float32"},
        "other": steps["vectors"] | {"model": other},
        "native": steps["intent"] | {"model": f"path:{native}"},
        "names": steps["vectors"] | {"text": "ticket_id"},
        "yesterday": steps["vectors"] | {"dates": "all"},
    }
    night = prepare(load_job(job(steps=steps)), date.fromisoformat(NIGHT))
    found = sharing.shared_of(night.steps)
    assert {name: part.leader for name, part in found.items()} == dict.fromkeys(
        ("vectors", "intent", "flags"), "vectors"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_another_head_takes_last_night_s_vectors(job: Job, steps: Steps, fine_tuned: Make, tmp_path: Path) -> None:
    """A new model on the old backbone reads nothing; a file that is spoiled is computed again; gc removes them."""
    del steps["flags"]
    path = job(steps=steps)
    api.run(path, date=NIGHT)
    (kept,) = files(tmp_path)
    changed = fine_tuned(
        objective="classification",
        labels=("refund", "delivery", "other"),
        weights=lambda name, value: -value if name.startswith("head") else None,
    )
    before = table(path, "intent")
    path = job(steps=steps | {"intent": steps["intent"] | {"model": f"path:{changed}"}})
    result = api.run(path, date=NIGHT)
    assert states(result) == ["unchanged", "done"]
    assert "vectors are those of step 'vectors'" in engines(result)["intent"]
    after = table(path, "intent")
    assert after["label"] != before["label"]

    kept.write_bytes(kept.read_bytes()[:-40])
    path = job(steps=steps)
    result = api.run(path, date=NIGHT)
    assert states(result) == ["unchanged", "done"] and engines(result)["intent"].startswith("torch ")
    assert table(path, "intent") == before, "it computed what could not be read"
    result = api.run(path, date=NIGHT, fresh=True)
    assert states(result) == ["done"] * 2 and engines(result)["vectors"].startswith("torch "), "made anew"
    assert "vectors are those of step 'vectors'" in engines(result)["intent"]
    assert not api.gc(path, older_than="1h")["files"] and files(tmp_path)
    os.utime(kept, (time.time() - 7200,) * 2)
    assert [one["what"] for one in api.gc(path, older_than="1h")["removed"]] == ["vectors"] and not files(tmp_path)


def test_a_backbone_is_known_whatever_its_head(fine_tuned: Make) -> None:
    base, head = fine_tuned(objective="embedding"), fine_tuned(objective="classification", labels=("a", "b"))
    other = fine_tuned(objective="classification", labels=("a", "b"), weights=lambda name, _: None, layers=1)
    assert backbone_hash(base) == backbone_hash(head) != backbone_hash(other)
    assert content_hash(base) != content_hash(head)


def test_a_published_model_and_one_trained_on_it(tmp_path: Path) -> None:
    """The built-in encoder, and the folder that a training with a frozen backbone leaves."""
    from transformers import AutoModel

    from bizllm.models.network import PooledModel, save_network

    base = resolve("builtin:minilm").folder
    save_network(PooledModel(AutoModel.from_pretrained(base), "mean", 3), tmp_path)
    assert backbone_hash(tmp_path) == backbone_hash(base)
