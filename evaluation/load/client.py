"""One client on one connection, for measurements in which the order of single requests counts."""

from __future__ import annotations

import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from evaluation.load.open_loop import NO_ANSWER, read_answer, request_message
from promo_service.embedded import HOST

CHUNK = 65_536


class Client:
    """A connection that is kept alive; `send` and `receive` are apart, so that two can race."""

    def __init__(self, url: str, port: int, timeout: float = 20) -> None:
        self._url = url
        self._socket = socket.create_connection((HOST, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, operation: str, body: str) -> None:
        """Send a request without waiting for its answer."""
        self._socket.sendall(request_message(self._url, operation, body))

    def receive(self) -> str:
        """Return the outcome of the request that was sent: a status, and a machine code."""
        received = b""
        while data := self._socket.recv(CHUNK):
            received += data
            if outcome := read_answer(received):
                return outcome
        return NO_ANSWER

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()


def ask(url: str, port: int, operation: str, body: str, timeout: float) -> str:
    """Send one request on a connection of its own; whatever goes wrong is `no answer`."""
    with suppress(OSError), Client(url, port, timeout) as client:
        client.send(operation, body)
        return client.receive()
    return NO_ANSWER
