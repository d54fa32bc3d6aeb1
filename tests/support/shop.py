"""A shop in business: applies with an order each, over connections that stay open."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit

from tests.support.documents import user

# Some hundred requests a second: enough that there are always some under way.
TILLS = 8
SECONDS_BETWEEN_ORDERS = 0.04
# After this many it closes, so that a test that never ends it does end.
MOST_ORDERS = 20_000
MOST_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Sold:
    """One order and the answers to it, of which only the last is no 503; 0 where none came."""

    order_id: str
    statuses: tuple[int, ...]
    text: str


class Shop:
    """Customers who never come twice, at tills that work side by side.

    An order that is answered 503 is repeated after the time that the answer names.
    """

    def __init__(self, url: str, code: str) -> None:
        self._url = urlsplit(url)
        self._code = code
        # Both are safe to share between threads: one step of either is one step.
        self._numbers = itertools.count()
        self.sold: list[Sold] = []
        self._closing = threading.Event()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Sell while the `with` runs."""
        tills = [threading.Thread(target=self._sell) for _ in range(TILLS)]
        for till in tills:
            till.start()
        try:
            yield
        finally:
            self._closing.set()
            for till in tills:
                till.join()

    def wait_for(self, orders: int, timeout: float = 60) -> None:
        """Return when so many more orders are finished than now."""
        wanted, deadline = len(self.sold) + orders, time.monotonic() + timeout
        while len(self.sold) < wanted:
            assert time.monotonic() < deadline, f"{len(self.sold)} of {wanted} orders in time"
            time.sleep(0.01)

    def failed(self) -> list[Sold]:
        """Return the orders that were not answered 200 in the end."""
        return [sold for sold in self.sold if sold.statuses[-1] != 200]

    def repeated(self) -> list[Sold]:
        """Return the orders that were not answered at once."""
        return [sold for sold in self.sold if len(sold.statuses) > 1]

    def _sell(self) -> None:
        connection = HTTPConnection(self._url.hostname or "", self._url.port, timeout=60)
        try:
            while not self._closing.wait(SECONDS_BETWEEN_ORDERS):
                number = next(self._numbers)
                if number >= MOST_ORDERS:
                    return
                self.sold.append(self._order(connection, number))
        finally:
            connection.close()

    def _order(self, connection: HTTPConnection, number: int) -> Sold:
        order = {"userId": user(number), "orderId": f"order-{number}"}
        payload = json.dumps({"code": self._code, "orderAmount": 100, **order})
        statuses: list[int] = []
        while True:
            try:
                answer, text = self._ask(connection, payload)
            except (OSError, HTTPException) as error:
                connection.close()
                return Sold(order["orderId"], (*statuses, 0), repr(error))
            statuses.append(answer.status)
            if answer.status != 503 or len(statuses) == MOST_ATTEMPTS:
                return Sold(order["orderId"], tuple(statuses), text)
            time.sleep(float(answer.headers["Retry-After"]))

    def _ask(self, connection: HTTPConnection, payload: str) -> tuple[HTTPResponse, str]:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", self._url.path + "/apply", payload, headers)
        answer = connection.getresponse()
        return answer, answer.read().decode()
