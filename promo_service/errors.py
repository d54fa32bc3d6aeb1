"""Every error of the service and every rejection of the contract, each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refusal that the contract names: HTTP status, machine code and the legacy text."""

    status: int
    code: str
    error: str


INVALID_CODE = Rejection(400, "INVALID_CODE", "Invalid promo code")
EXPIRED = Rejection(400, "EXPIRED", "Promo code has expired")
NOT_YET_ACTIVE = Rejection(400, "NOT_YET_ACTIVE", "Promo code is not yet active")
USAGE_LIMIT_REACHED = Rejection(400, "USAGE_LIMIT_REACHED", "Promo code usage limit reached")
USER_LIMIT_REACHED = Rejection(
    400,
    "USER_LIMIT_REACHED",
    "You have already used this promo code the maximum number of times",
)
ORDER_TYPE_NOT_ELIGIBLE = Rejection(
    400, "ORDER_TYPE_NOT_ELIGIBLE", "Promo code not valid for this order type"
)
MERCHANT_NOT_ELIGIBLE = Rejection(
    400, "MERCHANT_NOT_ELIGIBLE", "Promo code not valid for this merchant"
)
ORDER_CONFLICT = Rejection(
    409, "ORDER_CONFLICT", "This orderId has already been used with another orderAmount"
)


def minimum_not_met(minimum: str) -> Rejection:
    """Return the rejection that names the minimum, given as JavaScript writes the number."""
    return Rejection(400, "MINIMUM_NOT_MET", f"Minimum order amount of ${minimum} required")


class PromoServiceError(Exception):
    """Root of every error that the service raises on purpose."""


class SettingsError(PromoServiceError):
    """Raised when an environment variable cannot be used; the message names the variable."""


class RequestError(PromoServiceError):
    """Raised when a request ends with a 4xx or 5xx; carries what the client is told."""

    status = 400
    code = "INVALID_REQUEST"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(RequestError):
    """Raised when a request cannot be read; the message names the field and what is wrong."""


class Unauthorized(RequestError):
    """Raised when an admin operation comes without a token."""

    status = 401
    code = "UNAUTHORIZED"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(RequestError):
    """Raised when an admin operation comes with a wrong token, or none are configured."""

    status = 403
    code = "FORBIDDEN"


class NotFound(RequestError):
    """Raised when there is no such promo code."""

    status = 404
    code = "NOT_FOUND"


class DuplicateCode(RequestError):
    """Raised when a second active promo with the same code would be created."""

    status = 409
    code = "DUPLICATE_CODE"


class TooManyAttempts(RequestError):
    """Raised when a client has failed too often; `retry_after` is in seconds."""

    status = 429
    code = "TOO_MANY_ATTEMPTS"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many failed attempts; try again in {retry_after} s")
        self.headers = MappingProxyType({"Retry-After": str(retry_after)})


class Unavailable(RequestError):
    """Raised when a request cannot be answered in time.

    Whether a use was recorded is not known; repeating the request with its orderId is safe.
    """

    status = 503
    code = "UNAVAILABLE"
    headers = MappingProxyType({"Retry-After": "1"})


class NoAnswer(Unavailable):
    """Raised at once while the database does not answer: nothing has been tried."""


class MalformedPromo(PromoServiceError):
    """Raised when a stored promo document cannot be understood; the message names the field."""


class DatabaseUnavailable(PromoServiceError):
    """Raised when the outcome of a database operation is not known, or it was not tried.

    Nothing may be concluded from it: in particular, nothing may be given back.
    """


class MongodError(PromoServiceError):
    """Raised when the embedded mongod cannot be found, started or used."""
