"""Flask, without what this service has no use for and every request would pay for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter, Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Observer = Callable[[Request, Response, float], None]

STARTED = "promo.started"
_NO_SESSION = NullSession()


class CompleteResponse(Response):
    """A response that is complete when it is made: no stream, no redirection."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as WSGI asks for; Werkzeug would look at every header and piece once more."""
        if environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return self.response  # type: ignore[return-value]  # bytes, as they were given


class Service(Flask):
    """The application: no sessions, one host, no coroutines; a third less CPU than with them.

    `observers` are told of every request, its response, and the seconds between: Flask's hooks for
    that cost several times as much.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.session_interface = _NoSessions()
        self.observers: list[Observer] = []

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none of ours is a coroutine, so there is no need to look."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match on method and path alone, whatever the host is called."""
        if request is None:
            return None
        environ = request.environ
        rule = self._fixed_rules.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if rule is not None:
            request.url_rule, request.view_args = rule, {}
            return None  # nothing left to match
        return self.url_map.bind(
            "localhost",
            default_method=environ["REQUEST_METHOD"],
            path_info=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            query_args=environ["QUERY_STRING"],
        )

    @cached_property
    def _fixed_rules(self) -> dict[tuple[str, str], Rule]:
        """The rules without arguments, by method and path: they go before all others."""
        fixed = [rule for rule in self.url_map.iter_rules() if not rule.arguments]
        return {(method, rule.rule): rule for rule in fixed for method in rule.methods or ()}

    def preprocess_request(self) -> Any:
        """Call the hooks before a request, where there are any."""
        return super().preprocess_request() if self.before_request_funcs else None

    def process_response(self, response: Response) -> Response:
        """Call the hooks after a request, where there are any."""
        return super().process_response(response) if self.after_request_funcs else response

    def do_teardown_request(self, *_: Any) -> None:
        """Call nobody: nothing of ours is torn down."""

    def full_dispatch_request(self) -> Response:
        """Answer a request, and tell the observers."""
        request: Request = request_ctx.request
        request.environ[STARTED] = started = time.perf_counter()
        response = super().full_dispatch_request()
        seconds = time.perf_counter() - started
        for observe in self.observers:
            observe(request, response, seconds)
        return response


class _NoSessions(SessionInterface):
    def open_session(self, _app: Flask, _request: Request) -> NullSession:
        return _NO_SESSION

    def is_null_session(self, _session: object) -> bool:
        return True


def elapsed(request: Request) -> float:
    """Return for how many seconds the request has been with the application."""
    started: float = request.environ[STARTED]
    return time.perf_counter() - started
