"""Very many clients who order at one or more services, come what may, and keep what they saw."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.history import Attempt, Outcome
from tests.support.orders import Order
from tests.support.service import PREFIX

# A client gives up waiting for an answer well after the service must have given one.
ANSWER_SECONDS = 8.0
PAUSE_SECONDS = (0.02, 0.4)


@dataclass
class Crowd:
    """Clients who take orders from one stream; each repeats his until he knows what became of it.

    An order without an id is not repeated: that could be a second use.
    """

    ports: Sequence[int]
    orders: Iterator[Order]
    clients: int
    seed: int
    repeats: int = 8
    attempts: deque[Attempt] = field(default_factory=deque)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        """Start ordering, in a thread."""
        self._running = self._thread.submit(lambda: asyncio.run(self._run()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no more orders, and wait for the answers to those that were taken."""
        self._over.set()
        self._thread.shutdown()
        self._running.result()

    def wait(self) -> None:
        """Return when there are no more orders."""
        self._running.result()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(self.clients):
                clients.create_task(self._client(random.Random(f"{self.seed} {number}")))

    async def _client(self, rng: random.Random) -> None:
        connection = Connection(rng.choice(self.ports))
        for order in self.orders:
            for _ in range(self.repeats):
                attempt = await connection.ask(order)
                self.attempts.append(attempt)
                if attempt.outcome is not Outcome.UNKNOWN or order.order is None:
                    break
                connection.close()
                connection = Connection(rng.choice(self.ports))
                await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
            if self._over.is_set():
                break
        connection.close()


class Connection:
    """One client's connection to one service, opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, order: Order) -> Attempt:
        """Send an order and return what became of it."""
        start = time.time()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status, headers, body = await self._exchange(order.body())
        except (OSError, EOFError, TimeoutError):
            self.close()
            return order.unanswered(start, time.time())
        if b"connection: close" in headers.lower():
            self.close()
        replayed = b"idempotent-replayed: true" in headers.lower()
        return order.answered(status, body, start, time.time(), replayed=replayed)

    async def _exchange(self, payload: bytes) -> tuple[int, bytes, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = (
            f"POST {PREFIX}/apply HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        writer.write(head.encode() + payload)
        headers = await reader.readuntil(b"\r\n\r\n")
        lowered = headers.lower()
        size = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0])
        return int(headers.split()[1]), headers, await reader.readexactly(size)

    def close(self) -> None:
        """Close the connection; the next order opens another one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def settle(ports: Sequence[int], orders: Sequence[Order], seed: int) -> list[Attempt]:
    """Send orders one by one for each client, and return every attempt, when all are answered."""
    with Crowd(ports, iter(orders), clients=8, seed=seed) as crowd:
        crowd.wait()
    return list(crowd.attempts)
