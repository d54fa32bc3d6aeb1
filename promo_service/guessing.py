"""Refusing clients that guess codes or admin tokens."""

from __future__ import annotations

from flask import Blueprint, Response, request

from promo_service.attempts import ClientAddresses, FailedAttempts
from promo_service.errors import INVALID_CODE, Forbidden, NotFound
from promo_service.settings import Settings

_WRONG_GUESSES = (INVALID_CODE.code, Forbidden.code)


def limit_guessing(promos: Blueprint, settings: Settings) -> None:
    """Refuse, at these endpoints, clients whose attempts have failed too often."""
    if not settings.max_failed_attempts:
        return
    attempts = FailedAttempts(settings.max_failed_attempts)
    addresses = ClientAddresses(settings.trusted_proxies)

    def client() -> str:
        forwarded = request.headers.get("X-Forwarded-For", "")
        return addresses.client(request.remote_addr or "", forwarded)

    @promos.before_request
    def check() -> None:
        attempts.check(client())

    @promos.after_request
    def count(response: Response) -> Response:
        if _is_failed_attempt(getattr(response, "promo_code", "")):
            attempts.count(client())
        return response


def _is_failed_attempt(code: str) -> bool:
    """Tell whether an answer says that a code or an admin token was a wrong guess."""
    # Who gets as far as a 404 from deactivate, which is a POST, is an admin.
    return code in _WRONG_GUESSES or (code == NotFound.code and request.method != "POST")
