"""The command line: what it passes on, what it prints where, exit statuses, and that it answers at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from bizllm import api
from bizllm.cli import app
from bizllm.errors import Cancelled, Fault, LockHeld, RunError, UserError

HEAVY = ("torch", "ray", "pyiceberg", "pandas", "duckdb", "statsforecast", "sklearn", "transformers", "boto3", "mlflow")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), prog_name="bizllm", catch_exceptions=False)


def bizllm(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bizllm.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


class Calls:
    """Stands in for a verb of the API: keeps the arguments, answers or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.args, self.kwargs = answer, (), {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def result(state: str = "done", step_state: str = "done") -> Any:
    step = {"step": "a", "task": "summarize", "table": "j.a", "state": step_state, "rows_in": 3, "rows_out": 3}
    step |= {"rows_rejected": 0, "rows_reused": 0, "tokens": 9, "seconds": 1.5, "cost": None, "error": None}
    value = {"run_id": "r1", "job": "j", "date": "2026-01-01", "state": state, "steps": [step], "warehouse": "/w"}
    return SimpleNamespace(state=state, to_dict=lambda: {**value, "report": "/w/r.html"})


# -- what reaches the API -----------------------------------------------------------------------------------------


def test_run_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(result())
    monkeypatch.setattr(api, "run", calls)
    flags = ["--date", "2026-01-01", "--set", "a.b=1", "--set", "c=2", "--only", "x", "--address", "auto", "--fresh"]
    answer = invoke("run", "j.yaml", *flags)
    assert answer.exit_code == 0
    assert calls.args == ("j.yaml",)
    calls.kwargs.pop("observer")
    assert {name: list(v) if isinstance(v, list) else v for name, v in calls.kwargs.items()} == {
        "date": "2026-01-01",
        "sets": ["a.b=1", "c=2"],
        "only": ["x"],
        "address": "auto",
        "fresh": True,
        "retry_rejects": False,
    }


def test_backfill_and_show_pass_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls([result(), result()])
    monkeypatch.setattr(api, "backfill", calls)
    answer = invoke("backfill", "j.yaml", "--from", "2026-01-01", "--to", "2026-01-02", "--json")
    assert [night["state"] for night in json.loads(answer.stdout)] == ["done", "done"]
    assert (calls.kwargs["start"], calls.kwargs["end"]) == ("2026-01-01", "2026-01-02")
    calls = Calls(pa.table({"text": ["客户", None], "n": [1.5, float("nan")]}))
    monkeypatch.setattr(api, "show", calls)
    answer = invoke("show", "j.yaml", "a", "--date", "2026-01-01", "--limit", "2", "--sql", "select 1", "--json")
    assert json.loads(answer.stdout) == [{"text": "客户", "n": 1.5}, {"text": None, "n": None}]
    assert calls.args == ("j.yaml", "a")
    assert calls.kwargs == {"date": "2026-01-01", "limit": 2, "sql": "select 1", "sets": (), "reveal": False}


def not_run(reason: str, state: str = "skipped") -> Any:
    value = {"run_id": None, "job": "j", "date": "2026-01-02", "state": state, "steps": [], "reason": reason}
    return SimpleNamespace(state=state, to_dict=lambda: {**value, "error": f"because of {reason}"})


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([], 0),
        ([result(), not_run("no_input"), not_run("bound"), not_run("order")], 0),
        ([result("failed", "failed"), not_run("late_input", "failed"), not_run("locked")], 1),
        ([result(), not_run("late_input", "failed"), not_run("locked")], 2),
        ([not_run("wrong_input", "failed")], 2),
        ([not_run("locked"), result()], 3),
        ([result("failed", "failed"), result("cancelled", "cancelled")], 130),
    ],
)
def test_what_a_catch_up_found_is_its_status(monkeypatch: pytest.MonkeyPatch, entries: list[Any], status: int) -> None:
    calls = Calls(entries)
    monkeypatch.setattr(api, "catch_up", calls)
    answer = invoke("run", "j.yaml", "--catch-up", "--since", "2026-01-01", "--most", "3", "--set", "a=1", "--json")
    assert (answer.exit_code, json.loads(answer.stdout)) == (status, [entry.to_dict() for entry in entries])
    calls.kwargs.pop("observer")
    assert (calls.args, calls.kwargs) == (
        ("j.yaml",),
        {"since": "2026-01-01", "most": 3, "sets": ["a=1"], "address": None},
    )
    told = invoke("run", "j.yaml", "--catch-up").stdout
    for entry in entries:
        said = entry.to_dict()
        assert (said["run_id"] or f"{said['state']} 2026-01-02: because of {said['reason']}") in told
    assert entries or told == "no night is missing\n"


