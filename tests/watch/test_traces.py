"""Spans over real OTLP, as a receiver parses them; what is off, and what fails without a word."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from bizllm import api
from bizllm.errors import UserError
from bizllm.watch import traces
from tests.listeners import attributes, listening, spans_of
from tests.watch.conftest import LAST, Shop

Make = Callable[..., Shop]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def no_otel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINT, "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_off_unless_asked_for(environment: dict[str, str], expected: bool) -> None:
    assert traces.wanted(environment) is expected


def test_without_the_extra_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    monkeypatch.setattr(traces, "find_spec", lambda name: None)
    monkeypatch.setattr(traces._log.__class__, "warning", lambda self, event, **fields: said.append((event, fields)))
    assert not traces.wanted({ENDPOINT: "http://c:4318"})
    assert said == [("no_traces", {"reason": "OpenTelemetry's exporter is missing: pip install 'bizllm[otel]'"})]


def test_a_night_that_cannot_begin_is_a_span_with_an_error(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shop(sources={"tickets": {"path": "gone", "key": ["ticket_id"]}})
    with listening(read=spans_of) as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "nights")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=data")
        with pytest.raises(UserError):
            api.run(str(one.path))
        ((span, resource),) = (each for body in collector.got for each in body)
    assert (span.name, span.status.code, span.status.message, span.parent_span_id) == ("run shop", 2, "", b"")
    assert attributes(span) == {"bizllm.job": "shop", "bizllm.date": str(LAST), "bizllm.state": "failed"}
    assert list(span.events) == [], "no exception with its text"
    assert (resource["service.name"], resource["team"]) == ("nights", "data")


def test_what_was_cut_off_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(read=spans_of) as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("TRACEPARENT", "no such thing")
        spans = traces.Traces("shop", date(2026, 6, 30))
        spans.step_started("summary", "summarize", 3)
        spans.stage_started("summary", "answer", 3)
        spans.ended("cancelled")
        spans.left()
        got = {span.name: span for body in collector.got for span, _ in body}
    assert got.keys() == {"run shop", "step summary", "answer"}
    assert got["answer"].parent_span_id == got["step summary"].span_id
    assert got["step summary"].parent_span_id == got["run shop"].span_id and got["run shop"].parent_span_id == b""


@pytest.mark.parametrize("fault", ["refuses", "errs", "hangs"])
def test_a_collector_that_fails_holds_nobody_up(
    fault: str, shop: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(traces, "END_S", 1.0)
    one = shop(sources={"tickets": {"path": "gone", "key": ["ticket_id"]}})
    with listening(read=bytes, statuses=[500] * 99, wait_s=60.0 if fault == "hangs" else 0.0) as collector:
        monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9" if fault == "refuses" else collector.url)
        began = time.monotonic()
        with pytest.raises(UserError):
            api.run(str(one.path))
        assert time.monotonic() - began < 4
    (line,) = capfd.readouterr().err.splitlines()  # and nothing of OpenTelemetry's own
    assert json.loads(line)["event"] == "spans_lost"
