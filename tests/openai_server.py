"""A small server that speaks OpenAI's chat protocol over real HTTP, in a thread, with the faults that a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Asked = dict[str, Any]


@dataclass
class Say:
    """What the server answers: a text, or a fault.

    text: of the answer. status, headers, body: of the reply; body instead of a right one. wait_s: before it. drop:
    closes the connection after half of the reply.
    """

    text: str | None = None
    finish: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    wait_s: float = 0.0
    drop: bool = False
    usage: bool = True


@dataclass
class Server:
    """address: what a job writes. asked: every request's body. keys: its Authorization, or None."""

    address: str
    answer: Callable[[str, Asked], Say | str]
    asked: list[Asked] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def prompts(self) -> list[str]:
        """What was asked, in the order of arrival."""
        return [asked["messages"][-1]["content"] for asked in self.asked]


@contextmanager
def serving(answer: Callable[[str, Asked], Say | str]) -> Iterator[Server]:
    """A server that answers each prompt as `answer` says of it and the request's body."""
    server = Server("", answer)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.asked.append(asked)
                server.keys.append(self.headers.get("Authorization"))
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            said = Say(status=404) if self.path != "/v1/chat/completions" else self._said(asked)
            time.sleep(said.wait_s)
            with lock:
                server.at_once -= 1
            self._send(asked, said)

        def _said(self, asked: Asked) -> Say:
            said = server.answer(asked["messages"][-1]["content"], asked)
            return Say(said) if isinstance(said, str) else said

        def _send(self, asked: Asked, said: Say) -> None:
            body = said.body
            if body is None and said.status < 400:
                prompt = asked["messages"][-1]["content"]
                message = {"role": "assistant", "content": said.text}
                body = {
                    "id": "chat-1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": asked["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
                }
                if said.usage:
                    read, wrote = len(prompt.split()), len((said.text or "").split()) + 1
                    body["usage"] = {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
            raw = body.encode() if isinstance(body, str) else json.dumps(body or {"error": {}}).encode()
            try:
                self.send_response(said.status)
                for name, value in {"Content-Type": "application/json", **said.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw[: len(raw) // 2] if said.drop else raw)
                if said.drop:
                    self.close_connection = True
            except OSError:  # the client went away
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    class Http(ThreadingHTTPServer):
        daemon_threads = True

    http = Http(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(5)
