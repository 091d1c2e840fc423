"""A run as an OpenTelemetry trace: a span for the run, its steps, their stages.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT says where to; all else is as the standard OTEL_* variables say. TRACEPARENT
makes the run a part of its scheduler's trace. Attributes are names of the job file, states and counts.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from importlib.util import find_spec
from typing import Any

from bizllm import logs
from bizllm.jobs.observe import Observer

END_S = 5.0  # for the last spans to leave
_COUNTS = ("rows_in", "rows_out", "rows_rejected", "rows_reused", "records_out", "tokens")

_log = logs.get(__name__)


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces, and they can be sent."""
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if not any(environment.get(name) for name in endpoints):
        return False
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    protocols = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((environment[name] for name in protocols if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        _log.warning("no_traces", reason=f"the protocol {protocol} is not spoken here, http/protobuf is")
        return False
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        _log.warning("no_traces", reason="OpenTelemetry's exporter is missing: pip install 'bizllm[otel]'")
        return False
    return True


class Traces(Observer):
    """Makes the spans of one run. begin: when it is asked for, not when the work begins, so that checks count too."""

    def __init__(self, job: str, day: date) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "bizllm"}
        lost = self._lost = [0]

        class Counting(OTLPSpanExporter):
            def export(self, spans: Sequence[Any]) -> SpanExportResult:
                result = super().export(spans)
                lost[0] += 0 if result is SpanExportResult.SUCCESS else len(spans)
                return result

        # Of its own: the application that calls `bizllm.run` may have one already.
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(Counting()))
        self._leaving = threading.Thread(target=self._leave, name="traces", daemon=True)
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)  # one line of ours is enough
        self._tracer = self._provider.get_tracer("bizllm")
        carried = {
            name: os.environ[name.upper()] for name in ("traceparent", "tracestate") if name.upper() in os.environ
        }
        parent = TraceContextTextMapPropagator().extract(carried) if carried else None
        self._run = self._tracer.start_span(f"run {job}", context=parent)
        self._run.set_attributes({"bizllm.job": job, "bizllm.date": day.isoformat()})
        self._steps: dict[str, Any] = {}
        self._stages: dict[str, Any] = {}
        self._deadline = 0.0

    def run_started(self, job: str, run_id: str, run_date: date, steps: Sequence[str]) -> None:
        self._run.set_attribute("bizllm.run_id", run_id)

    def step_started(self, step: str, task: str, units: int) -> None:
        self._steps[step] = self._under(self._run, f"step {step}")
        self._steps[step].set_attributes({"bizllm.step": step, "bizllm.task": task, "bizllm.units": units})

    def stage_started(self, step: str, stage: str, units: int) -> None:
        self._stages[step] = self._under(self._steps.get(step, self._run), stage)
        self._stages[step].set_attributes({"bizllm.step": step, "bizllm.stage": stage, "bizllm.units": units})

    def stage_finished(self, step: str, stage: str, seconds: float) -> None:
        if span := self._stages.pop(step, None):
            span.end()

    def step_finished(self, result: dict[str, Any]) -> None:
        span = self._steps.pop(result["step"], None) or self._under(self._run, f"step {result['step']}")
        span.set_attributes({f"bizllm.{name}": result[name] for name in _COUNTS})
        self._end(span, result["state"])

    def ended(self, state: str) -> None:
        """The run is over; its last spans are on their way, see `left`."""
        for span in (*self._stages.values(), *self._steps.values()):
            span.end()
        self._end(self._run, state)
        self._deadline = time.monotonic() + END_S
        self._leaving.start()

    def left(self) -> None:
        """Wait for the last spans; END_S after `ended` was called they are lost."""
        self._leaving.join(max(0.0, self._deadline - time.monotonic()))
        if self._leaving.is_alive() or self._lost[0]:
            _log.warning("spans_lost", reason="the collector does not take them")

    def _leave(self) -> None:
        with suppress(Exception):
            self._provider.shutdown()

    def _under(self, parent: Any, name: str) -> Any:
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(name, context=set_span_in_context(parent))

    def _end(self, span: Any, state: str) -> None:
        from opentelemetry.trace import StatusCode

        span.set_attribute("bizllm.state", state)
        # Without a description: it might hold more than names and counts.
        span.set_status(StatusCode.OK if state in ("done", "unchanged") else StatusCode.ERROR)
        span.end()
