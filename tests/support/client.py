"""An HTTP client for tests: one request at a time, or very many at the same moment."""

from __future__ import annotations

import asyncio
import io
import json
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """One request; a body that is not bytes is sent as JSON, None as no body at all."""

    url: str
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; `seconds` is counted from when the request was sent."""

    status: int
    headers: HTTPMessage
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        """The body as text, byte for byte what was sent."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body read as JSON; raises ValueError when it is none, as an HTML page is."""
        return json.loads(self.body)


def get(url: str, headers: Mapping[str, str] | None = None, *, timeout: float = 30) -> Response:
    """Send one GET."""
    return send(Request(url, None, headers or {}, "GET"), timeout=timeout)


def post(
    url: str, body: object, headers: Mapping[str, str] | None = None, *, timeout: float = 30
) -> Response:
    """Send one POST."""
    return send(Request(url, body, headers or {}), timeout=timeout)


def send(request: Request, *, timeout: float = 30) -> Response:
    """Send one request on a connection of its own."""
    parts, payload = urlsplit(request.url), _payload(request.body)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        started = time.perf_counter()
        connection.request(request.method, _target(request.url), payload, _headers(request))
        return _read(connection.getresponse(), started)
    finally:
        connection.close()


def fire(
    requests: Iterable[Request | tuple[str, object]],
    concurrency: int | None = None,
    *,
    timeout: float = 100,
) -> list[Response]:
    """Send requests at the same moment, each on its own connection; answers in their order.

    All connections are open before the first byte is sent. With `concurrency` that many requests
    are sent in this way, and each further one as soon as one has been answered.
    """
    wanted = [r if isinstance(r, Request) else Request(*r) for r in requests]
    parties = min(concurrency or len(wanted), len(wanted))
    _allow_connections(parties)
    return asyncio.run(asyncio.wait_for(_fire(wanted, parties), timeout)) if wanted else []


async def _fire(requests: list[Request], parties: int) -> list[Response]:
    answers: dict[int, Response] = {}
    start = asyncio.Barrier(parties)
    # Shared by all clients: each takes the next one. There is no switch point in `next`.
    waiting = iter(enumerate(requests))
    async with asyncio.TaskGroup() as clients:
        for _ in range(parties):
            clients.create_task(_client(waiting, start, answers))
    return [answers[index] for index in range(len(requests))]


async def _client(
    waiting: Iterator[tuple[int, Request]], start: asyncio.Barrier, answers: dict[int, Response]
) -> None:
    first = True
    for index, request in waiting:
        parts = urlsplit(request.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            message = _message(request)
            if first:
                await start.wait()
                first = False
            started = time.perf_counter()
            writer.write(message)
            answers[index] = _parse(await reader.read(), request.method, started)
        finally:
            writer.close()
            await writer.wait_closed()


def _message(request: Request) -> bytes:
    """Return the request as it goes over the wire; the server is to close the connection."""
    payload = _payload(request.body)
    headers = _headers(request) | {
        "Host": urlsplit(request.url).netloc,
        "Content-Length": str(len(payload or b"")),
        "Connection": "close",
    }
    lines = [f"{request.method} {_target(request.url)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (payload or b"")


def _parse(received: bytes, method: str, started: float) -> Response:
    response = HTTPResponse(_Received(received), method=method)  # type: ignore[arg-type] # reads only
    response.begin()
    return _read(response, started)


def _read(response: HTTPResponse, started: float) -> Response:
    body = response.read()
    return Response(response.status, response.headers, body, time.perf_counter() - started)


def _payload(body: object) -> bytes | None:
    return body if body is None or isinstance(body, bytes) else json.dumps(body).encode()


def _headers(request: Request) -> dict[str, str]:
    kind = {} if request.body is None else {"Content-Type": "application/json"}
    return kind | dict(request.headers)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _allow_connections(count: int) -> None:
    # The usual soft limit is 1024 open files, and a thousand requests are a thousand connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _Received:
    """A socket that has received everything already, as far as HTTPResponse needs one."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        """Return the data as a file."""
        return io.BytesIO(self._data)