def test_a_catch_up_chooses_its_dates_itself() -> None:
    answer = invoke("run", "j.yaml", "--catch-up", "--date", "2026-01-01", "--fresh")
    assert answer.exit_code == 2
    assert [line.split(": ")[0] for line in answer.stderr.splitlines()] == ["--date", "--fresh"]
    answer = invoke("run", "j.yaml", "--since", "2026-01-01")
    assert (answer.exit_code, answer.stderr) == (2, "--since: goes with --catch-up\n")


def test_rollback_and_gc_pass_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    restored = {"table": "j.a", "run_date": "2026-01-01", "run_id": "r1", "replaced": "r2", "rows": 1234}
    calls = Calls(restored)
    monkeypatch.setattr(api, "rollback", calls)
    answer = invoke("rollback", "j.yaml", "a", "--to", "r1")
    assert (calls.args, calls.kwargs) == (("j.yaml", "a"), {"to": "r1", "sets": ()})
    assert answer.stdout == "j.a of 2026-01-01 is that of run r1 again: 1,234 rows; it was that of r2\n"
    file = {"what": "file", "url": "/w/a.parquet", "bytes": 1_400_000}
    upload = {"what": "upload", "url": "s3://b/c", "bytes": 0}
    told = {"dry_run": True, "expired": {"a": 2}, "files": 2, "bytes": 1_400_000, "removed": [upload, file]}
    calls = Calls({**told, "left": {"/w/x": "holds a table that this catalog doesn't know"}})
    monkeypatch.setattr(api, "gc", calls)
    answer = invoke("gc", "j.yaml", "--older-than", "2w", "--dry-run")
    assert (calls.args, calls.kwargs) == (("j.yaml",), {"older_than": "2w", "dry_run": True, "sets": ()})
    assert answer.stdout.splitlines() == [
        "   1.4 MB  /w/a.parquet  (no snapshot needs it)",
        "      0 B  s3://b/c  (an upload that never ended)",
        "a: 2 snapshots would be expired",
        "left alone: /w/x holds a table that this catalog doesn't know",
        "2 files, 1.4 MB, would be removed",
    ]


def test_runs_report_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "runs", Calls([{"run_id": "r1"}]))
    assert json.loads(invoke("runs", "j.yaml", "--json").stdout) == [{"run_id": "r1"}]
    monkeypatch.setattr(api, "report", Calls("/w/r.html"))
    assert invoke("report", "j.yaml", "r1").stdout == "/w/r.html\n"
    assert json.loads(invoke("report", "j.yaml", "--json").stdout) == {"report": "/w/r.html"}
    monkeypatch.setattr(api, "tasks", Calls([{"name": "a"}]))
    for args in (["tasks", "--json"], ["tasks", "list", "--json"]):
        assert json.loads(invoke(*args).stdout) == [{"name": "a"}]
    assert json.loads(invoke("tasks", "show", "a", "--json").stdout) == {"name": "a"}


def test_the_tasks_that_are_there_can_be_shown() -> None:
    names = [task["name"] for task in json.loads(invoke("tasks", "list", "--json").stdout)]
    listed = invoke("tasks").stdout
    for name in names:
        assert name in listed
        shown = invoke("tasks", "show", name)
        assert shown.exit_code == 0
        assert "reject_budget" in shown.stdout
    assert invoke("tasks", "show", "summarise").exit_code == 2


# -- exit statuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (UserError(Fault("j.yaml:3 a", 1, "expected x"), Fault("b", None, "y")), 2, "j.yaml:3 a: 1: expected x\nb: y"),
        (LockHeld("another run holds it"), 3, "another run holds it"),
        (RunError("no space\x1b[2J"), 1, "no space\\u001b[2J"),
        (Cancelled("interrupted"), 130, "interrupted; what is published stays as it was"),
        (KeyboardInterrupt(), 130, "interrupted; what is published stays as it was"),
    ],
)
def test_what_goes_wrong_is_told_on_stderr(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, line: str
) -> None:
    monkeypatch.setattr(api, "run", Calls(raised))
    answer = invoke("run", "j.yaml")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (status, "", line + "\n")
    answer = invoke("run", "j.yaml", "--json")
    assert (answer.exit_code, answer.stderr) == (status, line + "\n")
    value = json.loads(answer.stdout)
    assert value["status"] == status
    if status == 2:
        assert value["faults"][0] == {"place": "j.yaml:3 a", "value": 1, "expected": "expected x", "suggestion": ""}


