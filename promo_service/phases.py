"""Where the time of a request goes: what its batch notes, and the log shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct, field


class Phases(Struct):
    """The seconds that a request waited for the batch that it was in last, and that batch's own.

    `queue` is None before there was one. The batch's are read, take, record and replay, as far as
    it has come: all its requests share them.
    """

    queue: float | None = None
    batch: Mapping[str, float] = field(default_factory=dict)


# Of the request that this greenlet serves.
phases: ContextVar[Phases | None] = ContextVar("phases", default=None)


@contextmanager
def timed(batch: MutableMapping[str, float], phase: str) -> Iterator[None]:
    """Note how long the block takes, whether or not it succeeds."""
    started = time.monotonic()
    try:
        yield
    finally:
        batch[phase] = time.monotonic() - started
