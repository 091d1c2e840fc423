"""Nights that mask: personal data stands nowhere under the warehouse, in no log, report or ledger."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import bizllm
from bizllm import api
from bizllm.cli import app
from bizllm.errors import UserError
from bizllm.methods.pii.pseudonyms import PSEUDONYM

NIGHT = "2026-03-10"
KEY = "0123456789abcdef0123456789abcdef"
RAW = ["Okonkwo", "212-555-0142", "priya.okonkwo@example.com", "张伟", "13812345678", "4111 1111 1111 1111"]
BODIES = [
    "The parcel came late. My name is Priya Okonkwo. Call me at 212-555-0142. The box was wet. I want my money back.",
    "快递晚了三天。我叫张伟，手机13812345678。箱子是湿的。请尽快退款。谢谢。",
    "Nothing works here. Write to priya.okonkwo@example.com today. The lamp is broken. It flickers at night.",
    "I paid with card 4111 1111 1111 1111. It was charged twice. Please look at it. Thank you very much.",
    "Dear PRIYA OKONKWO, the lamp is on its way. It comes on Monday. Be at home. Thanks.",
    " ",
]
Job = Callable[..., str]


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Ray whose workers write every event they know of into one file."""
    import ray

    path = tmp_path_factory.mktemp("logs") / "events.jsonl"
    before = {name: os.environ.get(name) for name in ("BIZLLM_LOG", "BIZLLM_LOG_FILE", "BIZLLM_MASK_KEY")}
    os.environ |= {"BIZLLM_LOG": "debug", "BIZLLM_LOG_FILE": str(path), "BIZLLM_MASK_KEY": KEY}
    shared = ray.is_initialized()  # the Ray of other tests, whose workers know nothing of this file
    ray.shutdown()
    logger = logging.getLogger("bizllm")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()  # so that this process, too, looks at the variables anew
    logger.propagate = True  # pytest puts its own handler on loggers that don't propagate
    how: Any = {"address": "local", "num_cpus": 2, "include_dashboard": False, "log_to_driver": False}
    try:
        ray.init(object_store_memory=100_000_000, **how)
        yield path
    finally:
        ray.shutdown()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if shared:
            ray.init(object_store_memory=200_000_000, **how)


@pytest.fixture
def private(job: Job, tmp_path: Path) -> Job:
    """The small job on tickets that hold personal data."""

    def write(**changes: Any) -> str:
        for day in ("2026-03-09", NIGHT):
            ids = [f"{day}-{i}" for i in range(len(BODIES))]
            table = pa.table({"ticket_id": ids, "body": BODIES, "note": [None, *BODIES[:-1]]})
            pq.write_table(table, tmp_path / f"tickets/dt={day}/part-0.parquet")
        return job(**changes)

    return write


def held(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below as text: its bytes, and of Parquet every value too."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            if path.suffix == ".parquet":
                text += json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str)
            yield path, text


def nowhere(folder: Path, log_file: Path, *more: str) -> None:
    found = [(path.name, raw) for path, text in held(folder) for raw in (*RAW, *more) if raw in text]
    assert found == []
    assert not [raw for raw in (*RAW, *more) if raw in log_file.read_text()]


def step(**settings: Any) -> dict[str, Any]:
    return {"input": "tickets", **settings}


def test_a_night_of_task_mask(private: Job, tmp_path: Path, log_file: Path) -> None:
    masked = step(task="mask", columns=["body", "note"])
    path = private(steps={"masked": masked, "summary": {"task": "summarize", "input": "masked", "text": "body"}})
    result = api.run(path, date=NIGHT)
    assert [(s.step, s.state) for s in result.steps] == [("masked", "done"), ("summary", "done")]
    assert (result.steps[0].rows_out, result.steps[0].rows_rejected) == (6, 0), "the note of a blank body has a text"
    rows = api.show(path, sql="select * from masked order by ticket_id").to_pylist()
    assert "My name is <PERSON>. Call me at <PHONE>." in rows[0]["body"] and rows[0]["note"] is None
    assert {c["type"] for row in rows for c in row["counts"]} == {"PERSON", "PHONE", "EMAIL", "CARD"}
    for row in rows:
        for e in row["entities"]:
            raw = {"body": BODIES[int(row["ticket_id"][-1])], "note": [None, *BODIES][int(row["ticket_id"][-1])]}
            assert raw[e["column"]][e["start"] : e["end"]].strip() not in ("", row[e["column"]])
    report = Path(api.report(path)).read_text()
    assert "&lt;PERSON&gt;" in report
    nowhere(tmp_path / "wh", log_file)
    assert api.run(path, date=NIGHT).state == "unchanged"


