"""The gunicorn worker: gevent's own WSGI server, with what a checkout needs of it.

Cheaper per request than gunicorn's plain gevent worker: an answer is sent with one system call, and
the head of a request is read by http1, strictly, in a quarter of the time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import gevent
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer

from promo_service import http1
from promo_service.http1 import RefusedHead
from promo_service.incoming import Body, Incoming
from promo_service.wire import render_error

# An idle connection is closed after this. Longer than the 60 s of nginx and of most balancers: the
# side that sends the next request must be the one that closes.
IDLE_SECONDS = 65
# How often they are looked for: an idle connection may last that much longer.
LOOK_SECONDS = 5
# A client that takes nothing of an answer for so long is given up.
SEND_SECONDS = 65


class Handler(PyWSGIHandler):  # type: ignore[misc]
    """One connection, and the requests on it one after the other."""

    # A client that has stopped reading is no more of an error than one that has gone.
    ignored_socket_errors = (*PyWSGIHandler.ignored_socket_errors, "timed out")

    _held: bytearray | None = None
    close_connection: bool

    def __init__(self, socket: Any, address: Any, server: Any) -> None:
        socket.settimeout(SEND_SECONDS)
        self._incoming = Incoming(socket)
        super().__init__(socket, address, server, rfile=io.BufferedReader(self._incoming))

    def handle(self) -> None:
        """Serve the connection until either side closes it or it is silent for too long."""
        # OSError: the client has gone while it was told what was wrong.
        with self.server.serving(self._incoming), suppress(OSError):
            super().handle()

    def handle_one_request(self) -> tuple[str, bytes] | bool | None:
        """Answer one request; return an answer to send before closing, True to go on, or None."""
        try:
            if not self._incoming.expect(self.rfile):
                return None
            self._read_head()
        except RefusedHead as refused:
            return _refusal(refused.status, refused.error, "INVALID_REQUEST")
        except TimeoutError:
            if not self._incoming.begun:
                return None
            error = "The request came too slowly"
            return _refusal("408 Request Timeout", error, "REQUEST_TIMEOUT")
        except OSError:
            return None
        self.environ = self.get_environ()
        self.application = self.server.application
        self.handle_one_response()
        return None if self.close_connection or self.wsgi_input.broken else True

    def _read_head(self) -> None:
        line = self.rfile.readline(http1.MAX_LINE + 1)
        if not self._incoming.begun:
            # Sent ahead, with an earlier one: without a wait, others would have no turn.
            gevent.sleep(0)
        self.command, self.path, version = http1.parse_request_line(line)
        self.request_version = "HTTP/" + version
        self._fields = http1.read_fields(self.rfile.readline)
        self.content_length = http1.body_length(self._fields, version)
        self.close_connection = not http1.keeps_alive(self._fields, version)

    def get_environ(self) -> dict[str, Any]:
        """Return the WSGI environment of the request."""
        environ: dict[str, Any] = self.server.get_environ()
        path, _, environ["QUERY_STRING"] = self.path.partition("?")
        environ["PATH_INFO"] = unquote(path, "latin-1") if "%" in path else path
        environ["REQUEST_METHOD"] = self.command
        environ["SERVER_PROTOCOL"] = self.request_version
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"] = self.client_address[0]
        environ.update(self._fields)
        self.wsgi_input = environ["wsgi.input"] = Body(
            self.rfile,
            self.content_length,
            self.socket if environ.get("HTTP_EXPECT", "").lower() == "100-continue" else None,
            chunked_input="HTTP_TRANSFER_ENCODING" in environ,
        )
        environ["wsgi.input_terminated"] = True
        return environ

    def finalize_headers(self) -> None:
        """Say that the connection ends when the worker does, so that no request is lost in it."""
        super().finalize_headers()
        if (self.server.closed or self.wsgi_input.broken) and not self.close_connection:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))

    def log_request(self) -> None:
        """Write nothing: the balancer has an access log, and here it costs CPU."""

    def _write_with_headers(self, data: bytes) -> None:
        self._held = bytearray()
        try:
            super()._write_with_headers(data)
        finally:
            held, self._held = self._held, None
        self._sendall(held)

    def _sendall(self, data: bytes | bytearray) -> None:
        if self._held is not None:
            self._held += data
            return
        try:
            # Nearly every answer goes at once. gevent's way asks the system for the size of the
            # buffer before, each time.
            sent = self.socket._sock.send(data)  # noqa: SLF001 - as in Incoming
        except OSError:
            sent = 0  # gevent's way waits, or says what is wrong
        self.response_length += sent
        if sent < len(data):
            super()._sendall(memoryview(data)[sent:])

    def _send_error_response_if_possible(self, _error_code: int) -> None:
        if self.response_length:
            self.close_connection = True
            return
        body = render_error("Internal server error", "INTERNAL")
        self.start_response("500 Internal Server Error", _headers(body))
        try:
            self.write(body)
        except OSError:
            self.close_connection = True


class Server(PyWSGIServer):  # type: ignore[misc]
    """Accepts connections; when it is closed, those end on which no request is under way.

    A client that sends another one at that very moment finds its connection closed before any
    byte of an answer, as whenever the side that is asked closes. It is safe to send again.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._connections: set[Incoming] = set()
        self._looking = gevent.Greenlet(self._end_idle)
        super().__init__(*arguments, **options)

    def start(self) -> None:
        """Begin to accept connections, and to look for those that are idle."""
        super().start()
        self._looking.start()

    def _end_idle(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            for connection in self._connections:
                connection.end_if_idle(IDLE_SECONDS)

    @contextmanager
    def serving(self, connection: Incoming) -> Iterator[None]:
        """Keep a connection in mind while it is served."""
        self._connections.add(connection)
        try:
            if self.closed:
                connection.end()
            yield
        finally:
            self._connections.remove(connection)

    def close(self) -> None:
        """Accept no more connections, and expect no more requests on those that are there."""
        super().close()
        self._looking.kill(block=False)
        for connection in self._connections:
            connection.end()


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """gunicorn's worker class, named in gunicorn.conf.py."""

    server_class = Server
    wsgi_handler = Handler


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]


def _refusal(status: str, error: str, code: str) -> tuple[str, bytes]:
    body = render_error(error, code)
    head = "".join(f"{name}: {value}\r\n" for name, value in _headers(body))
    return status, f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
