"""Requests that are no proper HTTP, on raw sockets: answered in JSON or cut off, never in the way.

Each test ends with a request that is answered: whatever was sent, the worker serves on.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from threading import Event

import pytest

from promo_service.http1 import MAX_HEAD_BYTES, MAX_LINE
from promo_service.incoming import READ_SECONDS
from tests.bad_input import Outcomes, check_worker, try_all
from tests.support.client import get
from tests.support.documents import USER
from tests.support.raw import Answer, answers, connected, exchange, http, received
from tests.support.rubbish import KINDS
from tests.support.service import PREFIX, Service

JSON = "application/json; charset=utf-8"
APPLY = f"{PREFIX}/apply"
ORDER = json.dumps({"code": "NO SUCH CODE", "userId": USER, "orderAmount": 1}).encode()
LENGTH = f"Content-Length: {len(ORDER)}"
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ORDER), ORDER)
HEALTH = http()
# What a server that reads another length than its balancer would take for a request of its own.
SMUGGLED = http("GET", "/smuggled")
# The worker's own limit, and time for a machine that is busy with other things.
PATIENCE = READ_SECONDS + 30


def order(*headers: str, body: bytes = ORDER) -> bytes:
    return http("POST", APPLY, "Content-Type: application/json", *headers, body=body)


@pytest.fixture(autouse=True)
def _serves_on(service: Service) -> Iterator[None]:
    yield
    assert get(f"{service.url}/healthz", timeout=PATIENCE).status == 200
    assert "Traceback" not in service.log_tail(1000)


def assert_refused(answer: Answer, *statuses: int) -> None:
    """Fail unless an answer is a refusal in JSON with one of the statuses."""
    assert answer.status in statuses, answer
    assert answer.content_type == JSON
    assert list(json.loads(answer.body)) == ["success", "error", "code"]


def statuses(data: bytes) -> list[int]:
    return [answer.status for answer in answers(data)]


# --- what cannot be read ends the connection: what comes after it could be anything

UNREADABLE: dict[str, bytes] = {
    "HTTP/0.9": b"GET /healthz\r\n",
    "HTTP/0.9 with a header": b"GET /healthz\r\nHost: shop\r\n\r\n",
    "HTTP/1": b"GET /healthz HTTP/1\r\n\r\n",
    "HTTP/1.x": b"GET /healthz HTTP/1.x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "NULs": bytes(100),
    "an empty line first": b"\r\n" + HEALTH,
    "bare LF": http(end="\n"),
    "bare CR": http(end="\r"),
    "bare LF after a header": HEALTH.replace(b"shop\r\n", b"shop\n"),
    "method in lower case": http("get"),
    "no method": b" /healthz HTTP/1.1\r\n\r\n",
    "two spaces": b"GET  /healthz HTTP/1.1\r\n\r\n",
    "a URI without a path": http("GET", "http://shop"),
    "asterisk": http("OPTIONS", "*"),
    "authority": http("CONNECT", "shop:443"),
    "NUL in the path": http("GET", "/health\0z"),
    "tab in the path": http("GET", "/health\tz"),
    "NUL in a header": http("GET", "/healthz", "X: a\0b"),
    "CR in a header": http("GET", "/healthz", "X: a\rContent-Length: 5"),
    "folded header": http("GET", "/healthz", "X: a", " b"),
    "folded first header": b"GET /healthz HTTP/1.1\r\n Host: shop\r\n\r\n",
    "header without colon": http("GET", "/healthz", "X"),
    "header without name": http("GET", "/healthz", ": x"),
    "space before the colon": order(f"Content-Length : {len(ORDER)}"),
    "two hosts": http("GET", "/healthz", "Host: other"),
    "half a header": HEALTH[:-3],
    "half a request line": HEALTH[:10],
    "length: negative": order("Content-Length: -1"),
    "length: a sign": order(f"Content-Length: +{len(ORDER)}"),
    "length: underscores": order("Content-Length: 1_0"),
    "length: no number": order("Content-Length: ten"),
    "length: empty": order("Content-Length:"),
    "length: a list": order(f"Content-Length: {len(ORDER)}, {len(ORDER)}"),
    "length: beyond 64 bits": order("Content-Length: 99999999999999999999"),
    "length: twice": order(LENGTH, LENGTH),
    "length: two": order("Content-Length: 5", LENGTH),
    "chunked and a length": order(CHUNKED, LENGTH, body=CHUNKS + SMUGGLED),
    "a length and chunked": order(LENGTH, CHUNKED, body=CHUNKS + SMUGGLED),
    "chunked: misspelt": order("Transfer-Encoding: xchunked", LENGTH, body=ORDER + SMUGGLED),
    "chunked: not alone": order("Transfer-Encoding: gzip, chunked", body=CHUNKS + SMUGGLED),
    "chunked: twice": order(CHUNKED, "Transfer-Encoding: identity", body=CHUNKS + SMUGGLED),
    "chunked in HTTP/1.0": order(CHUNKED, body=CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunk: no number": order(CHUNKED, body=b"zz\r\n" + ORDER + b"\r\n0\r\n\r\n" + SMUGGLED),
    "chunk: no number at all": order(CHUNKED, body=b"\r\n" + ORDER + b"\r\n0\r\n\r\n" + SMUGGLED),
    "chunk: negative": order(CHUNKED, body=b"-5\r\n" + ORDER + b"\r\n0\r\n\r\n" + SMUGGLED),
    "chunk: longer than said": order(CHUNKED, body=b"5\r\n" + CHUNKS[4:] + SMUGGLED),
    "chunk: bare LF": order(CHUNKED, body=CHUNKS.replace(b"\r\n", b"\n") + SMUGGLED),
    "chunk: huge": order(CHUNKED, body=b"f" * 17 + b"\r\n" + ORDER + SMUGGLED),
    "chunk: bad trailer": order(CHUNKED, body=CHUNKS[:-2] + b"\0: x\r\n\r\n" + SMUGGLED),
    "body shorter than said": order(f"Content-Length: {len(ORDER) + 100}"),
    "chunked body without its end": order(CHUNKED, body=CHUNKS[:-5]),
}


@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_refused_once_and_the_connection_closed(
    service: Service, sent: bytes
) -> None:
    refusal, *more = answers(exchange(service.port, sent, timeout=PATIENCE))
    assert_refused(refusal, 400, 505)
    assert json.loads(refusal.body)["code"] == "INVALID_REQUEST"
    assert refusal.closes
    assert not more


@pytest.mark.parametrize("chunks", [b"1\r\nx\r\n\r\n", b"zz\r\n", b"5\r\nx", b"0\r\n\0: x\r\n\r\n"])
def test_a_body_that_nobody_wants_ends_the_connection_where_it_cannot_be_skipped(
    service: Service, chunks: bytes
) -> None:
    sent = http("POST", "/nowhere", CHUNKED, body=chunks + SMUGGLED)
    assert statuses(exchange(service.port, sent, timeout=PATIENCE)) == [404]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (http("GET", "/" + "a" * MAX_LINE), 414),
        (http("GET", "/" + "a" * 1_000_000), 414),
        (http("GET", "/healthz", "X: " + "a" * MAX_HEAD_BYTES), 431),
        (http("GET", "/healthz", "X: " + "a" * 1_000_000), 431),
        (http("GET", "/healthz", *[f"X{n}: 1" for n in range(101)]), 431),
        (http("GET", "/healthz", *["X: 1"] * 10_000), 431),
    ],
    ids=[
        "long URI",
        "endless URI",
        "long header",
        "endless header",
        "101 headers",
        "X 10,000 times",
    ],
)
def test_what_is_too_large_is_refused(service: Service, sent: bytes, status: int) -> None:
    (refusal,) = answers(exchange(service.port, sent, timeout=PATIENCE))
    assert_refused(refusal, status)
    assert refusal.closes


@pytest.mark.parametrize(
    "sent",
    [
        order("Content-Length: 16385", body=b" " * 16385),
        order(CHUNKED, body=b"4001\r\n" + b" " * 16385 + b"\r\n0\r\n\r\n"),
        # What fits is an order; what follows it must not be lost silently.
        order(CHUNKED, body=b"%x\r\n%s\r\n1\r\nx\r\n0\r\n\r\n" % (16384, ORDER.ljust(16384))),
    ],
    ids=["with its length", "chunked", "chunked behind an order"],
)
def test_a_body_over_the_limit_is_refused_and_skipped(service: Service, sent: bytes) -> None:
    refusal, next_one = answers(exchange(service.port, sent + HEALTH, timeout=PATIENCE))
    assert_refused(refusal, 413)
    assert next_one.status == 200


# --- what can be read


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (order(LENGTH) * 3, [400] * 3),
        (order(CHUNKED, body=CHUNKS) + HEALTH, [400, 200]),
        (order(CHUNKED, body=CHUNKS[:-2] + b"Trailer: x\r\n\r\n") + HEALTH, [400, 200]),
        (order(LENGTH, body=b"") + ORDER + HEALTH, [400, 200]),
        (order(LENGTH, "Expect: 100-continue") + HEALTH, [400, 200]),
        (order(LENGTH, "Connection: upgrade", "Upgrade: websocket") + HEALTH, [400, 200]),
        (http("GET", "/healthz", "Content-Length: 5", body=b"hello") + HEALTH, [200, 200]),
        (order(LENGTH, "Connection: close") + HEALTH, [400]),
        (HEALTH.replace(b"HTTP/1.1", b"HTTP/1.0") + HEALTH, [200]),
        (http("GET", "http://shop/healthz") + HEALTH, [200, 200]),
        (http("GET", f"{PREFIX}/caf\xc3\xa9") + HEALTH, [404, 200]),
        (http("GET", "/%zz%00%ff?%00&a=\xff") + HEALTH, [404, 200]),
        (http("GET", "/healthz", "X: \xff\t~") + HEALTH, [200, 200]),
        (http("GET", "/healthz", "X_Forwarded_For: x", "Cookie: a", "Cookie: b"), [200]),
    ],
    ids=range(14),
)
def test_what_can_be_read_is_answered_in_order(
    service: Service, sent: bytes, expected: list[int]
) -> None:
    assert statuses(exchange(service.port, sent, timeout=PATIENCE)) == expected


def test_whoever_expects_to_be_told_to_continue_is_told(service: Service) -> None:
    with connected(service.port) as connection:
        connection.sendall(order(LENGTH, "Expect: 100-continue", body=b""))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ORDER + http("GET", "/healthz", "Connection: close"))
        assert statuses(received(connection, time.monotonic() + PATIENCE)) == [400, 200]


def test_a_body_too_large_is_refused_before_it_is_asked_for(service: Service) -> None:
    with connected(service.port) as connection:
        connection.sendall(order("Content-Length: 20000", "Expect: 100-continue", body=b""))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


# --- who is slow, or greedy, is not in the way of others


def drip(service: Service, sent: bytes) -> bytes:
    """Send the end of it byte by byte until the service has had enough; return its answer."""
    with connected(service.port) as connection:
        deadline = time.monotonic() + PATIENCE
        connection.sendall(sent[:-TAIL])
        for byte in sent[-TAIL:]:
            try:
                connection.sendall(bytes([byte]))
                connection.settimeout(0.5)
                answer = connection.recv(65536)
            except TimeoutError:
                assert time.monotonic() < deadline, "a slow request is held for ever"
                continue
            except OSError:
                return b""
            return answer + received(connection, deadline)
    raise AssertionError("all of it was sent before the service had enough")


TAIL = 500
SLOW = {
    "request line": HEALTH[:4] + b"/" * TAIL,
    "header": HEALTH[:-2] + b"X: " + b"a" * TAIL,
    "body": order("Content-Length: 5000", body=b" " * TAIL),
    "chunked body": order(CHUNKED, body=b"1000\r\n" + b" " * TAIL),
    "TLS hello without a line feed": b"\x16\x03\x01" + b"\x02" * TAIL,
}


def test_who_sends_too_slowly_is_cut_off_and_holds_nobody_up(
    service: Service, in_background: Callable[..., Future[bytes]]
) -> None:
    # All but the end of it is sent at once, and then nothing, or byte after byte.
    dripping = {name: in_background(drip, service, sent) for name, sent in SLOW.items()}
    silent = {
        name: in_background(
            exchange, service.port, sent[:-TAIL], timeout=PATIENCE, half_close=False
        )
        for name, sent in SLOW.items()
    }
    while not all(future.done() for future in [*dripping.values(), *silent.values()]):
        assert get(f"{service.url}/healthz", timeout=READ_SECONDS).status == 200
        time.sleep(0.1)
    for name, future in [*dripping.items(), *silent.items()]:
        (refusal,) = answers(future.result())
        assert_refused(refusal, 400 if "body" in name else 408)
        assert refusal.closes


def flood(service: Service, head: bytes, again: bytes, enough: Event) -> int:
    """Send as much as the service takes, and read as much as it answers; count the connections."""
    connections = 0
    while not enough.is_set():
        connections += 1
        with suppress(ConnectionError), connected(service.port, timeout=PATIENCE) as connection:
            connection.sendall(head)
            connection.setblocking(False)
            sent = 0
            while not enough.is_set():
                with suppress(BlockingIOError):
                    connection.recv(1 << 20)
                with suppress(BlockingIOError):
                    sent += connection.send(again[sent % len(again) :])
    return connections


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"", HEALTH * 1000),
        (b"", order(LENGTH, body=b"x" * len(ORDER)) * 500),
        (order(f"Content-Length: {10**12}", body=b""), b" " * 1_000_000),
        (order(CHUNKED, body=b""), b"1\r\nx\r\n" * 10_000),
    ],
    ids=["pipeline", "pipeline of orders", "endless body", "endless chunks"],
)
def test_who_sends_without_end_gives_others_their_turn(
    service: Service, in_background: Callable[..., Future[int]], head: bytes, again: bytes
) -> None:
    enough = Event()
    flooding = in_background(flood, service, head, again, enough)
    try:
        time.sleep(0.3)
        for _ in range(6):
            assert get(f"{service.url}/healthz", timeout=PATIENCE).status == 200
    finally:
        enough.set()
    # Without a turn there would be one answer for each of them, when it is cut off.
    assert flooding.result() <= 3


def send_without_reading(connection: socket.socket) -> None:
    while True:
        connection.sendall(http("GET", "/openapi.json") * 100)


def test_who_does_not_read_is_not_waited_for_by_others(service: Service) -> None:
    with connected(service.port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            send_without_reading(connection)
        assert get(f"{service.url}/healthz").status == 200


def test_clients_that_go_away_at_any_byte_leave_nothing_behind(service: Service) -> None:
    sent = order(LENGTH)
    for end in range(0, len(sent), 3):
        with connected(service.port) as connection:
            connection.sendall(sent[:end])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
    assert get(f"{service.url}/healthz").status == 200


def test_a_thousand_bad_inputs_are_refused(service: Service) -> None:
    outcomes, workers = Outcomes(), service.worker_pids()
    assert len(list(try_all(service, 20260101, range(1000), outcomes))) == 1000
    check_worker(service, workers, outcomes)
    assert outcomes.wrong == []
    assert len(outcomes.kinds) == len(KINDS)
