"""A way to a server that breaks: bytes go through as they are, until all connections are reset or none is let in."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_RESET = struct.pack("ii", 1, 0)  # closed with a reset instead of an orderly end


class Way:
    """Passes connections on to `port`. opened: how many there were; cut: how many were reset."""

    def __init__(self, port: int) -> None:
        self._upstream, self._open = port, True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.opened = self.cut_off = 0
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Reset every connection that is open."""
        with self._lock:
            ends, self._ends = self._ends, set()
        self.cut_off += len(ends) // 2
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # wakes who reads from it
            end.close()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody gets in meanwhile, and who was in is out."""
        self._open = False
        self.cut()
        yield
        self._open = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._upstream))
            self.opened += 1
            with self._lock:
                self._ends |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@contextmanager
def way_to(port: int) -> Iterator[Way]:
    """A way while the block lasts."""
    way = Way(port)
    threading.Thread(target=way._accept, daemon=True).start()
    try:
        yield way
    finally:
        way._server.close()
        way.cut()
