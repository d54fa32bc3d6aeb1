"""What a client sends: in its time, and as its header said."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from typing import Any

import gevent
from gevent.pywsgi import Input

# From the first byte of a request to its last. Who is slower could hold a connection for ever.
READ_SECONDS = 10
# Head and body often come apart. After that, others get a turn between any two pieces: a client
# that sends as fast as the service reads never lets it wait, and only waiting lets others run.
PIECES_AT_ONCE = 2


class Incoming(io.RawIOBase):
    """What a client sends; a request that has begun must be complete within READ_SECONDS."""

    def __init__(self, socket: Any, idle_seconds: float) -> None:
        self._socket = socket
        self._idle_seconds = idle_seconds
        socket.settimeout(idle_seconds)
        self.begin()

    def begin(self) -> None:
        """Expect another request."""
        self._deadline: float | None = None
        self._pieces = 0

    @property
    def begun(self) -> bool:
        """Whether something was received since the request was expected."""
        return self._deadline is not None

    def readable(self) -> bool:
        """Tell that this can be read, as io.BufferedReader asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive a piece; raises TimeoutError when the client is too slow."""
        if self._deadline is not None:
            return self._continue(buffer)
        received: int = self._socket.recv_into(buffer)
        self._deadline = time.monotonic() + READ_SECONDS
        return received

    def _continue(self, buffer: Any) -> int:
        left = (self._deadline or 0) - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._pieces += 1
        if self._pieces >= PIECES_AT_ONCE:
            gevent.sleep(0)
        self._socket.settimeout(left)
        try:
            received: int = self._socket.recv_into(buffer)
        finally:
            self._socket.settimeout(self._idle_seconds)
        return received


class Body(Input):  # type: ignore[misc]
    """The body of a request; when it cannot be read, nothing after it can."""

    broken = False

    def read(self, length: int | None = None) -> bytes:
        """Read from the body; raises OSError or ValueError when it is not as its header said."""
        try:
            data: bytes = super().read(length)
        except (OSError, ValueError):
            self.broken = True
            raise
        return data

    def _discard(self) -> None:
        if not self.broken:
            with suppress(OSError, ValueError):
                super()._discard()
