"""An HTTP proxy in front of an object store's server that fails requests as a script says.

It runs in threads of the test's process, keeps connections alive, and passes bodies on as they are (multipart uploads,
`aws-chunked`, `Transfer-Encoding: chunked`). Signatures are not recomputed: the server behind must not check the host.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

Kind = Literal["slow_down", "too_many", "error_500", "reset", "stall", "truncate", "expired", "denied", "lost"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What a store answers, by kind: status and S3's error code. The others are faults of the connection.
_ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "too_many": (429, "TooManyRequests"),
    "error_500": (500, "InternalError"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
}
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "trailer", "upgrade", "proxy-connection"}


@dataclass
class Rule:
    """Fail the `nth` matching request and the `times` - 1 after it; times 0: all from the `nth` on.

    method: a regular expression, like `path`, which is searched in the request's target (`/bucket/key?query`).
    reset and the answers come before the store sees the request; lost and truncate after it has done it.
    """

    kind: Kind
    method: str = ".*"
    path: str = ""
    nth: int = 1
    times: int = 1
    seen: int = field(default=0, init=False)

    def hits(self, method: str, target: str) -> bool:
        """Whether this request is to fail; counts it."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, target):
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times == 0 or self.seen < self.nth + self.times)


class FaultProxy:
    """Answers while the block of `serving` runs; `endpoint` is what clients are given. tls: speak https."""

    def __init__(self, upstream: str, stall_s: float = 6.0, tls: ssl.SSLContext | None = None) -> None:
        self.upstream, self.stall_s = urlsplit(upstream).netloc, stall_s
        self.rules: list[Rule] = []
        self.seen: list[tuple[str, str]] = []  # (method, target) of every request
        self.failed: Counter[str] = Counter()  # how many requests failed, by kind
        self.without: frozenset[str] = frozenset()  # headers that the store does not get to see, in lower case
        self._rate, self._random, self._kinds = 0.0, random.Random(0), KINDS
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.endpoint = self.endpoint.replace("http:", "https:")

    @contextmanager
    def serving(self) -> Iterator[FaultProxy]:
        """Answer until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def fail(self, kind: Kind, method: str = ".*", path: str = "", *, nth: int = 1, times: int = 1) -> Rule:
        """Add a rule."""
        rule = Rule(kind, method, path, nth, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def fail_some(self, rate: float, seed: int, kinds: tuple[Kind, ...]) -> None:
        """Fail that share of all requests, drawn with the seed."""
        self._rate, self._random, self._kinds = rate, random.Random(seed), kinds

    def clear(self) -> None:
        """No more faults, and nothing was seen."""
        with self._lock:
            self.rules, self.seen, self._rate, self.without = [], [], 0.0, frozenset()
            self.failed.clear()

    def verdict(self, method: str, target: str) -> Kind | None:
        """What happens to this request."""
        with self._lock:
            self.seen.append((method, target))
            hits = [rule.kind for rule in self.rules if rule.hits(method, target)]
            kind = hits[0] if hits else None
            if kind is None and self._rate and self._random.random() < self._rate:
                kind = self._random.choice(self._kinds)
            if kind is not None:
                self.failed[kind] += 1
            return kind


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are none of the test's business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _upstream: http.client.HTTPConnection | None = None

    def _serve(self) -> None:
        proxy, body = self.server.proxy, self._body()
        kind = proxy.verdict(self.command, self.path)
        if kind in _ANSWERS:
            return self._refuse(*_ANSWERS[kind])
        if kind == "reset":
            return self._reset()
        if kind == "stall":
            time.sleep(proxy.stall_s)
            return self._reset()
        status, headers, answer = self._ask(body)
        if kind == "lost":
            return self._reset()
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in (*_HOP, "content-length"):
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(answer)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer)))
        self.end_headers()
        if kind == "truncate" and len(answer) > 1:
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        proxy = self.server.proxy
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP | proxy.without}
        headers["Content-Length"] = str(len(body))
        for fresh in (False, True):  # the server may have closed a connection that was kept
            if self._upstream is None or fresh:
                self._upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=120)
            try:
                self._upstream.request(self.command, self.path, body, headers)
                answer = self._upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except (http.client.HTTPException, OSError):
                if fresh:
                    raise
        raise AssertionError("unreachable")

    def _refuse(self, status: int, code: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>made up</Message></Error>'
        body = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):  # closed with a reset instead of an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to stderr."""