def test_a_source_that_is_masked(private: Job, tmp_path: Path, log_file: Path) -> None:
    tickets = {
        "path": "tickets",
        "key": ["ticket_id"],
        "partition": "dt",
        "filter": "note is null or note not like '%flickers%'",
        "select": "*, upper(body) as loud",
        "mask": {"columns": ["body", "note"], "mode": "pseudonym", "key": "${BIZLLM_MASK_KEY}"},
    }
    steps = {
        "summary": step(task="summarize", text="body", max_sentences=4),
        "loud": step(task="summarize", text="loud"),
        "masked": step(task="mask", text="note", reject_budget=1.0),
    }
    path = private(sources={"tickets": tickets}, steps=steps)
    result = api.run(path, date=NIGHT)
    assert {s.step: s.state for s in result.steps} == dict.fromkeys(steps, "done"), [s.error for s in result.steps]
    rows = {r["ticket_id"][-1]: r["summary"] for r in api.show(path, sql="select * from summary").to_pylist()}
    first, dear = PSEUDONYM.findall(rows["0"]), PSEUDONYM.findall(rows["4"])
    assert [kind for kind, _ in first] == ["PERSON", "PHONE"] and first[0] in dear, "one person, one pseudonym"
    back = bizllm.unmask(rows["0"], KEY)
    assert "priya okonkwo" in back and "2125550142" in back
    with pytest.raises(UserError):
        bizllm.unmask(rows["0"], KEY + "x")
    nowhere(tmp_path / "wh", log_file, KEY, "OKONKWO", "Priya")
    assert KEY not in json.dumps(api.runs(path), default=str)

    assert api.run(path, date=NIGHT).state == "unchanged"
    os.environ["BIZLLM_MASK_KEY"] = KEY[::-1]
    try:
        again = api.run(path, date=NIGHT, sets=["steps.summary.max_sentences=4"])
        assert {s.state for s in again.steps} == {"done"}, "another key is another fingerprint"
    finally:
        os.environ["BIZLLM_MASK_KEY"] = KEY
    one = api.run(path, date=NIGHT, sets=["sources.tickets.mask.entities=[EMAIL]"])
    assert {s.state for s in one.steps} == {"done"}, "what is masked is part of the fingerprint"


def test_sensitive_rows_are_shown_nowhere(private: Job, tmp_path: Path, log_file: Path) -> None:
    tickets = {"path": "tickets", "key": ["ticket_id"], "partition": "dt", "sensitive": True}
    second = {"task": "summarize", "input": "summary", "text": "summary"}
    path = private(sources__tickets=tickets, steps__summary=step(task="summarize", text="body"), steps__second=second)
    result = api.run(path, date=NIGHT)
    assert {s.state for s in result.steps} == {"done"}
    report = Path(api.report(path)).read_text()
    assert "Okonkwo" not in report and report.count("the source tickets is sensitive") == 2
    assert "loyal" in report or "segment" in report, "other steps are drawn"
    assert not list((tmp_path / "wh").rglob("s*.exhibit.parquet")), "and nothing is kept that could be shown"
    for name in ("summary", "second"):
        (row, *_) = api.show(path, name).to_pylist()
        assert row["summary"] == "•••" and row["ticket_id"] == "•••" and row["run_id"] == result.run_id
    assert api.show(path, sql="select distinct summary from second").to_pylist() == [{"summary": "•••"}]
    assert api.show(path, "summary__rejects").to_pylist()[0]["ticket_id"] == "•••"
    assert api.show(path, "segments").to_pylist()[0]["segment"] != "•••"
    shown = api.show(path, "summary", reveal=True).to_pylist()
    assert any("Okonkwo" in row["summary"] for row in shown)
    for flags, there in ((["--json"], False), ([], False), (["--json", "--reveal"], True)):
        said = CliRunner().invoke(app, ["show", path, "summary", *flags])
        assert said.exit_code == 0 and ("Okonkwo" in said.output) == there, flags


