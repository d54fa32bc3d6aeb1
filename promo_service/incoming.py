"""What a client sends: in its time, and as its header said."""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import Any

import gevent
from gevent.pywsgi import Input
from gevent.socket import wait

# From the first byte of a request to its last. Who is slower could hold a connection for ever.
READ_SECONDS = 10
# Head and body often come apart. After that, others get a turn between any two pieces: a client
# that sends as fast as the service reads never lets it wait, and only waiting lets others run.
PIECES_AT_ONCE = 2


class Incoming(io.RawIOBase):
    """What a client sends; a request that has begun must be complete within READ_SECONDS."""

    def __init__(self, connection: Any) -> None:
        self._socket = connection
        # Its methods never switch to another greenlet, and leave who waits in gevent's alone.
        self._system_socket = connection._sock  # noqa: SLF001 - there is no other way to it
        # Since when nothing of a request is here; whether none is wanted; whether none is taken.
        self._idle_since: float | None = None
        self._ending = self._ended = False

    def expect(self, reader: io.BufferedReader) -> bool:
        """Wait for another request; return False when there is none. Raises as readinto does."""
        self._deadline: float | None = None
        self._pieces = 0
        self._idle_since = time.monotonic()
        try:
            return reader.peek(1) != b""
        finally:
            self._idle_since = None

    def end(self) -> None:
        """Expect no request but what has arrived by now; one that has begun goes on."""
        self._ending = True
        self.end_if_idle(0)

    def end_if_idle(self, seconds: float) -> None:
        """Expect no request any more if nothing has come for so many seconds."""
        since = self._idle_since
        if since is None or time.monotonic() - since < seconds or self._has_arrived():
            return
        self._ended = True
        with suppress(OSError):
            self._system_socket.shutdown(socket.SHUT_RD)  # ends the waiting

    def _has_arrived(self) -> bool:
        try:
            return bool(self._system_socket.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing has, or the client has gone
            return False

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
        if self._idle_since is not None and self._ending and not self._has_arrived():
            return 0
        # Mostly nothing is there yet. And without a limit, which would take a timer for each
        # request: whoever keeps the connections ends those that are idle for too long.
        wait(self._socket._read_event)  # noqa: SLF001 - gevent makes one for each socket
        received: int = self._socket.recv_into(buffer)
        if self._ended:
            return 0
        self._deadline = time.monotonic() + READ_SECONDS
        return received

    def _continue(self, buffer: Any) -> int:
        left = (self._deadline or 0) - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._pieces += 1
        if self._pieces >= PIECES_AT_ONCE:
            gevent.sleep(0)
        usual = self._socket.timeout
        self._socket.settimeout(left)
        try:
            received: int = self._socket.recv_into(buffer)
        finally:
            self._socket.settimeout(usual)
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
