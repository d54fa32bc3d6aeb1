"""The service with windows in it: what its process holds, and a fault if one is asked for.

Only the evaluation runs it; the service itself knows nothing of it.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import gevent
import greenlet  # type: ignore[import-untyped]  # it has no types, and nobody publishes any
from pymongo import monitoring

from promo_service import app as composition
from promo_service.claims import Claim, Claimant
from promo_service.database import connect
from promo_service.settings import Settings

INTERNALS = "/evaluation/internals"

Start = Callable[..., Any]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


@dataclass(slots=True)
class PoolUse:
    """What the driver's pool has seen; the pools of one process together."""

    in_use: int = 0
    most_in_use: int = 0
    # Operations that found as many connections in use as the pool may have.
    waited: int = 0
    failed: int = 0


class PoolListener(monitoring.ConnectionPoolListener):
    """Counts what happens in a pool; the driver calls it for each command."""

    def __init__(self, use: PoolUse, size: int) -> None:
        self._use = use
        self._size = size

    def connection_check_out_started(self, _event: object) -> None:
        """Count an operation that has to wait for another one to end."""
        self._use.waited += self._use.in_use >= self._size

    def connection_checked_out(self, _event: object) -> None:
        """Count a connection as in use."""
        self._use.in_use += 1
        self._use.most_in_use = max(self._use.most_in_use, self._use.in_use)

    def connection_checked_in(self, _event: object) -> None:
        """Count a connection as free."""
        self._use.in_use -= 1

    def connection_check_out_failed(self, _event: object) -> None:
        """Count an operation that got no connection: a pool error or a wait-queue timeout."""
        self._use.failed += 1

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        """Learn how large the pool may be; the driver tells what is not its default."""
        self._size = event.options["maxPoolSize"]

    def _ignore(self, _event: object) -> None:
        """Not of interest."""

    # The driver names the argument `event` in each of them, and passes it by position.
    pool_ready = pool_cleared = pool_closed = _ignore  # type: ignore[assignment]
    connection_created = connection_ready = _ignore  # type: ignore[assignment]
    connection_closed = _ignore  # type: ignore[assignment]


def create_app(
    *,
    leaked_bytes: int = 0,
    slept_seconds: float = 0.0,
    pool_size: int | None = None,
    guarded: bool = True,
) -> App:
    """Build the service from the environment, and wrap it; admin operations need no token.

    Faults can be planted: each request leaves an object of `leaked_bytes` behind, or sleeps first;
    the pool has another size than the service counts on; uses are taken whatever is left.
    """
    settings = replace(Settings.from_env(), trust_upstream_auth=True)
    use = PoolUse()
    monitoring.register(PoolListener(use, settings.max_pool_size))
    if not guarded:
        _remove_guard()
    with _pool_of(pool_size):
        service = composition.create_app(settings)
    kept: list[bytes] = []
    # An empty bytes object is 33 bytes, and the list keeps 8 for each.
    padding = max(0, leaked_bytes - 33 - 8)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == INTERNALS:
            known = str(os.getpid()) in environ["QUERY_STRING"].split(",")
            return _show({} if known else _held(use), start_response)
        if leaked_bytes:
            kept.append(bytes(bytearray(padding)))
        if slept_seconds and environ["PATH_INFO"].startswith(settings.url_prefix):
            gevent.sleep(slept_seconds)
        answer: Iterable[bytes] = service(environ, start_response)
        return answer

    return app


@contextmanager
def _pool_of(size: int | None) -> Iterator[None]:
    """Let the service connect with a pool of that size, which it knows nothing of."""
    if size is None:
        yield
        return
    smaller = partial(_connect_with, size)
    with mock.patch.object(composition, "connect", smaller):
        yield


def _connect_with(size: int, uri: str, **options: Any) -> Any:
    return connect(uri, **{**options, "pool_size": size})


def _remove_guard() -> None:
    """Take uses whatever has happened since they were read, and however few are left."""
    take_all = Claimant.take_all

    def take_blindly(self: Claimant, claim: Claim, *rest: Any) -> Any:
        _query, update = take_all(self, claim, *rest)
        return {"_id": claim.promo_id}, update

    Claimant.take_all = take_blindly  # type: ignore[method-assign, assignment]


def _held(use: PoolUse) -> dict[str, Any]:
    # What is garbage is no leak: it must not look like one.
    gc.collect()
    # One that has ended is memory at most, and counts there.
    greenlets = sum(isinstance(o, greenlet.greenlet) and not o.dead for o in gc.get_objects())
    return {"greenlets": greenlets, "pool": asdict(use)}


def _show(held: dict[str, Any], start_response: Start) -> list[bytes]:
    body = json.dumps({"pid": os.getpid(), **held}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", [*headers, ("Connection", "close")])
    return [body]
