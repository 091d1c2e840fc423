"""A night from sources to tables, on a real local Ray and a real catalog; DuckDB is the independent reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.jobs.observe import Observer

NIGHT = "2026-03-10"
Job = Callable[..., str]
pytestmark = pytest.mark.usefixtures("local_ray")


def rows(path: str, sql: str) -> list[dict[str, Any]]:
    """What a consumer's query gives."""
    return api.show(path, sql=sql).to_pylist()


def states(result: Any) -> dict[str, str]:
    """step → state."""
    return {step.step: step.state for step in result.steps}


class Heard(Observer):
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def unit_done(self, step: str, done: int, total: int, rows: int, rejected: int) -> None:
        self.events.append(("unit", step, done, total))

    def step_finished(self, result: dict[str, Any]) -> None:
        self.events.append(("step", result["step"], result["state"]))


def test_a_night_and_the_same_night_again(job: Job, tmp_path: Path) -> None:
    path = job()
    heard = Heard()
    result = api.run(path, date=NIGHT, observer=heard)
    assert states(result) == {"summary": "done", "segments": "done"}
    assert ("step", "summary", "done") in heard.events and ("unit", "summary", 1, 1) in heard.events
    said = result.to_dict()
    assert {k: said["steps"][0][k] for k in ("rows_in", "rows_out", "rows_rejected")} == {
        "rows_in": 12,
        "rows_out": 12,
        "rows_rejected": 0,
    }
    json.dumps(said)

    found = rows(path, "select * from summary order by ticket_id")
    assert {row["ticket_id"] for row in found} == {f"{NIGHT}-{i}" for i in range(12)}  # a row task reads the day
    assert {row["run_id"] for row in found} == {result.run_id}
    assert all(len(row["input_hash"]) == 32 and row["produced_at"].tzinfo for row in found)
    assert all(0 < len(row["summary"]) < 90 for row in found)
    (count,) = rows(path, "select count(*) n, count(distinct customer_id) k, min(confidence) low from segments")
    assert count["n"] == count["k"] == 40 and count["low"] >= 0

    again = api.run(path, date=NIGHT)
    assert again.state == "unchanged" and set(states(again).values()) == {"unchanged"}
    assert rows(path, "select distinct run_id from summary") == [{"run_id": result.run_id}]
    ledger = api.runs(path)
    assert [row["state"] for row in ledger if row["step"] == "summary"] == ["unchanged", "done"]
    assert Path(api.report(path)).read_text().count("summary") > 1
    assert not list((tmp_path / "wh/_bizllm/shop/state").rglob("*.parquet")), "a finished step leaves no scratch files"


def test_new_input_rebuilds_only_what_reads_it(job: Job, tmp_path: Path) -> None:
    path = job()
    first = api.run(path, date=NIGHT)
    more = pa.table({"ticket_id": ["late"], "body": ["One more. It came late. Please read it. Thanks."]})
    pq.write_table(more, tmp_path / f"tickets/dt={NIGHT}/part-1.parquet")
    second = api.run(path, date=NIGHT)
    assert states(second) == {"summary": "done", "segments": "unchanged"}
    assert rows(path, "select count(*) n from summary") == [{"n": 13}]
    assert rows(path, "select distinct run_id from summary") == [{"run_id": second.run_id}]
    assert first.run_id != second.run_id
    third = api.run(path, date=NIGHT, sets=["steps.summary.max_sentences=1"])
    assert states(third) == {"summary": "done", "segments": "unchanged"}, "a setting is part of the fingerprint"


def test_bad_rows_are_rejects(job: Job, tmp_path: Path) -> None:
    bad = pa.table({"ticket_id": ["n1", "n2", None], "body": [None, "   ", "No key. None at all. Really. Yes."]})
    pq.write_table(bad, tmp_path / f"tickets/dt={NIGHT}/part-1.parquet")
    path = job()
    result = api.run(path, date=NIGHT)
    step = result.steps[0]
    assert (step.state, step.rows_in, step.rows_out, step.rows_rejected) == ("done", 15, 12, 3)
    found = rows(path, "select ticket_id, scope, code, run_id from summary__rejects order by ticket_id nulls last")
    assert [(r["ticket_id"], r["scope"], r["code"]) for r in found] == [
        ("n1", "row", "empty"),
        ("n2", "row", "empty"),
        (None, "row", "no_key"),
    ]
    assert {r["run_id"] for r in found} == {result.run_id}


def test_every_row_rejected_fails_and_keeps_the_old_night(job: Job, tmp_path: Path) -> None:
    path = job()
    api.run(path, date=NIGHT)
    file = tmp_path / f"tickets/dt={NIGHT}/part-0.parquet"
    pq.write_table(pa.table({"ticket_id": ["a", "b"], "body": pa.array([None, " "])}), file)
    result = api.run(path, date=NIGHT)
    assert states(result) == {"summary": "failed", "segments": "unchanged"}
    assert "every row was rejected" in (result.steps[0].error or "")
    assert rows(path, "select count(*) n from summary") == [{"n": 12}]
    assert rows(path, "select count(*) n from summary__rejects") == [{"n": 0}]


