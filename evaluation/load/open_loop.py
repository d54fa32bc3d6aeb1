"""The open-loop generator: requests are sent when they are due, whether or not answers come.

A closed loop waits for the server, and so a server that stalls is asked less while it stalls, and
looks better than it is ("coordinated omission"). Here a request that is due and finds no free
connection waits, and its wait counts. Without a rate all requests are due as soon as a connection
is free: a closed loop. Runs in a process of its own; raw sockets, because it shares the cores with
what it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from evaluation.load import FRESH_USER, RESULT

NO_ANSWER = "no answer"
CONNECT_SECONDS = 10.0
HEADER_END = b"\r\n\r\n"


@dataclass(slots=True)
class Record:
    """One line for each request, in microseconds from the start, and the outcome's number."""

    due: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    outcome: list[int] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, due: float, sent: float, ended: float, outcome: str) -> None:
        """Add a request; times in seconds."""
        self.due.append(int(due * 1e6))
        self.sent.append(int(sent * 1e6))
        self.ended.append(int(ended * 1e6))
        self.outcome.append(self.outcomes.setdefault(outcome, len(self.outcomes)))


class Connection(asyncio.Protocol):
    """A connection that is kept alive, with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.due: float | None = None
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready for the first request."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, due: float, message: bytes) -> None:
        """Send a request that was due at that time."""
        assert self._transport is not None  # noqa: S101 - it is connected before it is used
        self.due, self.sent, self._received = due, self._load.now(), b""
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        """Report the answer once it is whole."""
        self._received += data
        outcome = read_answer(self._received)
        if outcome is not None and self.due is not None:
            due, self.due = self.due, None
            self._load.answered(self, due, outcome)

    def connection_lost(self, _error: Exception | None) -> None:
        """Report the request that was under way, if one was."""
        self._load.lost(self)


class Load:
    """The requests of a run: which is due when, on which connection, and what came of it."""

    def __init__(self, messages: Iterator[bytes], count: int, rate: float | None) -> None:
        self.record = Record()
        self._messages = messages
        self._count = count
        self._rate = rate
        self._taken = 0
        self._open: set[Connection] = set()
        # Taken from the front and given back at the end: every connection is used in turn.
        self._free: deque[Connection] = deque()
        self._overdue: deque[float] = deque()
        self._loop = asyncio.get_running_loop()
        self._start = 0.0
        self._done = asyncio.Event()

    def now(self) -> float:
        """Return the seconds since the start."""
        return self._loop.time() - self._start

    async def connect(self, host: str, port: int) -> None:
        """Open one more connection."""
        _, connection = await self._loop.create_connection(lambda: Connection(self), host, port)
        self._open.add(connection)
        self._free.append(connection)

    async def run(self, drain: float) -> float:
        """Send all requests; wait `drain` seconds for the last answers; return the seconds."""
        self._start = self._loop.time()
        if self._rate is None:
            self._overdue.extend([0.0] * self._count)
            self._taken = self._count
            self._send_overdue()
        else:
            await self._offer(self._rate)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), drain)
        self._give_up()
        return self.now()

    async def _offer(self, rate: float) -> None:
        while self._taken < self._count:
            while self._taken < self._count and self._taken / rate <= self.now():
                self._overdue.append(self._taken / rate)
                self._taken += 1
            self._send_overdue()
            await asyncio.sleep(max(0.0, self._taken / rate - self.now()))

    def _send_overdue(self) -> None:
        while self._free and self._overdue:
            due = self._overdue.popleft()
            # In a closed loop nothing is due before its connection is free.
            due = self.now() if self._rate is None else due
            self._free.popleft().send(due, next(self._messages))

    def answered(self, connection: Connection, due: float, outcome: str) -> None:
        """Note an answer, and use the connection for what is due."""
        self.record.add(due, connection.sent, self.now(), outcome)
        self._free.append(connection)
        self._send_overdue()
        self._finish_when_all_ended()

    def lost(self, connection: Connection) -> None:
        """Note that a connection has ended, with or without a request under way."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.due is not None:
            self.record.add(connection.due, connection.sent, self.now(), NO_ANSWER)
            connection.due = None
        self._finish_when_all_ended()

    def _finish_when_all_ended(self) -> None:
        if len(self.record.due) >= self._count or not self._open:
            self._done.set()

    def _give_up(self) -> None:
        """Note what has no answer yet, and what was never sent: nothing is left out."""
        now = self.now()
        for connection in self._open:
            if connection.due is not None:
                self.record.add(connection.due, connection.sent, now, NO_ANSWER)
                connection.due = None
        for due in self._overdue:
            self.record.add(due, now, now, NO_ANSWER)
        self._overdue.clear()


def read_answer(received: bytes) -> str | None:
    """Return status and machine code of an answer, such as `400 EXPIRED`; None if not whole."""
    head, found, body = received.partition(HEADER_END)
    if not found or len(body) < _content_length(head):
        return None
    status = head[9:12].decode()
    _, refused, said = body.rpartition(b'"code":"')
    code = said.partition(b'"')[0].decode()
    return f"{status} {code}" if refused else status


def _content_length(head: bytes) -> int:
    _, _, value = head.lower().partition(b"content-length:")
    return int(value.partition(b"\r\n")[0] or 0)


def messages(lines: Sequence[str], url: str, prefix: str) -> Iterator[bytes]:
    """Make the requests of `operation body` lines in turn for ever, each with a fresh user."""
    whole = [request_message(url, *line.split(" ", 1)) for line in lines]
    placeholder = FRESH_USER.encode()
    for user, message in enumerate(cycle(whole), 1):
        yield message.replace(placeholder, f"{prefix}{user:012x}".encode())


def request_message(url: str, operation: str, body: str) -> bytes:
    """Write a POST of JSON to an operation below the URL."""
    # A user's id is as long as its placeholder, so the length stays right.
    target, sent = urlsplit(url), body.encode()
    return (
        f"POST {target.path}/{operation} HTTP/1.1\r\nHost: {target.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    ).encode() + sent


async def _run(asked: dict[str, Any], lines: Sequence[str]) -> dict[str, Any]:
    target = urlsplit(asked["url"])
    load = Load(messages(lines, asked["url"], asked["prefix"]), asked["requests"], asked["rate"])
    async with asyncio.timeout(CONNECT_SECONDS):
        for _ in range(asked["connections"]):
            await load.connect(target.hostname or "", target.port or 80)
    seconds = await load.run(asked["drain"])
    record = load.record
    return {
        "seconds": seconds,
        "due": record.due,
        "sent": record.sent,
        "ended": record.ended,
        "outcome": record.outcome,
        "outcomes": list(record.outcomes),
    }


def main(arguments: Sequence[str]) -> None:
    """Offer what the JSON on the command line asks for, and print the record."""
    asked = json.loads(arguments[0])
    lines = Path(asked["bodies"]).read_text().splitlines()
    result = asyncio.run(_run(asked, lines))
    sys.stdout.write(RESULT + json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
