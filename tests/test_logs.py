"""Events are JSON lines with their context, and never tell an exception's text."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from bizllm import logs


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The package's logger as in a new process, and afterwards as it was."""
    logger = logging.getLogger("bizllm")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()
    logger.propagate = True  # pytest puts its own handler on loggers that don't propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    logger.setLevel(level)


def test_an_event_is_one_line_of_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BIZLLM_LOG", "info")
    log = pickle.loads(pickle.dumps(logs.get("x", run_id="r1"))).bind(step="sales")
    log.info("unit_done", unit="7", rows=10, ratio=float("nan"), text="line\n" * 200)
    log.debug("hidden")
    out, err = capsys.readouterr()
    line = json.loads(err)
    assert out == ""
    assert err.count("\n") == 1
    assert line.pop("time").endswith("+00:00")
    assert len(line.pop("text")) == 500
    assert line == {
        "level": "info",
        "event": "unit_done",
        "logger": "x",
        "run_id": "r1",
        "step": "sales",
        "unit": "7",
        "rows": 10,
        "ratio": "nan",
    }


def test_quiet_by_default_and_off_is_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("BIZLLM_LOG", raising=False)
    logs.get().info("a")
    logs.get().warning("b")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["b"]
    logging.getLogger("bizllm").handlers.clear()
    monkeypatch.setenv("BIZLLM_LOG", "off")
    logs.get().error("c")
    assert capsys.readouterr().err == ""


def test_a_file_takes_the_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIZLLM_LOG_FILE", str(tmp_path / "log"))
    logs.get().error("first")
    logs.get().error("second", step="中文")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in lines] == ["first", "second"]
    assert lines[1]["step"] == "中文"


def test_an_exceptions_text_stays_out_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BIZLLM_DEBUG", raising=False)
    logs.get().error("start")
    capsys.readouterr()
    try:
        int("the customer's secret")
    except ValueError:
        logging.getLogger("bizllm").exception("failed")
    err = capsys.readouterr().err
    assert "secret" not in err
    assert json.loads(err)["exception"] == "ValueError"
