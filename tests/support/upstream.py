"""An instance of the service whose answers get lost: it does what it is asked, and hangs up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from promo_service.embedded import HOST
from tests.support.client import Request, Response, send

END_TO_END = ("Authorization", "Content-Type", "Idempotency-Key")


class LosesAnswers(ThreadingHTTPServer):
    """Hands requests on to `url`; keeps their headers and the answers, which nobody gets."""

    def __init__(self, url: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.address = f"{HOST}:{self.server_port}"
        self.url = url
        self.headers: list[dict[str, str]] = []
        self.lost: list[Response] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the `with` runs."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LosesAnswers

    def do_POST(self) -> None:
        """Hand a request on, and hang up on whoever sent it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = {name: self.headers[name] for name in END_TO_END if name in self.headers}
        self.server.headers.append(dict(self.headers))
        self.server.lost.append(send(Request(self.server.url + self.path, body, kept)))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Print nothing."""
