"""The legacy endpoints: parse, redeem, render."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import MethodNotAllowed, RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.http import parse_options_header
from werkzeug.routing import BaseConverter, MapAdapter

from promo_service.catalog import Catalog
from promo_service.errors import Forbidden, InvalidRequest, NotFound, Rejection, Unauthorized
from promo_service.guessing import limit_guessing
from promo_service.javascript import write_document
from promo_service.redeem import Answer, Redeemer
from promo_service.settings import Settings
from promo_service.web import CompleteResponse
from promo_service.wire import (
    ApplyRequest,
    decode_apply,
    decode_create,
    decode_deactivate,
    render_error,
    render_success,
)

JSON = "application/json; charset=utf-8"
# A request to apply is some hundred bytes; a promo may list thousands of merchants.
MAX_APPLY_BYTES = 16 * 1024
MAX_ADMIN_BYTES = 1024 * 1024

_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")


def create_blueprint(settings: Settings, redeemer: Redeemer, catalog: Catalog) -> Blueprint:
    """Return the endpoints of the contract, under the configured prefix and paths."""
    promos = Blueprint("promos", __name__, url_prefix=settings.url_prefix)
    promos.record(lambda state: state.app.url_map.converters.update(code=_CodeConverter))
    limit_guessing(promos, settings)

    @promos.post(settings.path_apply)
    def apply() -> Response:
        return _answer(redeemer.apply(_apply_request(request.environ)))

    @promos.post(settings.path_validate)
    def validate() -> Response:
        return _answer(redeemer.validate(_apply_request(request.environ)))

    @promos.post(settings.path_create)
    def create() -> Response:
        _require_admin(settings)
        document = catalog.create(decode_create(_json_body(request.environ, MAX_ADMIN_BYTES)))
        return Response(write_document(document), 201, content_type=JSON)

    @promos.get(settings.path_list)
    def list_active() -> Response:
        pieces = catalog.active()
        # The first piece is fetched here: a database that is down is still a 503.
        first = next(pieces, [])
        return Response(_json_array(first, pieces), content_type=JSON)

    @promos.get(settings.path_read.replace("<code>", "<code:code>"))
    def read(code: str) -> Response:
        try:
            document = catalog.read(code)
        except NotFound:
            # Only where no code has the name of another operation's path, it is a wrong method.
            if "POST" in allowed_methods():
                raise MethodNotAllowed from None
            raise
        return Response(write_document(document), content_type=JSON)

    @promos.post(settings.path_deactivate)
    def deactivate(promo_id: str) -> Response:
        _require_admin(settings)
        if not _OBJECT_ID.fullmatch(promo_id):
            raise InvalidRequest("promoId: expected 24 hex digits")
        body = _json_body(request.environ, MAX_ADMIN_BYTES, required=False)
        catalog.deactivate(promo_id, decode_deactivate(body))
        return CompleteResponse(b'{"success":true}', content_type=JSON)

    return promos


class _CodeConverter(BaseConverter):
    """The rest of a path, whatever it is: a code may begin with a slash, and hold line feeds."""

    regex = r"(?s:.+)"
    part_isolating = False
    weight = 200  # as that of werkzeug's own converter for paths: any other rule goes first


def allowed_methods() -> list[str]:
    """Return the methods of the path of this request, by the operation that is named there.

    That a code could have the name of an operation's path does not count.
    """
    adapter = current_app.create_url_adapter(request)
    methods = list(adapter.allowed_methods()) if adapter else []
    named = [m for m in methods if adapter and _endpoint(adapter, m) != "promos.read"]
    return sorted(named or methods)


def _endpoint(adapter: MapAdapter, method: str) -> str:
    # Otherwise a request that asks for a WebSocket has none.
    endpoint, _ = adapter.match(method=method, websocket=False)
    return str(endpoint)


def json_error(status: int, error: str, code: str, headers: Mapping[str, str]) -> Response:
    """Return an error as every endpoint answers it."""
    response = CompleteResponse(render_error(error, code), status, dict(headers), content_type=JSON)
    response.promo_code = code  # type: ignore[attr-defined]
    return response


def _answer(answer: Answer) -> Response:
    if isinstance(answer, Rejection):
        return json_error(answer.status, answer.error, answer.code, {})
    body = render_success(
        answer.promo_code,
        answer.discount_type,
        answer.discount_value,
        answer.discount_amount,
        answer.final_amount,
    )
    response = CompleteResponse(body, content_type=JSON)
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _apply_request(environ: Mapping[str, Any]) -> ApplyRequest:
    body = _json_body(environ, MAX_APPLY_BYTES)
    return decode_apply(body, environ.get("HTTP_IDEMPOTENCY_KEY"))


def _json_body(environ: Mapping[str, Any], limit: int, *, required: bool = True) -> bytes:
    body = _body(environ, limit)
    if body or required:
        _require_json(environ)
    return body


def _body(environ: Mapping[str, Any], limit: int) -> bytes:
    """Read the body; `wsgi.input` ends with it, as in our worker, or there must be a length.

    Werkzeug's own way of reading costs five times as much.
    """
    length = environ.get("CONTENT_LENGTH", "")
    if length and int(length) > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = environ["wsgi.input"].read(limit + 1)
    except (OSError, ValueError):
        raise InvalidRequest("body: incomplete, or too slow, or not as its header says") from None
    if len(body) > limit:  # of a chunked one, the length is not known before
        raise RequestEntityTooLarge
    return body


def _require_json(environ: Mapping[str, Any]) -> None:
    sent = environ.get("CONTENT_TYPE", "")
    if sent != "application/json" and parse_options_header(sent)[0].lower() != "application/json":
        raise UnsupportedMediaType("expected Content-Type: application/json")


def _require_admin(settings: Settings) -> None:
    if settings.trust_upstream_auth:
        return
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("This operation needs an admin token")
    given = token.strip().encode()
    # All of them are compared, each in constant time: neither which token nor how much of it was
    # right can be read off the time.
    equal = [hmac.compare_digest(given, known.encode()) for known in settings.admin_tokens]
    if not any(equal):
        raise Forbidden("This admin token is not valid")


def _json_array(
    first: list[dict[str, object]], pieces: Iterator[list[dict[str, object]]]
) -> Iterator[bytes]:
    yield ("[" + ",".join(map(write_document, first))).encode()
    for piece in pieces:
        yield "".join("," + write_document(document) for document in piece).encode()
    yield b"]"
