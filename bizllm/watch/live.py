"""A run's metrics while it lives, through Ray: each node's agent gives them to Prometheus beside Ray's own.

All come from the driver, which every receipt passes; its workers need nothing of their own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import Any

from bizllm import logs
from bizllm.jobs.observe import Observer
from bizllm.watch.metrics import OF_RUNS, ROWS, STATES

REPEAT_S = 5.0  # Ray 2.60 gives a gauge for some 20 s after it was set, and then no more

_log = logs.get(__name__)


class RayMetrics(Observer):
    """Sets the metrics `OF_RUNS`. Without a Ray in this process, or through `ray://`, it does nothing."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._job = ""
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run_started(self, job: str, run_id: str, run_date: date, steps: Sequence[str]) -> None:
        self._job = job
        try:
            self._metrics = _made()
        except Exception as fault:
            _log.warning("no_metrics", reason=type(fault).__name__)
        if not self._metrics:
            return
        self._set("bizllm_run_alive", 1)
        self._set("bizllm_run_started_timestamp_seconds", time.time())
        self._progress()
        threading.Thread(target=self._repeat, name="metrics", daemon=True).start()

    def step_started(self, step: str, task: str, units: int) -> None:
        self._state(step, "running")
        self._progress()

    def stage_started(self, step: str, stage: str, units: int) -> None:
        self._set("bizllm_run_stage", 1, step=step, stage=stage)
        if stage == "answer":
            self._set("bizllm_run_units", units, step=step, kind="total")
            self._set("bizllm_run_units", 0, step=step, kind="done")
        self._progress()

    def unit_worked(self, step: str, stage: str, seconds: float, tokens: int) -> None:
        self._add("bizllm_run_tokens_total", tokens, step=step)
        if stage == "answer":
            self._add("bizllm_run_model_seconds_total", seconds, step=step)
        self._progress()

    def unit_done(self, step: str, done: int, total: int, rows: int, rejected: int) -> None:
        self._set("bizllm_run_units", done, step=step, kind="done")
        self._set("bizllm_run_units", total, step=step, kind="total")
        self._set("bizllm_run_rows", rows, step=step, kind="in")
        self._set("bizllm_run_rows", rejected, step=step, kind="rejected")

    def stage_finished(self, step: str, stage: str, seconds: float) -> None:
        self._set("bizllm_run_stage", 0, step=step, stage=stage)
        if stage == "publish":
            self._set("bizllm_run_publish_seconds", seconds, step=step)
        self._progress()

    def step_finished(self, result: dict[str, Any]) -> None:
        step = str(result["step"])
        self._state(step, str(result["state"]))
        for kind in ROWS:
            self._set("bizllm_run_rows", result[f"rows_{kind}"], step=step, kind=kind)
        self._progress()

    def ended(self) -> None:
        """The run is over, however it ended: nothing of it stays for the next one of this process and Ray."""
        self._over.set()
        for name, labels in [key for key, value in self._gauges.items() if value]:
            self._set(name, 0, **dict(labels))

    # -- Ray ------------------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        self._set("bizllm_run_progress_timestamp_seconds", time.time())

    def _state(self, step: str, state: str) -> None:
        for each in ("running", *STATES):
            self._set("bizllm_run_step_state", float(each == state), step=step, state=each)

    def _set(self, name: str, value: float, **labels: str) -> None:
        if name in self._metrics:
            with self._lock:
                self._gauges[name, tuple(sorted(labels.items()))] = value
                self._show(name, value, labels)

    def _show(self, name: str, value: float, labels: dict[str, str]) -> None:
        with suppress(Exception):
            self._metrics[name].set(value, {"job_name": self._job, **labels})

    def _repeat(self) -> None:
        """A run that hangs sets nothing, and is to be seen."""
        while not self._over.wait(REPEAT_S):
            with self._lock:
                if self._over.is_set():
                    return
                for (name, labels), value in self._gauges.items():
                    self._show(name, value, dict(labels))

    def _add(self, name: str, value: float, **labels: str) -> None:
        if name in self._metrics and value > 0:
            with suppress(Exception):
                self._metrics[name].inc(value, {"job_name": self._job, **labels})


def _made() -> dict[str, Any]:
    """Ray's metrics by name; none where no Ray is up (a night that stands needs none)."""
    if "ray" not in sys.modules:
        return {}
    import ray
    import ray.util.client

    if not ray.is_initialized() or ray.util.client.ray.is_connected():
        return {}
    from ray.util.metrics import Counter, Gauge

    kinds = {"gauge": Gauge, "counter": Counter}
    return {m.name: kinds[m.kind](m.name, m.help, tag_keys=("job_name", *m.labels)) for m in OF_RUNS}
