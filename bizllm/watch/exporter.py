"""Metrics of nights for Prometheus: read from the warehouses again and again, served over HTTP or printed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bizllm import logs
from bizllm.errors import Fault, UserError, safe_text
from bizllm.jobs.job import Job
from bizllm.watch.metrics import OF_NIGHTS, Sample, samples
from bizllm.watch.nights import Reader

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HEALTH_PATH = "/healthz"
HUNG_S = 600.0  # stores and catalogs have timeouts and retries, which end sooner: a read of this length never ends

_log = logs.get(__name__)


@dataclass
class _Known:
    """What was last read of a job. at: seconds since 1970; None before the first time."""

    reader: Reader
    samples: list[Sample]
    up: bool = False
    at: float | None = None
    seconds: float = 0.0


class Exporter(Collector):
    """The metrics of some jobs, as of the last `refresh`. A scrape reads no warehouse, and so is never late."""

    def __init__(self, jobs: Sequence[Job], clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._known = [_Known(Reader(job), []) for job in jobs]
        self._ended = time.monotonic()  # when a read last did, well or not
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def refresh(self) -> bool:
        """Read every job's warehouse; whether all could be. Of one that can't be, what was known before stays."""
        for known in self._known:
            job, began = known.reader.job, time.perf_counter()
            try:
                now = self._clock()
                read = list(samples(known.reader.read(now), job.budget))
                known.samples, known.at, known.up = read, now.timestamp(), True
            except Exception as fault:  # one job's warehouse is no reason to tell nothing of the others
                known.up = False
                _log.error("warehouse_not_read", job=job.name, error=safe_text(fault))
            known.seconds = round(time.perf_counter() - began, 3)
            self._ended = time.monotonic()
        return all(known.up for known in self._known)

    def silent_s(self) -> float:
        """Seconds since a read last ended, be it with a fault."""
        return time.monotonic() - self._ended

    def values(self) -> Iterator[Sample]:
        """Every sample as of the last refresh."""
        for known in self._known:
            job = {"job_name": known.reader.job.name}
            yield from list(known.samples)
            yield "bizllm_exporter_job_up", job, float(known.up)
            yield "bizllm_exporter_read_seconds", job, known.seconds
            if known.at is not None:
                yield "bizllm_exporter_read_timestamp_seconds", job, known.at

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For prometheus_client."""
        by_name: dict[str, list[Sample]] = {}
        for sample in self.values():
            by_name.setdefault(sample[0], []).append(sample)
        for metric in OF_NIGHTS:
            family = GaugeMetricFamily(metric.name, metric.help, labels=("job_name", *metric.labels))
            for _, labels, value in by_name.get(metric.name, ()):
                family.add_metric([labels[name] for name in ("job_name", *metric.labels)], value)
            yield family

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self.registry).decode()


def serve(exporter: Exporter, host: str, port: int, every_s: float, stop: threading.Event, ready: Any) -> None:
    """Serve `/metrics` until `stop` is set, and read the warehouses anew every so many seconds.

    `/healthz` answers 503 once a read hangs, which only a new process cures. A warehouse that can't be read is no such
    thing: the metrics tell it.

    ready: called with the port once it listens and the first metrics are there. Raises UserError where it can't listen.
    """
    exporter.refresh()
    try:
        server, thread = start_http_server(port, host, exporter.registry)
    except OSError as fault:
        expected = f"can't listen there ({fault.strerror or type(fault).__name__})"
        raise UserError(Fault("--port", f"{host}:{port}", expected, "give another --port or --host")) from None
    server.set_app(_with_health(server.get_app(), lambda: exporter.silent_s() < every_s + HUNG_S))
    try:
        ready(server.server_port)
        while not stop.wait(every_s):
            exporter.refresh()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _with_health(metrics: WSGIApplication | None, well: Callable[[], bool]) -> WSGIApplication:
    assert metrics is not None

    def answer(asked: WSGIEnvironment, begin: StartResponse) -> Iterable[bytes]:
        if asked["PATH_INFO"] != HEALTH_PATH:
            return metrics(asked, begin)
        status, said = ("200 OK", b"ok\n") if well() else ("503 Service Unavailable", b"a read of a warehouse hangs\n")
        begin(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(said)))])
        return [said]

    return answer
