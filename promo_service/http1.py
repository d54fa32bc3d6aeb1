"""The head of an HTTP/1.1 request, read strictly.

RFC 9112, sections 2.2, 3, 5 and 6: what two servers could read in two ways is refused. Behind a
balancer that reads it otherwise, a part of one client's request would pass for another's
("request smuggling").
"""

from __future__ import annotations

import re
from collections.abc import Callable

from promo_service.errors import PromoServiceError

MAX_LINE = 8192
MAX_FIELDS = 100
MAX_HEAD_BYTES = 32 * 1024

# A target may be a whole URI, as proxies are sent it; its host counts no more than the header's.
_REQUEST_LINE = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Z]+) "
    r"(?:[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]+)?"
    r"(/[!-~\x80-\xff]*) HTTP/(\d\.\d)\r\n"
).fullmatch
_FIELD = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r\n"
).fullmatch
_LENGTH = re.compile(r"[0-9]{1,18}").fullmatch
_WITHOUT_PREFIX = ("CONTENT_LENGTH", "CONTENT_TYPE")
# With two of them, or with one of two values, it is not said which counts.
_ONLY_ONCE = {"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST", "HTTP_TRANSFER_ENCODING"}


class RefusedHead(PromoServiceError):
    """Raised when the head of a request cannot be read; nothing after it can be read either."""

    def __init__(self, error: str, status: str = "400 Bad Request") -> None:
        super().__init__(error)
        self.error = error
        self.status = status


def parse_request_line(line: bytes) -> tuple[str, str, str]:
    """Return method, target and version."""
    if len(line) > MAX_LINE:
        raise RefusedHead("The path is too long", "414 URI Too Long")
    match = _REQUEST_LINE(line.decode("latin-1"))
    if match is None:
        raise RefusedHead("The request is not HTTP/1.1")
    method, target, version = match.groups()
    if version not in ("1.1", "1.0"):
        raise RefusedHead("The request is not HTTP/1.1", "505 HTTP Version Not Supported")
    return method, target, version


def read_fields(readline: Callable[[int], bytes]) -> dict[str, str]:
    """Read the header fields; return them by their names in a WSGI environment."""
    fields: dict[str, str] = {}
    left = MAX_HEAD_BYTES
    for _ in range(MAX_FIELDS + 1):
        line = readline(left)
        if line == b"\r\n":
            return fields
        left -= len(line)
        match = _FIELD(line.decode("latin-1"))
        if match is None:
            break
        name, value = match.groups()
        # An underscore would let X_Forwarded_For pass for X-Forwarded-For.
        if "_" not in name:
            _add(fields, name.upper().replace("-", "_"), value)
    else:
        left = 0
    if left:
        raise RefusedHead("A header field cannot be read")
    raise RefusedHead("The header is too large", "431 Request Header Fields Too Large")


def _add(fields: dict[str, str], name: str, value: str) -> None:
    key = name if name in _WITHOUT_PREFIX else "HTTP_" + name
    if key not in fields:
        fields[key] = value
    elif key in _ONLY_ONCE:
        raise RefusedHead("A header field is there twice")
    else:
        fields[key] += "," + value


def body_length(fields: dict[str, str], version: str) -> int | None:
    """Return the Content-Length; None where there is none, or the body is chunked."""
    length = fields.get("CONTENT_LENGTH")
    coding = fields.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None or coding.lower() != "chunked" or version != "1.1":
            raise RefusedHead("The length of the body is not clear")
        return None
    if length is None:
        return None
    if not _LENGTH(length):
        raise RefusedHead("Content-Length: expected a number of bytes")
    return int(length)


def keeps_alive(fields: dict[str, str], version: str) -> bool:
    """Tell whether the client wants to send another request on the connection."""
    connection = fields.get("HTTP_CONNECTION", "").lower()
    return "close" not in connection and (version == "1.1" or "keep-alive" in connection)
