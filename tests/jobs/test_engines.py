"""A step's engine: measured on its own rows, kept for the next nights, told in plan, ledger and report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from bizllm import api
from bizllm.errors import UserError
from bizllm.infer.kept_engines import FILE, Kept, keep, kept
from bizllm.jobs import ledger
from bizllm.models.engines.choice import Choice
from bizllm.tables.contract import LEDGER

NIGHT, NEXT = "2026-03-10", "2026-03-11"
Job = Callable[..., str]
Make = Callable[..., Path]


@pytest.fixture
def asked(job: Job, fine_tuned: Make) -> Callable[..., str]:
    """The shop's job with one step that asks a classifier; `asked(engine=…)` adds settings to it."""
    folder = fine_tuned(objective="classification", labels=("refund", "delivery", "other"))

    def write(**settings: Any) -> str:
        step = {"task": "classify", "input": "tickets", "text": "body", "model": f"path:{folder}", **settings}
        return job(steps={"intent": step})

    return write


MADE = Choice("openvino", "bfloat16", 2_048, "a processor", 2, 10_000.0, "least cosine 1", "openvino")


def choices(folder: Path) -> list[Path]:
    return sorted((folder / "wh/_bizllm/shop/engines/intent").glob(f"*/{FILE}"))


def rows(path: str) -> list[dict[str, Any]]:
    return api.show(path, sql="select ticket_id, label, probability from intent order by all").to_pylist()


@pytest.mark.usefixtures("local_ray")
def test_an_engine_is_measured_once_and_told(asked: Callable[..., str], tmp_path: Path) -> None:
    path = asked()
    assert api.plan(path, date=NIGHT).steps[0].engine == "torch"  # twelve short texts
    api.run(path, date=NIGHT)
    by_torch = rows(path)
    (row,) = api.runs(path)
    assert row["engine"].startswith("torch ") and not choices(tmp_path)

    path = asked(engine="openvino", precision="float32")
    assert api.plan(path, date=NIGHT).steps[0].engine == "chosen on its first rows"
    (step,) = api.run(path, date=NIGHT).steps
    assert step.state == "done", "another engine is another fingerprint"
    (file,) = choices(tmp_path)
    made = Choice.from_json(file.read_text())
    assert (made.engine, made.precision) == ("openvino", "float32")
    assert step.engine == str(made) and "equal labels 1.00000 on" in step.engine
    assert api.runs(path)[0]["engine"] == step.engine
    pages = (tmp_path / "wh/_bizllm/shop/runs").glob("*/report.html")
    assert any("equal labels 1.00000" in page.read_text() for page in pages)
    assert api.plan(path, date=NIGHT).steps[0].engine == "openvino float32"
    for one, other in zip(by_torch, rows(path), strict=True):
        assert (one["ticket_id"], one["label"]) == (other["ticket_id"], other["label"])
        assert one["probability"] == pytest.approx(other["probability"], abs=0.02)

    # The next night does not ask again; but one on another kind of machine computes by torch and forgets the choice.
    file.write_text(replace(made, machine="another processor").to_json())
    (step,) = api.run(path, date=NIGHT, fresh=True).steps
    assert step.engine is not None and step.engine.startswith("torch ") and "other machines" in step.engine
    assert step.state == "done" and not choices(tmp_path), "tomorrow it is measured here"


def test_gc_removes_what_was_chosen_long_ago(asked: Callable[..., str], tmp_path: Path) -> None:
    path = asked()
    url = tmp_path / "wh/_bizllm/shop/engines/intent/0123-auto-auto"
    (tmp_path / "work/openvino").mkdir(parents=True)
    (tmp_path / "work/openvino/openvino.xml").write_text("<net/>")
    keep(str(url), MADE, tmp_path / "work")
    orphan = url / "openvino-dead" / "openvino.xml"
    orphan.parent.mkdir()
    orphan.write_text("a conversion whose choice was taken the place of")

    def aged(days: int) -> set[str]:
        for each in url.rglob("*"):
            os.utime(each, (time.time() - days * 86_400,) * 2)
        return {one["url"] for one in api.gc(path)["removed"] if one["what"] == "engine"}

    assert aged(0) == set()
    assert aged(8) == {str(orphan)} and (url / FILE).exists()
    assert len(aged(31)) == 2 and not (url / FILE).exists()


@pytest.mark.objectstore
def test_a_choice_travels_through_an_object_store(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIZLLM_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    (work / "openvino").mkdir(parents=True)
    weights = np.random.default_rng(0).bytes(20 << 20)
    (work / "openvino/openvino.bin").write_bytes(weights)
    (work / "openvino/openvino.xml").write_text("<net/>")
    boto3.client("s3").create_bucket(Bucket="engines")
    url = "s3://engines/intent/x"
    keep(url, MADE, work)
    keep(url, replace(MADE, budget=1_024), work)  # of another date at the same time
    found = kept(url)
    assert found is not None and found.choice.budget == 1_024 and kept(f"{url}y") is None
    folder = found.folder()
    assert folder is not None and (folder / "openvino.bin").read_bytes() == weights
    assert found.folder() == folder and len(list(folder.parent.iterdir())) == 1
    assert Kept(url, replace(MADE, files="")).folder() is None
    assert Kept(url, replace(MADE, files="gone")).folder() is None


def test_a_ledger_of_before_gets_the_column(job: Job, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = job(steps__segments=None, sources__orders=None)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "LEDGER", LEDGER.remove(LEDGER.get_field_index("engine")))
        api.run(path, date="2026-03-09")
    api.run(path, date=NIGHT)
    assert [(str(row["run_date"]), row["engine"]) for row in api.runs(path)] == [(NIGHT, None), ("2026-03-09", None)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "openvno"}, "expected 'auto', 'torch', 'packed', 'openvino', 'onnxruntime' or 'vllm'"),
        ({"engine": "torch", "precision": "int8"}, "torch does not compute in int8"),
        ({"precision": "float16"}, "expected 'auto', 'float32', 'bfloat16' or 'int8'"),
    ],
)
def test_bad_wishes_are_named(asked: Callable[..., str], settings: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        api.plan(asked(**settings), date=NIGHT)


def test_an_engine_where_nothing_is_computed(job: Job) -> None:
    step = {"task": "summarize", "input": "tickets", "text": "body", "engine": "openvino"}
    with pytest.raises(UserError, match=r"steps.summary.engine: 'openvino': is for steps with an encoder"):
        api.plan(job(steps={"summary": step}), date=NIGHT)


def test_an_engine_that_is_not_installed(asked: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bizllm.jobs.prepare.installed", lambda name: False)
    with pytest.raises(UserError, match=r"'openvino': is not installed"):
        api.plan(asked(engine="openvino"), date=NIGHT)
