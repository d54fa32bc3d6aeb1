"""What a connection still takes when its worker has been told to end, or has waited for long."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from promo_service.embedded import HOST
from promo_service.incoming import Incoming

# Long enough that a test that waits for it is noticed.
PATIENCE = 30


class Connection:
    """Both ends of a connection: what the client has, and what the worker reads from it."""

    def __init__(self) -> None:
        with socket.create_server((HOST, 0)) as listener:
            self.client = gevent.socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        served = gevent.socket.socket(fileno=accepted.detach())
        self.incoming = Incoming(served)
        self.reader = io.BufferedReader(self.incoming)

    def expect(self) -> Any:
        """Begin to wait for a request, in another greenlet."""
        waiting = gevent.spawn(self.incoming.expect, self.reader)
        gevent.sleep(0)
        return waiting


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Provide a connection on which nothing has been sent."""
    connection = Connection()
    with gevent.Timeout(PATIENCE):
        yield connection
    connection.client.close()
    connection.incoming._socket.close()


def test_who_waits_for_a_request_is_told_that_none_will_come(connection: Connection) -> None:
    waiting = connection.expect()
    assert not waiting.ready()
    connection.incoming.end()
    assert waiting.get() is False


def test_a_request_that_has_arrived_is_read_to_its_end(connection: Connection) -> None:
    waiting = connection.expect()
    connection.client.sendall(b"head, ")
    # The one who waits has had no turn since.
    connection.incoming.end()
    assert waiting.get() is True
    connection.client.sendall(b"body")
    assert connection.reader.read(10) == b"head, body"


def test_a_request_that_comes_too_late_is_not_begun(connection: Connection) -> None:
    waiting = connection.expect()
    connection.incoming.end()
    connection.client.sendall(b"head, ")
    assert waiting.get() is False


def test_a_request_that_has_begun_goes_on_and_is_the_last(connection: Connection) -> None:
    waiting = connection.expect()
    connection.client.sendall(b"head, ")
    assert waiting.get() is True
    connection.incoming.end()
    connection.client.sendall(b"body")
    assert connection.reader.read(10) == b"head, body"
    assert connection.expect().get() is False


def test_what_was_sent_ahead_is_read_although_its_end_is_to_come(connection: Connection) -> None:
    connection.client.sendall(b"one two")
    assert connection.expect().get() is True
    assert connection.reader.read(4) == b"one "
    connection.incoming.end()
    assert connection.expect().get() is True
    connection.client.sendall(b"!")
    assert connection.reader.read(4) == b"two!"


def test_a_client_that_has_gone_is_no_error(connection: Connection) -> None:
    waiting = connection.expect()
    connection.client.shutdown(socket.SHUT_RDWR)
    connection.client.close()
    connection.incoming.end()
    assert waiting.get() is False


def test_an_idle_connection_ends_after_its_time_and_not_before(connection: Connection) -> None:
    waiting = connection.expect()
    connection.incoming.end_if_idle(3600)
    gevent.sleep(0.01)
    assert not waiting.ready()
    connection.incoming.end_if_idle(0.01)
    assert waiting.get() is False


def test_a_connection_on_which_something_has_come_is_not_idle(connection: Connection) -> None:
    waiting = connection.expect()
    connection.client.sendall(b"head, ")
    # The one who waits has had no turn since.
    connection.incoming.end_if_idle(0)
    assert waiting.get() is True
    connection.incoming.end_if_idle(0)
    connection.client.sendall(b"body")
    assert connection.reader.read(10) == b"head, body"
    connection.client.sendall(b"next")
    assert connection.expect().get() is True
