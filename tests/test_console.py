"""What a person sees: nothing of row text reaches the terminal's controls, and all that matters fits."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import unicodedata
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bizllm.console import nights, progress
from bizllm.console import tasks as console_tasks
from bizllm.console.cluster import print_stopped
from bizllm.console.rows import print_rows
from bizllm.plain_text import json_text, plain

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202egnp.exe\r\n[bold]not markup[/bold]"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an activated environment, whatever the tests were started with."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text(), st.none() | st.integers(2, 30))
def test_plain_text_has_no_controls_and_fits(text: str, width: int | None) -> None:
    shown = plain(text, width)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert width is None or cell_len(shown) <= width


def test_plain_values() -> None:
    assert plain(HOSTILE).startswith("\\u001b]0;owned\\u0007\\u001b[31mred\\u009b2J\\u202egnp.exe ↵[bold]")
    assert plain("客户非常满意这次购物体验", 11) == "客户非常满…"
    assert plain(1 / 3) == "0.333333"
    assert plain([1, 2, 3, 4, 5, 6, 7]) == "[1, 2, 3, 4, 5, … 2 more]"
    assert plain([{"start": 0, "end": 5}]) == "[{start: 0, end: 5}]"
    assert plain(None) == ""
    assert plain(b"abc") == "3 bytes"
    assert plain(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == "2026-01-02 03:04:05+00:00"


@given(st.text() | st.lists(st.floats() | st.text() | st.dates() | st.binary()))
def test_json_is_json_without_controls(value: Any) -> None:
    text = json_text(value)
    text.encode("utf-8")
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    read = json.loads(text)
    if isinstance(value, str):
        assert read == value
    else:
        for given_, got in zip(value, read, strict=True):
            if isinstance(given_, float):
                assert got == given_ or got is None


def test_rows_on_a_pipe_show_every_column_and_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.table(
        {
            "id": [1, 2],
            HOSTILE: ["a", "b"],
            "summary": [HOSTILE, "很长的文字" * 40],
            "spans": [[{"start": 0, "end": 3}], []],
            "run_date": [date(2026, 1, 2)] * 2,
        }
    )
    print_rows(rows)
    out = capsys.readouterr().out
    assert not [c for c in out if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]
    assert "[bold]not markup[/bold]" in out
    assert "[{start: 0, end: 3}]" in out
    assert "很长的文字很长" in out
    assert "…" in out
    assert "run_date" in out
    assert out.endswith("2 rows\n")


def test_a_narrow_terminal_hides_the_contract_first(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    rows = pa.table({"run_date": ["2026-01-02"], "input_hash": ["f" * 40], "id": [7], "text": ["x" * 30], "n": [1.5]})
    print_rows(rows)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in terminal.getvalue().splitlines()]
    assert lines[0].split() == ["run_date", "id", "text", "n"]
    assert lines[-1] == "1 row; not shown: input_hash"
    assert all(cell_len(line) <= 60 for line in lines)


def test_a_wide_table_is_whole_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(pa.table({f"column_{i}": [1234567.0 + i] for i in range(40)}))
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [f"column_{i}" for i in range(40)]
    assert out[2].split() == [f"{1234567.0 + i:.6g}" for i in range(40)]


def test_empty_results(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(pa.table({"a": pa.array([], pa.int64())}))
    assert capsys.readouterr().out.endswith("0 rows\n")
    nights.print_runs([])
    assert capsys.readouterr().out == "no runs yet\n"


def step(name: str, state: str, **more: Any) -> dict[str, Any]:
    counts = {"rows_in": 1500, "rows_out": 1498, "rows_rejected": 2, "rows_reused": 0, "records_out": 1498}
    return {"step": name, "task": "summarize", "table": f"j.{name}", "state": state, **counts, "tokens": 5} | {
        "seconds": 12.34,
        "cost": None,
        "error": None,
        **more,
    }


RESULT = {
    "run_id": "20260102T000000-abcdef",
    "job": "j",
    "date": "2026-01-01",
    "state": "failed",
    "warehouse": "/w",
    "report": "/w/r.html",
}


def test_a_run_ends_with_what_failed_and_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [step("a", "done"), step("b", "failed", error="all rows\nrejected"), step("c", "skipped", error="b failed")]
    nights.print_run({**RESULT, "steps": steps}, "my jobs/j.yaml")
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["step", "task", "state", "in", "out", "rejected", "reused", "time"]
    assert out[2].split() == ["a", "summarize", "done", "1,500", "1,498", "2", "0", "12.3", "s"]
    assert out[-3:] == [
        "failed b: all rows↵rejected",
        "skipped c: b failed",
        "look at: bizllm runs 'my jobs/j.yaml' 20260102T000000-abcdef",
    ]
    assert "read      bizllm show 'my jobs/j.yaml' a --date 2026-01-01" in out
    assert "report    /w/r.html" in out


def test_a_good_run_says_how_to_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    nights.print_run({**RESULT, "state": "done", "steps": [step("a", "unchanged")]}, "j.yaml", ["warehouse.path=a b"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "read      bizllm show j.yaml a --date 2026-01-01 --set 'warehouse.path=a b'"


def test_the_command_is_named_so_that_the_shell_finds_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Path(sys.executable).parent.parent
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(environment.parent)
    nights.print_run({**RESULT, "state": "done", "steps": [step("a", "done")]}, "j.yaml")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"read      {environment.name}/bin/bizllm show j.yaml a --date 2026-01-01"


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    planned = {"step": "a", "task": "summarize", "input": "t", "dates": "day", "rows": 1500, "units": 3} | {
        "tables": {"examples": "labelled"},
        "model": "builtin:minilm",
        "engine": "openvino bfloat16",
        "tokens": 90_000,
        "seconds": 125.0,
        "cost": None,
        "costs": {"on_demand": None, "spot": None},
        "smaller": [],
    }
    offer = {"model": "registry:m@5", "metric": "macro_f1", "size_mb": 69.26, "teacher_size_mb": 90.9, "times": 1.84}
    later = {**planned, "smaller": [{**offer, "score": 0.9142, "teacher_score": 0.9203}]}
    later |= {
        "step": "b",
        "tables": {},
        "rows": None,
        "units": None,
        "tokens": None,
        "seconds": None,
        "engine": "torch",
    }
    plan = {"job": "j", "date": "2026-01-01", "cpus": 2, "warehouse": "/w", "seconds": 125.0, "cost": 0.5}
    plan |= {"costs": {"on_demand": 0.5, "spot": None}, "cluster": None}
    nights.print_plan({**plan, "steps": [planned, later], "warnings": ["j.yaml:3: a local path"]})
    out = capsys.readouterr().out.splitlines()
    cells = ["a", "summarize", "t,", "labelled", "day", "1,500", "3", "builtin:minilm", "openvino", "bfloat16"]
    assert out[2].split()[: len(cells)] == cells
    assert out[3].split() == ["b", "summarize", "t", "day", "builtin:minilm", "torch"]
    assert "plan      j for 2026-01-01: about 2 min 05 s on 2 CPUs, cost about 0.50" in out
    smaller = "b could use registry:m@5: 69.3 MB instead of 90.9, 1.8× as fast, macro_f1 0.9142 instead of 0.9203"
    assert out[-2] == f"smaller   {smaller}"
    assert out[-1] == "warning: j.yaml:3: a local path"


def test_a_plan_on_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """What it has by kind of node, what each step asks for, and the cost by both ways to pay."""
    asks = {"pool": "gpu", "workers": 4, "cpus": 8, "gpus": 1.0, "labels": {"tier": "gold"}, "fits": 4, "fits_now": 1}
    costs = {"on_demand": 12.5, "spot": 4.0}
    planned = {
        **dict.fromkeys(["step", "task", "input", "dates"], "a"),
        **dict.fromkeys(["model", "engine", "rows", "units", "tokens", "seconds"]),
        "tables": {},
        "cost": 12.5,
        "costs": costs,
        "asks": asks,
        "smaller": [],
    }
    kind = {"nodes": 2, "cpus": 16.0, "gpus": 2.0, "memory": 1 << 36, "labels": {"tier": "gold"}, "free_cpus": 9.5}
    cluster = {"address": "auto", "nodes": 2, "cpus": 32.0, "gpus": 4.0, "memory": 1 << 37, "accelerators": {"L4": 4.0}}
    cluster |= {"kinds": [{**kind, "free_gpus": 1.0}], "may_grow": False, "grows_to": None}
    plan = {"job": "j", "date": "2026-01-01", "cpus": 32, "warehouse": "/w", "seconds": 125.0, "cost": 5.25}
    nights.print_plan({**plan, "costs": costs, "cluster": cluster, "steps": [planned], "warnings": []})
    out = capsys.readouterr().out.splitlines()
    assert out[2].split()[-2:] == ["12.50", "4.00"]
    cost = "cost about 12.50 on demand or 4.00 spot, as its pools pay 5.25"
    assert f"plan      j for 2026-01-01: about 2 min 05 s on the cluster, {cost}" in out
    assert "cluster   auto: 2 nodes, 32 CPUs, 4 GPUs (4 L4), 128 GiB of memory for work; no autoscaler" in out
    assert "          2 × 16 CPUs, 2 GPUs, of which 9.5 CPUs and 1 GPUs free; tier=gold" in out
    assert out[-2].split() == ["a", "gpu", "4", "8", "1", "tier=gold", "4", "1"]


def test_runs_show_errors_below(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"run_id": "r1", "run_date": date(2026, 1, 1), **step("a", "done")}]
    rows.append({"run_id": "r1", "run_date": date(2026, 1, 1), **step("b", "failed", error="no space", cost=1.25)})
    nights.print_runs(rows)
    out = capsys.readouterr().out.splitlines()
    assert out[2].split()[:4] == ["r1", "2026-01-01", "a", "done"]
    assert out[3].split()[:2] == ["b", "failed"]
    assert out[3].split()[-1] == "1.25"
    assert out[-1] == "r1 b: no space"


def test_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    properties = {
        "text": {"type": "string", "description": "The text column."},
        "levels": {"type": "array", "items": {"type": "number"}, "default": [0.1]},
        "k": {"anyOf": [{"type": "integer"}, {"const": "auto"}, {"type": "null"}], "default": "auto"},
        "agg": {"$ref": "#/$defs/Agg", "default": None},
        "rules": {"type": "array", "items": {"$ref": "#/$defs/Rule"}, "default": []},
        "by": {"anyOf": [{"$ref": "#/$defs/Rule"}, {"type": "null"}], "default": None},
    }
    rule = {"type": "object", "properties": {"when": {"type": "string"}}, "required": ["when"]}
    defs = {"Agg": {"enum": ["sum", "mean"]}, "Rule": rule}
    settings = {"properties": properties, "required": ["text"], "$defs": defs}
    task = {"name": "toy", "summary": "A toy.", "shapes": ["row", "group"], "settings": settings}
    about = {"takes": "A text.", "example": "a: {task: toy}\nb:\n  task: toy"}
    console_tasks.print_task({**task, **about, "columns": {"summary": "string: the summary"}})
    lines = capsys.readouterr().out.splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert "reads A text." in rows
    assert "text text required The text column." in rows
    assert "levels list of number [0.1]" in rows
    assert 'k whole number | auto "auto"' in rows or 'k whole number or auto "auto"' in rows
    assert "agg sum | mean" in rows
    assert "rules[].when text required" in rows and "by.when text required" in rows
    assert "summary string: the summary" in rows
    assert lines[-4:] == ["steps:", "  a: {task: toy}", "  b:", "    task: toy"]


def events(observer: Any) -> None:
    observer.run_started("j", "r1", date(2026, 1, 1), ["a", "b"])
    observer.step_started("a", "summarize", 4)
    for done in range(1, 5):
        observer.unit_done("a", done, 4, done * 100, done)
    observer.step_finished(step("a", "done"))
    observer.step_started("b", "toy", 0)
    observer.step_finished(step("b", "failed"))
    observer.run_finished({})


def test_lines_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    clock = iter([0.0, 1.0, 5.5, 6.0, 11.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    events(progress.Lines(stream))
    assert stream.getvalue().splitlines() == [
        "run r1 of j for 2026-01-01: a, b",
        "a: summarize, 4 units",
        "a: 2 of 4 units, 200 rows, 2 rejected",
        "a: 4 of 4 units, 400 rows, 4 rejected",
        "a: done, 1,498 of 1,500 out, 2 rejected, 12.3 s",
        "b: toy",
        "b: failed, 1,498 of 1,500 out, 2 rejected, 12.3 s",
    ]


def test_a_reader_that_went_away_ends_no_run() -> None:
    stream = io.StringIO()
    stream.close()
    events(progress.Lines(stream))


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.progress(as_json=True) as observer:
        events(observer)
        events(observer)  # a backfill's second night
    *_, done, failed = [line for line in terminal.getvalue().splitlines() if "done" in line or "failed" in line]
    assert "a " in done
    assert "b " in failed


def test_without_a_terminal_json_has_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(as_json=True) as observer:
        events(observer)
    assert capsys.readouterr() == ("", "")
    with progress.progress(as_json=False) as observer:
        events(observer)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("run r1 of j")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({}, ["stopped after 4.0 s", "the next run of this date goes on", "the lock is free"]),
        ({"killed": True}, ["was killed 4.0 s after it was told to stop", "when its lease is over"]),
        ({"verb": "finetune"}, ["its checkpoints stand", "bizllm submit TRAIN.yaml --resume RUN"]),
        ({"stopped": False, "state": "done", "seconds": 0.0}, ["had ended before: done"]),
        ({"stopped": False, "state": "failed"}, ["ended by itself meanwhile: failed"]),
    ],
)
def test_what_stands_after_a_stop(
    result: dict[str, Any], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {
        "verb": "run",
        "stopped": True,
        "killed": False,
        "state": "cancelled",
        "seconds": 4.0,
        "lines": ["\x1b[1m"],
    }
    print_stopped({"submission_id": "shop-1", **usual, **result})
    out, err = capsys.readouterr()
    assert out.startswith("shop-1 ") and out.count("\n") == 1 and all(text in out for text in expected)
    assert "\x1b" not in err, "what a job printed does not move the terminal"
