"""What a person sees of a training, on a pipe and on a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from bizllm.console import training as console_training
from bizllm.console.training import figure, print_evaluation, print_finetune, print_training_plan, training_progress
from bizllm.train.progress import TrainingObserver

HOSTILE = "\x1b[31mred\x9b2J\u202egnp.exe\r\n[bold]not markup[/bold]"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def result(**changes: Any) -> dict[str, Any]:
    values = {
        "model": "registry:ticket_intent@3",
        "name": "ticket_intent",
        "version": "3",
        "run_id": "20260102T000000-abcdef",
        "objective": "classification",
        "metrics": {
            "validation": {"macro_f1": 0.9, "loss": 0.41},
            "test": {"macro_f1": 0.91234, "accuracy": 0.92},
        },
        "intervals": {"test": {"macro_f1": [0.89, 0.93]}},
        "control": {"test": {"macro_f1": 0.85}, "wins": False},
        "champion": {"version": "2", "test": {"macro_f1": 0.89}, "gain": 0.02234, "low": 0.008, "high": 0.035},
        "promoted": True,
        "reason": "0.9123 against 0.8900 on 1,200 rows: a gain of +0.0223",
        "path": "/out/models/ticket_intent/r/model",
        "report": "/out/models/ticket_intent/r/report.html",
        "seconds": 125.0,
        "steps": 1800,
        "tokens_per_s": 12_345.6,
    }
    return values | changes


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_promoted_model_is_told_in_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_finetune(result())
    out = lines(capsys)
    assert out[0] == "metric validation test 95 % interval control champion"
    assert out[2] == "macro_f1 0.9000 0.9123 0.8900 – 0.9300 0.8500 0.8900"
    assert out[3] == "loss 0.4100"
    assert out[4] == "accuracy 0.9200"
    assert "run 20260102T000000-abcdef: 1,800 steps in 2 min 05 s, 12,346 tokens/s" in out
    assert "gain +0.0223 over version 2, between +0.0080 and +0.0350" in out
    assert not [line for line in out if line.startswith(("promote ", "the control"))]
    assert out[-1] == ("promoted registry:ticket_intent@3: 0.9123 against 0.8900 on 1,200 rows: a gain of +0.0223")


def test_a_model_that_lost_says_so_and_how_to_promote_it_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    control = {"test": {"macro_f1": 0.93}, "wins": True}
    print_finetune(result(promoted=False, champion=None, control=control, reason=HOSTILE, tokens_per_s=None))
    text = capsys.readouterr().out
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]
    out = [" ".join(line.split()) for line in text.splitlines()]
    assert out[0] == "metric validation test 95 % interval control"
    assert "promote bizllm models promote ticket_intent 3" in out
    assert out[-2] == "the control wins: a simple linear model scores as well on test"
    assert out[-1].startswith("not promoted registry:ticket_intent@3: \\u001b[31mred")
    assert out[-1].endswith("[bold]not markup[/bold]")


def test_a_training_without_a_test_table(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"validation": {"perplexity": 12.3456}}
    print_finetune(result(metrics=metrics, intervals={}, control={}, champion=None, report=None, promoted=False))
    out = lines(capsys)
    assert out[0] == "metric validation"
    assert out[2] == "perplexity 12.35"
    assert not [line for line in out if line.startswith("report")]


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "name": "ticket_intent",
        "base": "builtin:minilm",
        "objective": "classification",
        "method": "lora",
        "parameters": 22_713_216,
        "trainable": 227_132,
        "rows": {"train": 9_000, "validation": 1_000, "test": None},
        "tokens": 1_250_000,
        "steps": 1_690,
        "batch": {"global": 32, "micro": 8, "accumulation": 2, "workers": 2},
        "memory": [
            {"stage": 1, "offload": "none", "mb": 1_234.4, "chosen": False},
            {"stage": 2, "offload": "cpu", "mb": 640.0, "chosen": True},
        ],
        "hours": 0.25,
        "warnings": ["12 rows are cut at 128 tokens"],
    }
    print_training_plan(plan)
    out = lines(capsys)
    assert out[2:4] == ["1 none 1,234", "2 cpu 640 chosen"]
    assert "trains 227,132 of 22,713,216 parameters (1 %)" in out
    assert "rows train 9,000, validation 1,000" in out
    assert "batch 32 rows: 8 at once × 2 accumulated × 2 workers" in out
    assert "time about 15 min 00 s" in out
    assert out[-1] == "warning: 12 rows are cut at 128 tokens"


def test_an_evaluation_shows_the_worst_classes_first(capsys: pytest.CaptureFixture[str]) -> None:
    classes = [
        {"label": f"class {i}", "support": 10 + i, "precision": 0.5, "recall": 0.6, "f1": i / 100} for i in range(77)
    ]
    slices = [{"slice": "language", "value": HOSTILE, "rows": 1_234, "score": 0.5, "interval": (0.4, 0.6)}]
    print_evaluation(
        {
            "model": "registry:ticket_intent@champion",
            "rows": 4_567,
            "metrics": {"macro_f1": 0.5},
            "intervals": {"macro_f1": [0.4, 0.6]},
            "per_class": classes[::-1],
            "slices": slices,
            "report": "/r.html",
        }
    )
    out = lines(capsys)
    assert out[0] == "metric score 95 % interval"
    assert out[2] == "macro_f1 0.5000 0.4000 – 0.6000"
    at = out.index("class, worst first precision recall f1 rows")
    assert out[at + 2] == "class 0 0.5000 0.6000 0 10"
    assert out[at + 12] == "and 67 better classes"
    assert any(line.endswith("1,234 0.5000 0.4000 – 0.6000") for line in out)
    assert out[-2] == "model registry:ticket_intent@champion on 4,567 rows"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.91234, "0.9123"), (12.3456, "12.35"), (54_321.0, "54,321"), (0.0001, "0.0001"), (-0.5, "-0.5000"), (0, "0"),
     (None, ""), (float("nan"), "nan")],
)  # fmt: skip
def test_figures(value: object, shown: str) -> None:
    assert figure(value) == shown


def events(observer: TrainingObserver) -> None:
    observer.training_started(
        {"name": "ticket_intent", "base": "builtin:minilm", "objective": "classification", "method": "full"}
        | {"workers": 1, "rows": 9_000, "steps": 40}
    )
    observer.stage("encode")
    observer.stage("train")
    observer.workers(1, 0)
    for step in range(1, 41):
        if step == 21:
            observer.lost("worker 1 died")
            observer.workers(2, 20)
        observer.step(step, 40, {"loss": 2 / step, "lr": 1e-4, "tokens_per_s": 12_345.6, "epoch": 0.1})
        if step == 21:
            observer.made_up(21, 24.3)
        if step % 20 == 0:
            observer.validated({"loss": 0.5, "macro_f1": 0.9})
    observer.finished(result())


def test_lines_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, seconds = io.StringIO(), iter(range(100))
    monkeypatch.setattr(console_training.time, "monotonic", lambda: float(next(seconds)))
    events(console_training.TrainingLines(stream))
    said = stream.getvalue().splitlines()
    assert said[:4] == [
        "ticket_intent from builtin:minilm: classification, full, 1 worker, 9,000 rows, 40 steps",
        "stage encode",
        "stage train",
        "step 1 of 40: loss 2, lr 0.0001, tokens/s 12,346",
    ]
    assert "validation after step 20: loss 0.5000, macro_f1 0.9000" in said
    assert len([line for line in said if line.startswith("step") and "of" in line]) == 8 + 1, (
        "one in five seconds, and the last"
    )
    assert [line for line in said if "with" in line or "lost" in line] == [
        "workers lost: worker 1 died; waiting for room to go on",
        "on from step 20 with 2 workers",
        "step 21 after 24.3 s without a new one",
    ]
    assert said[-1] == "registry:ticket_intent@3: promoted, 2 min 05 s"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with training_progress(as_json=True) as observer:
        events(observer)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "validation after step 20: loss 0.5000, macro_f1 0.9000" in text and "on from step 20 with 2 workers" in text
    assert "workers lost: worker 1 died" in text and "step 21 after 24.3 s" in text
    last = [line for line in text.splitlines() if line.startswith("train ")][-1]
    assert "40/40  loss 0.0500, lr 0.0001, tokens/s 12,346" in last


def test_without_a_terminal_json_has_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress(as_json=True) as observer:
        events(observer)
    assert capsys.readouterr() == ("", "")
    with training_progress(as_json=False) as observer:
        events(observer)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ticket_intent from builtin:minilm")


def test_what_is_printed_is_what_json_can_say(capsys: pytest.CaptureFixture[str]) -> None:
    print_finetune(result())
    direct = capsys.readouterr().out
    print_finetune(json.loads(json.dumps(result())))
    assert capsys.readouterr().out == direct
