"""Small servers that listen, each in a thread: to webhooks, with the faults that a test wants, and to OTLP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Listener:
    """url: what a client is given. got: the body of every request that was heard; paths: where each went."""

    url: str
    got: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def take(self) -> list[Any]:
        """What was heard since the last time."""
        got, self.got = self.got, []
        return got


@contextmanager
def listening(
    path: str = "",
    read: Callable[[bytes], Any] = json.loads,
    statuses: list[int] | None = None,
    wait_s: float = 0.0,
    drip_s: float = 0.0,
    headers: dict[str, str] | None = None,
) -> Iterator[Listener]:
    """A server that hears POSTs.

    statuses: of the answers one after another, then 200. wait_s: before an answer. drip_s: between single bytes of an
    answer that never ends.
    """
    answers = iter(statuses or [])
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            listener.paths.append(self.path)
            listener.got.append(read(self.rfile.read(int(self.headers["Content-Length"]))))
            stop.wait(wait_s)
            if drip_s:
                while not stop.wait(drip_s):
                    try:
                        self.wfile.write(b"H")
                    except OSError:
                        break
                return
            self.send_response(next(answers, 200))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:  # only a redirect that was followed asks so
            listener.paths.append(f"GET {self.path}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that gave up
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    listener = Listener(f"http://127.0.0.1:{server.server_port}{path}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def spans_of(body: bytes) -> list[Any]:
    """The spans of an OTLP request."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(body)
    return [
        (span, dict(_plain(resource.resource.attributes)))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes as Python values."""
    return dict(_plain(span.attributes))


def _plain(attributes: Any) -> Iterator[tuple[str, Any]]:
    for one in attributes:
        yield one.key, getattr(one.value, one.value.WhichOneof("value"))


def wait_for(ready: Callable[[], Any], within_s: float) -> Any:
    """What `ready` gives once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := ready()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
        time.sleep(0.2)
    return found
