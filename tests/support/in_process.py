"""The service in this process: what is asked together goes to the database as one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from flask import Flask
from pymongo import MongoClient

from promo_service import database as db
from promo_service import redeem
from promo_service.app import create_app
from promo_service.batcher import Batcher
from promo_service.settings import Settings
from tests.support.history import Attempt
from tests.support.orders import Order
from tests.support.service import PREFIX

Document = dict[str, Any]


class Gathering(Batcher[Any, Any, Any]):
    """Runs no batch before everybody who asks at the same moment has joined it."""

    def _lead(self) -> None:
        self._start_lane()


class InProcess:
    """One application. Nothing is patched, so that a command at mongod holds everything up."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def ask(self, orders: Sequence[Order]) -> list[Attempt]:
        """Send orders at the same moment and return what became of each."""
        asked = [gevent.spawn(self._ask, order) for order in orders]
        gevent.joinall(asked, raise_error=True)
        return [one.value for one in asked]

    def _ask(self, order: Order) -> Attempt:
        start = time.time()
        answer = self._app.test_client().post(
            f"{PREFIX}/apply", data=order.body(), content_type="application/json"
        )
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        return order.answered(
            answer.status_code, answer.data, start, time.time(), replayed=replayed
        )


@contextmanager
def in_process(uri: str, database: str, timeout: float) -> Iterator[InProcess]:
    """Run an application whose requests have `timeout` seconds."""
    clients: list[MongoClient[Document]] = []

    def kept(*args: Any, **options: Any) -> MongoClient[Document]:
        clients.append(MongoClient(*args, **options))
        return clients[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "MongoClient", kept)
        patch.setattr(redeem, "Batcher", Gathering)
        settings = Settings(uri, database, request_timeout_ms=int(timeout * 1000))
        app = create_app(settings)
    try:
        yield InProcess(app)
    finally:
        for client in clients:
            client.close()