def test_an_unexpected_exception_tells_its_place_and_not_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIZLLM_DEBUG", raising=False)
    monkeypatch.setattr(api, "run", Calls(ValueError("a customer's letter")))
    answer = invoke("run", "j.yaml", "--json")
    assert answer.exit_code == 1
    assert "letter" not in answer.stdout + answer.stderr
    assert answer.stderr.startswith("unexpected ValueError at ")
    monkeypatch.setenv("BIZLLM_DEBUG", "1")
    assert "a customer's letter" in invoke("run", "j.yaml").stderr


@pytest.mark.parametrize(
    ("state", "status"), [("done", 0), ("unchanged", 0), ("failed", 1), ("cancelled", 130)], ids=str
)
def test_the_state_of_a_run_is_the_exit_status(monkeypatch: pytest.MonkeyPatch, state: str, status: int) -> None:
    monkeypatch.setattr(api, "run", Calls(result(state, state)))
    assert invoke("run", "j.yaml").exit_code == status
    answer = invoke("run", "j.yaml", "--json")
    assert (answer.exit_code, json.loads(answer.stdout)["state"]) == (status, state)
    monkeypatch.setattr(api, "backfill", Calls([result(), result(state, state)]))
    assert invoke("backfill", "j.yaml", "--from", "2026-01-01", "--to", "2026-01-02").exit_code == status


@pytest.mark.parametrize(
    "args", [["run"], ["run", "a", "b"], ["run", "j", "--dat", "x"], ["backfill", "j"], ["show", "j", "--limit", "0"]]
)
def test_wrong_arguments_are_wrong_input(args: list[str]) -> None:
    answer = invoke(*args)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr


# -- as a process -------------------------------------------------------------------------------------------------

PROGRAM = """
import os, subprocess, sys
from bizllm import api, cli

class Result:
    state = "done"
    def to_dict(self):
        return {"state": "done"}

def run(*args, **kwargs):
    print("python prints")
    os.write(1, b"a library writes\\n")
    subprocess.run(["echo", "a child echoes"])
    return Result()

api.run = run
sys.argv = ["bizllm", "run", "j.yaml", "--json"]
cli.main()
"""


def test_with_json_nothing_else_reaches_stdout() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"state": "done"}
    assert {"python prints", "a library writes", "a child echoes"} <= set(done.stderr.splitlines())


def test_an_interrupt_ends_with_130_and_one_line() -> None:
    program = PROGRAM.replace("    return Result()", "    import time; time.sleep(60)").replace(', "--json"', "")
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "a child echoes" not in process.stdout.readline():
        pass
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "interrupted; what is published stays as it was\n"


def test_a_reader_that_has_seen_enough_is_no_traceback() -> None:
    command = f"{sys.executable} -m bizllm.cli schema | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


BROKEN = """
name: Broken
warehouse: {path: out}
sources: {t: {path: t, kye: [a]}}
steps: {a: {task: summarise, input: t}}
"""


def test_mistakes_in_a_file_are_lines_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "j.yaml"
    path.write_text(BROKEN)
    expected = [f"{path}:2 name", f"{path}:4 sources.t.kye", f"{path}:5 steps.a.task"]
    done = bizllm("plan", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == expected
    for verb in ("run", "runs", "show", "report"):
        answer = invoke(verb, str(path))
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert [line.split(": ")[0] for line in answer.stderr.splitlines()] == expected


IMPORTED = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr, sep="\\n"))
from bizllm.cli import main
main()
"""


def imported(*args: str) -> set[str]:
    """The top-level packages that a call of the command line imports."""
    done = subprocess.run([sys.executable, "-c", IMPORTED, *args], capture_output=True, text=True, timeout=60)
    return {line.split(".")[0] for line in done.stderr.splitlines()}


def test_help_schema_and_mistakes_load_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "j.yaml").write_text(BROKEN)
    for args in (["--help"], ["run", "--help"], ["schema"], ["tasks"], ["plan", str(tmp_path / "j.yaml")]):
        modules = imported(*args)
        assert "typer" in modules
        assert modules.isdisjoint(HEAVY), args


def cpu_seconds(*args: str) -> float:
    """CPU time of a Python process, the best of three: other processes move it less than wall time."""

    def once() -> float:
        before = os.times()
        subprocess.run([sys.executable, *args], capture_output=True, timeout=120)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return min(once() for _ in range(3))


def test_help_schema_and_mistakes_answer_at_once(tmp_path: Path) -> None:
    (tmp_path / "j.yaml").write_text(BROKEN)
    least = cpu_seconds("-c", "import pyarrow.compute, numpy, pydantic, typer, yaml")  # 0.2 to 0.3 s, by the machine
    assert cpu_seconds("-m", "bizllm.cli", "--help") < least
    for args in (["schema"], ["plan", str(tmp_path / "j.yaml")]):
        assert cpu_seconds("-m", "bizllm.cli", *args) < 3.5 * least, args
