"""A job whose models come from a registry: where it is looked for, and that a night pins what it resolved."""

from __future__ import annotations

import json
import pickle
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError
from bizllm.jobs.job import load_job
from bizllm.jobs.prepare import Night, prepare
from bizllm.models.registry import Registry, default_uri

JOB = """
name: j
warehouse: {path: ../out/warehouse}
sources:
  tickets: {path: tickets.parquet, key: [id]}
models:
  encoder: registry:encoder@champion
steps:
  first: {task: summarize, input: tickets, text: body, model: encoder}
  second: {task: summarize, input: tickets, text: body, model: encoder, max_sentences: 1}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's file with its source."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "jobs"
    folder.mkdir()
    pq.write_table(pa.table({"id": [1], "body": ["The lid leaks."]}), folder / "tickets.parquet")
    (folder / "j.yaml").write_text(JOB)
    return folder / "j.yaml"


def night(job: Path, *sets: str) -> Night:
    return prepare(load_job(str(job), sets), date(2026, 6, 30))


def registered(uri: str, folder: Path, weights: bytes) -> str:
    """The version of a new champion."""
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps({}))
    (folder / "model.safetensors").write_bytes(weights)
    models = Registry(uri)
    made = models.register("encoder", folder, metrics={}, params={}, tags={})
    models.set_alias("encoder", "champion", made.version)
    return made.version


def test_a_night_pins_what_the_alias_points_to(job: Path, tmp_path: Path) -> None:
    beside = default_uri(None, {}, str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"there is no registry yet"):
        night(job)
    registered(beside, tmp_path / "model", b"one")
    before = night(job).steps["first"]
    assert before.model == "registry:encoder@1"
    pin = before.pinned["registry:encoder@champion"]
    assert before.model_version == f"1-{pin.content_hash[:8]}"
    assert pickle.loads(pickle.dumps(pin)) == pin, "it travels to the workers"

    registered(beside, tmp_path / "model", b"two")
    after = night(job).steps["first"]
    assert after.model == "registry:encoder@2" and after.fingerprint != before.fingerprint
    Registry(beside).rollback("encoder")
    assert night(job).steps["first"].fingerprint == before.fingerprint, "back at the first, nothing is to be done"


def test_the_steps_of_a_night_have_one_version(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alias that moves after the first step was prepared does not split the night."""
    beside = default_uri(None, {}, str(tmp_path / "out"))
    registered(beside, tmp_path / "model", b"one")
    asked = Registry.get

    def moved_after(self: Registry, name: str, which: str, place: str) -> object:
        found = asked(self, name, which, place)
        monkeypatch.undo()
        registered(beside, tmp_path / "model", b"two")
        return found

    monkeypatch.setattr(Registry, "get", moved_after)
    assert {step.model for step in night(job).steps.values()} == {"registry:encoder@1"}


def test_an_unknown_model_is_told_at_its_place(job: Path, tmp_path: Path) -> None:
    registered(default_uri(None, {}, str(tmp_path / "out")), tmp_path / "model", b"one")
    with pytest.raises(UserError, match=r"j.yaml:9 steps.first.model: 'champ': no such alias of encoder"):
        night(job, "models.encoder=registry:encoder@champ")


def test_the_jobs_registry_is_relative_to_its_file(job: Path, tmp_path: Path) -> None:
    registered(default_uri(str(tmp_path / "jobs" / "own.db"), {}, "x"), tmp_path / "model", b"one")
    job.write_text(JOB + "registry: own.db\n")
    assert night(job).steps["first"].model == "registry:encoder@1"


@pytest.mark.parametrize(
    ("registry", "says"),
    [
        ("file:///mlruns", "closed its store of plain files"),
        ("postgresql://host/db", "is a database; expected the address of the MLflow server"),
        ("http://me:secret@host:5000", "holds a password"),
    ],
)
def test_what_is_no_registry_is_told_at_its_line(job: Path, registry: str, says: str) -> None:
    job.write_text(JOB + f"registry: {registry}\n")
    with pytest.raises(UserError, match=rf"j.yaml:11 registry: .*{says}") as caught:
        load_job(str(job))
    assert "secret" not in str(caught.value)


def test_a_plan_for_a_cluster_warns_of_a_registry_on_this_disk(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    registered(default_uri(None, {}, str(tmp_path / "out")), tmp_path / "model", b"one")
    assert not api.plan(str(job), date="2026-06-30").warnings
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")  # where a run would go; the flag would have it looked at, too
    warned = api.plan(str(job), date="2026-06-30").warnings
    assert sum(f"registry: {tmp_path}/out/registry.db is a local path" in line for line in warned) == 1
    sets = ["models.encoder=builtin:minilm"]
    other = api.plan(str(job), date="2026-06-30", sets=sets).warnings
    assert other and not any("registry" in line for line in other)