def test_duplicate_keys_fail_the_audit_without_naming_them(job: Job, tmp_path: Path) -> None:
    twice = pa.table({"ticket_id": ["secret-1", "secret-1"], "body": ["One. Two. Three. Four."] * 2})
    pq.write_table(twice, tmp_path / f"tickets/dt={NIGHT}/part-1.parquet")
    path = job()
    result = api.run(path, date=NIGHT)
    error = result.steps[0].error or ""
    assert states(result)["summary"] == "failed" and "ticket_id is unique" in error
    assert "secret" not in error
    (tmp_path / f"tickets/dt={NIGHT}/part-1.parquet").unlink()
    assert states(api.run(path, date=NIGHT)) == {"summary": "done", "segments": "unchanged"}, "mended data is read anew"


def test_a_failed_step_skips_its_descendants_alone(job: Job, tmp_path: Path) -> None:
    file = tmp_path / f"tickets/dt={NIGHT}/part-0.parquet"
    pq.write_table(pa.table({"ticket_id": ["a"], "body": pa.array([None], pa.string())}), file)
    again = {"task": "summarize", "input": "summary", "text": "summary", "max_sentences": 1}
    path = job(steps__again=again)
    result = api.run(path, date=NIGHT)
    assert states(result) == {"summary": "failed", "segments": "done", "again": "skipped"}
    assert result.state == "failed"
    assert {r["step"]: r["state"] for r in api.runs(path, result.run_id)} == states(result)


def test_a_step_reads_an_earlier_steps_table(job: Job) -> None:
    again = {"task": "summarize", "input": "summary", "text": "summary", "max_sentences": 1}
    path = job(steps__again=again)
    assert states(api.run(path, date=NIGHT)) == {"summary": "done", "segments": "done", "again": "done"}
    (pair,) = rows(path, "select count(*) n from again a join summary s using (ticket_id, run_date)")
    assert pair["n"] == 12
    assert api.run(path, date=NIGHT).state == "unchanged"
    api.run(path, date="2026-03-09")
    assert api.run(path, date=NIGHT).state == "unchanged", "another date's publish changes nothing of this one"
    only = api.run(path, date=NIGHT, only=["again"], sets=["steps.again.max_chars=8", "steps.again.max_sentences=null"])
    assert states(only) == {"again": "done"}


def test_backfill_goes_forward_and_segments_remember(job: Job) -> None:
    path = job()
    results = api.backfill(path, start="2026-03-09", end=NIGHT)
    assert [r.date.isoformat() for r in results] == ["2026-03-09", NIGHT]
    assert all(r.state == "done" for r in results)
    moves = rows(path, "select run_date, count(previous_segment) known, count(*) n from segments group by 1 order by 1")
    assert moves[0]["known"] == 0 and moves[1]["known"] == moves[1]["n"] > 30
    moved = rows(
        path,
        "select count(*) n, count(*) filter (b.previous_segment = a.segment) told,"
        " count(*) filter ((a.segment = b.segment) <> (a.segment_id = b.segment_id)) renamed"
        " from segments a join segments b using (customer_id) where a.run_date < b.run_date",
    )
    assert moved[0]["n"] == moved[0]["told"] > 30, "each customer is told where it was"
    assert moved[0]["renamed"] == 0, "a segment keeps its id and its name"


def test_units_and_buckets_do_not_change_answers(job: Job, tmp_path: Path) -> None:
    path = job()
    api.run(path, date=NIGHT)
    columns = "* exclude (run_id, produced_at)"
    before = {s: rows(path, f"select {columns} from {s} order by all") for s in ("summary", "segments")}
    small = ["runtime.unit_rows=5", "runtime.buckets=7", "runtime.workers=2"]
    result = api.run(path, date=NIGHT, sets=small, fresh=True)
    assert set(states(result).values()) == {"done"}
    for step, expected in before.items():
        assert rows(path, f"select {columns} from {step} order by all") == expected


def test_the_ledger_is_rebuilt_where_a_run_died_before_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from bizllm.jobs import ledger

    path = job()

    def dies(*_: Any) -> None:
        raise KeyError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write", dies)
        with pytest.raises(KeyError):
            api.run(path, date=NIGHT)
    again = api.run(path, date=NIGHT)
    assert again.state == "unchanged"
    found = api.runs(path)
    assert sorted((r["step"], r["state"]) for r in found) == [
        ("segments", "done"),
        ("segments", "unchanged"),
        ("summary", "done"),
        ("summary", "unchanged"),
    ]
    assert next(r for r in found if (r["step"], r["state"]) == ("summary", "done"))["rows_out"] == 12


def test_many_small_files_become_one(job: Job, tmp_path: Path) -> None:
    """A thousand files of a few rows are few units, and one file of the table; nothing that it replaced stays."""
    folder = tmp_path / f"tickets/dt={NIGHT}"
    text = "The parcel came late on day {}. The box was wet. I want my money back. Please call me on Monday."
    for file in range(1_000):
        ids = [f"{file}-{i}" for i in range(9)]
        pq.write_table(pa.table({"ticket_id": ids, "body": [text.format(i) for i in ids]}), folder / f"s{file}.parquet")
    heard = Heard()
    path = job(steps__segments=None, sources__orders=None)
    result = api.run(path, date=NIGHT, observer=heard)
    assert result.steps[0].rows_out == 9_012
    units = {total for event, _, *numbers in heard.events if event == "unit" for total in numbers[-1:]}
    assert len(units) == 1 and max(units) <= 8, "many files to a unit"
    assert rows(path, "select count(*) n, count(distinct ticket_id) k from summary") == [{"n": 9_012, "k": 9_012}]
    files = [file for file in (tmp_path / "wh").rglob("*.parquet") if "/data/" in str(file) and "runs" not in str(file)]
    assert len(files) == 1, "what compaction wrote anew is gone"
