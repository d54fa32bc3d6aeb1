"""Faults that mongod produces on demand, in the commands of the service and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient

Document = dict[str, Any]

APP_NAME = "promo-service"  # as the service introduces itself to mongod
# A write that was applied, and is not known to have reached a majority; no driver repeats it.
NOT_ON_MAJORITY = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "timed out waiting"}


class FailPoint:
    """A fail point that is on; how often it has been hit is counted by mongod."""

    def __init__(self, client: MongoClient[Document], name: str, hits_before: int) -> None:
        self._client = client
        self._name = name
        self._hits_before = hits_before

    def wait_until_hit(self, times: int = 1, *, timeout: float = 10) -> None:
        """Return when it was hit so often since it is on; raises ExecutionTimeout otherwise."""
        self._client.admin.command(
            "waitForFailPoint",
            self._name,
            timesEntered=self._hits_before + times,
            maxTimeMS=int(timeout * 1000),
        )


@contextmanager
def fail_point(
    client: MongoClient[Document], name: str, *, times: int | None = None, **data: object
) -> Iterator[FailPoint]:
    """Turn a fail point of mongod on inside the `with`, for its first `times` hits or all."""
    mode: object = "alwaysOn" if times is None else {"times": times}
    turn_on = {"configureFailPoint": name, "mode": mode, "data": data}
    hits_before = client.admin.command(turn_on)["count"]
    try:
        yield FailPoint(client, name, hits_before)
    finally:
        client.admin.command({"configureFailPoint": name, "mode": "off"})


@contextmanager
def failing(
    client: MongoClient[Document],
    commands: str | Sequence[str],
    *,
    times: int | None = None,
    blocked_for: float = 0,
    **failure: object,
) -> Iterator[FailPoint]:
    """Fail the service's `commands`, after they were held back for `blocked_for` seconds.

    Without a `failure` they are only held back. `closeConnection` and `errorCode` keep a command
    from being run, `writeConcernError` spoils the answer of one that was.
    """
    names = [commands] if isinstance(commands, str) else list(commands)
    if blocked_for:
        failure |= {"blockConnection": True, "blockTimeMS": int(blocked_for * 1000)}
    with fail_point(
        client, "failCommand", times=times, failCommands=names, appName=APP_NAME, **failure
    ) as point:
        yield point
