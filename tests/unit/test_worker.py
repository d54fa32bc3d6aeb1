"""What a worker does with connections: who is idle is let go, and all of an answer is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from promo_service import worker
from promo_service.embedded import HOST
from promo_service.worker import Handler, Server

# Long enough that a test that waits for it is noticed.
PATIENCE = 30
REQUEST = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def answering(*pieces: bytes) -> Application:
    """Return an application that answers every request with these pieces."""

    def application(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Length", str(sum(map(len, pieces))))])
        return pieces

    return application


@pytest.fixture
def serve() -> Iterator[Callable[[Application], Any]]:
    """Provide a way to serve an application; it returns a connection to it."""
    opened: list[Any] = []

    def serve(application: Application) -> Any:
        listener = gevent.socket.socket()
        listener.bind((HOST, 0))
        listener.listen()
        server = Server(listener, application=application, handler_class=Handler, log=None)
        server.start()
        client = gevent.socket.create_connection(listener.getsockname())
        opened.extend([client, server])
        return client

    with gevent.Timeout(PATIENCE):
        yield serve
        for each in opened:
            each.close()


def read(connection: Any, size: int) -> bytes:
    """Read so many bytes of the body of an answer."""
    stream = connection.makefile("rb")
    while stream.readline() != b"\r\n":
        pass
    return bytes(stream.read(size))


def test_connections_that_are_idle_for_too_long_are_closed(
    serve: Callable[[Application], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.1)
    connection = serve(answering(b"yes"))
    connection.sendall(REQUEST)
    assert read(connection, 3) == b"yes"
    assert connection.recv(1) == b""


def test_connections_are_kept_between_requests(
    serve: Callable[[Application], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.001)
    connection = serve(answering(b"yes"))
    for _ in range(3):
        connection.sendall(REQUEST)
        assert read(connection, 3) == b"yes"
        gevent.sleep(0.01)


def test_of_an_answer_that_does_not_fit_into_the_buffers_nothing_is_lost(
    serve: Callable[[Application], Any],
) -> None:
    body = bytes(range(256)) * 100_000
    connection = serve(answering(body, b"the end"))
    connection.sendall(REQUEST)
    gevent.sleep(0.05)  # until the buffers are full
    assert read(connection, len(body) + 7) == body + b"the end"
