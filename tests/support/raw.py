"""A client that sends bytes as they are, right or wrong, and reads what the service answers."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer on a raw connection."""

    status: int
    content_type: str
    closes: bool
    body: bytes


@contextmanager
def connected(port: int, timeout: float = 60) -> Iterator[socket.socket]:
    """Provide a connection on which nothing has been sent."""
    with socket.create_connection((HOST, port), timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def exchange(port: int, *pieces: bytes, timeout: float = 60, half_close: bool = True) -> bytes:
    """Send pieces, then end the sending side; return all that is answered until the close.

    Raises TimeoutError when the service neither answers nor closes in time.
    """
    with connected(port, timeout) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all of it was sent; the answer says why
        return received(connection, time.monotonic() + timeout)


def received(connection: socket.socket, deadline: float) -> bytes:
    """Return what arrives until the service closes; raises TimeoutError at the deadline."""
    data = bytearray()
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return bytes(data)
        data += piece


def answers(data: bytes) -> list[Answer]:
    """Read one answer after the other; raises ValueError at what is none."""
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        response = HTTPResponse(_Received(stream))  # type: ignore[arg-type] # it reads only
        try:
            response.begin()
            body = response.read()
        except HTTPException as error:
            raise ValueError(f"not an answer: {data[:200]!r}") from error
        closes = response.getheader("Connection", "").lower() == "close"
        kind = response.getheader("Content-Type", "")
        found.append(Answer(response.status, kind, closes, body))
    return found


def http(
    method: str = "GET",
    target: str = "/healthz",
    *headers: str,
    body: bytes = b"",
    end: str = "\r\n",
) -> bytes:
    """Return a request with a Host and these headers, and no other."""
    lines = [f"{method} {target} HTTP/1.1", "Host: shop", *headers, "", ""]
    return end.join(lines).encode("latin-1") + body


class _Received:
    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def makefile(self, *_: object) -> io.BytesIO:
        return _Unclosed(self._stream)


class _Unclosed(io.BytesIO):
    """A view of the stream that HTTPResponse may close when it has read its answer."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__()
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        return self._stream.read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._stream.readline(size)

    def readinto(self, buffer: object, /) -> int:
        return self._stream.readinto(buffer)  # type: ignore[arg-type]
