"""The gunicorn worker: gevent's own WSGI server, with what a checkout needs of it.

Cheaper per request than gunicorn's plain gevent worker; an answer is sent with one system call.
"""

from __future__ import annotations

from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler

from promo_service.wire import render_error

# An idle connection is closed after this. Longer than the 60 s of nginx and of most balancers: the
# side that sends the next request must be the one that closes.
IDLE_SECONDS = 65


class Handler(PyWSGIHandler):  # type: ignore[misc]
    """One connection, and the requests on it one after the other."""

    _held: bytearray | None = None
    close_connection: bool

    def handle(self) -> None:
        """Serve the connection until either side closes it or it is silent for too long."""
        self.socket.settimeout(IDLE_SECONDS)
        super().handle()

    def finalize_headers(self) -> None:
        """Say that the connection ends when the worker does, so that no request is lost in it."""
        super().finalize_headers()
        if self.server.closed and not self.close_connection:
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
        if self._held is None:
            super()._sendall(data)
        else:
            self._held += data

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        super()._handle_client_error(error)
        return "400", _response("400 Bad Request", "The request is not HTTP", "INVALID_REQUEST")

    def _send_error_response_if_possible(self, error_code: int) -> None:
        if self.response_length:
            self.close_connection = True
            return
        if error_code == 400:
            status, error, code = "400 Bad Request", "The body cannot be read", "INVALID_REQUEST"
        else:
            status, error, code = "500 Internal Server Error", "Internal server error", "INTERNAL"
        body = render_error(error, code)
        self.start_response(status, _headers(body))
        try:
            self.write(body)
        except OSError:
            self.close_connection = True


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """gunicorn's worker class, named in gunicorn.conf.py."""

    wsgi_handler = Handler


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]


def _response(status: str, error: str, code: str) -> bytes:
    body = render_error(error, code)
    head = "".join(f"{name}: {value}\r\n" for name, value in _headers(body))
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