def test_columns_that_are_left_out(private: Job, tmp_path: Path, log_file: Path) -> None:
    path = private(
        steps={
            "summary": step(task="summarize", text="body", drop=["summary"]),
            "masked": step(task="mask", text="body", drop=["entities.start", "entities.end", "counts"]),
        }
    )
    result = api.run(path, date=NIGHT)
    assert {s.state for s in result.steps} == {"done"}, [s.error for s in result.steps]
    assert "summary" not in api.show(path, "summary").column_names
    (row, *_) = api.show(path, sql="select * from masked order by ticket_id").to_pylist()
    assert row["entities"] == [{"column": "body", "type": "PERSON"}, {"column": "body", "type": "PHONE"}]
    assert "counts" not in row and "<PERSON>" in row["body"]
    nowhere(tmp_path / "wh", log_file)
    assert api.run(path, date=NIGHT).state == "unchanged"
    again = api.run(path, date=NIGHT, sets=["steps.summary.drop=[]"])
    assert {s.step: s.state for s in again.steps} == {"summary": "done", "masked": "unchanged"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources__tickets__mask": {"columns": ["bdy"]}}, "sources.tickets.mask.columns[0]: 'bdy': no such column"),
        ({"sources__tickets__mask": {"columns": ["ticket_id"]}}, "is a key column"),
        ({"sources__orders__mask": {"columns": ["amount"]}}, "expected a string column; it is double"),
        ({"sources__tickets__mask": {"columns": ["body"], "entities": ["ORGANIZATION"]}}, "no rule finds these"),
        ({"sources__tickets__mask": {"columns": ["body"], "entities": ["PHNE"]}}, "mask.entities[0]: 'PHNE': expected"),
        ({"sources__tickets__mask": {}}, "'columns' is missing"),
        (
            {"sources__tickets__mask": {"columns": ["body"], "key": KEY, "mode": "pseudonym"}},
            "mask.key: holds a secret",
        ),
        (
            {"sources__tickets__mask": {"columns": ["body"], "key": "${NOPE:-" + KEY + "}", "mode": "pseudonym"}},
            "sources.tickets.mask.key: holds a secret",
        ),
        ({"steps__m": step(task="mask", text="body", mode="pseudonym", key=KEY)}, "steps.m.key: holds a secret"),
        ({"steps__m": step(task="mask", text="body", mode="pseudonym", key="${BIZLLM_NO_KEY}")}, "is not set"),
        ({"steps__m": step(task="mask", text="body", mode="pseudonym", key="${SHORT}")}, "at least 32 characters"),
        ({"steps__m": step(task="mask", text="body", mode="pseudonym")}, "needs a `key`"),
        ({"steps__m": step(task="mask")}, "expected either `text` or `columns`"),
        ({"steps__m": step(task="mask", columns=["body", "nope"])}, "steps.m.columns[1]: 'nope': no such column"),
        ({"steps__summary__drop": ["sumary"]}, "steps.summary.drop[0]: 'sumary': expected one of summary, spans"),
        ({"steps__segments__drop": ["segment"]}, "is needed"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(
    private: Job, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("SHORT", "too-short-a-secret")
    path = private(**changes)
    with pytest.raises(UserError) as caught:
        api.plan(path, date=NIGHT)
    message = str(caught.value)
    assert said in message and "shop.yaml:" in message
    assert KEY not in message and "too-short" not in message
    assert CliRunner().invoke(app, ["plan", path, "--date", NIGHT]).exit_code == 2
