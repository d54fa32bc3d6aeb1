"""A worker that is told to end: what is under way is answered, and nothing else is waited for."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

import psutil
import pytest

from tests.support.client import get
from tests.support.raw import answers, connected, http, received
from tests.support.service import Service

# A worker that waits for somebody has not ended when these tests give up.
FOR_EVER = {"GUNICORN_CMD_ARGS": "--graceful-timeout 3600"}
PATIENCE = 60
BODY = b"{}"
ORDER = http(
    "POST",
    "/api/promo-codes/validate",
    "Content-Type: application/json",
    f"Content-Length: {len(BODY)}",
    body=BODY,
)
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])


@pytest.fixture
def patient(start_service: Callable[..., Service]) -> Service:
    """Provide a service that waits for what is under way as long as it takes."""
    return start_service(environ=FOR_EVER)


def ask(connection: socket.socket) -> None:
    """Send a request and read its answer, after which the connection is idle."""
    connection.sendall(http())
    (answer,) = answers(connection.recv(65536))
    assert (answer.status, answer.closes) == (200, False)


def told_to_end(service: Service, number: signal.Signals) -> psutil.Process:
    """Tell a service with one worker to end, or to replace its worker; return that worker."""
    [worker] = service.worker_pids()
    process = psutil.Process(worker)
    os.kill(service.pid, number)
    return process


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the service closes the connection."""
    return received(connection, time.monotonic() + PATIENCE)


@SIGNALS
def test_idle_connections_are_closed_and_not_waited_for(
    patient: Service, number: signal.Signals
) -> None:
    with connected(patient.port) as used, connected(patient.port) as unused:
        ask(used)
        worker = told_to_end(patient, number)
        assert (rest_of(used), rest_of(unused)) == (b"", b"")
        worker.wait(PATIENCE)
    if number == signal.SIGHUP:
        assert get(f"{patient.url}/healthz").status == 200
    assert patient.stop(PATIENCE) == 0


@SIGNALS
@pytest.mark.parametrize("cut", [1, len(ORDER) - len(BODY), len(ORDER) - 1])
def test_a_request_under_way_is_answered_when_idle_connections_have_been_closed(
    patient: Service, number: signal.Signals, cut: int
) -> None:
    with (
        connected(patient.port) as idle,
        connected(patient.port) as first,
        connected(patient.port) as later,
        connected(patient.port) as ahead,
    ):
        first.sendall(ORDER[:cut])
        ask(later)
        later.sendall(ORDER[:cut])
        ahead.sendall(http() + ORDER[:cut])
        (answer,) = answers(ahead.recv(65536))
        assert answer.status == 200
        # Answered after all of it has been received: it is with the worker.
        ask(idle)
        worker = told_to_end(patient, number)
        assert rest_of(idle) == b""
        for connection in (first, later, ahead):
            connection.sendall(ORDER[cut:])
            (answer,) = answers(rest_of(connection))
            assert (answer.status, answer.closes) == (400, True)
        worker.wait(PATIENCE)
    assert patient.stop(PATIENCE) == 0
