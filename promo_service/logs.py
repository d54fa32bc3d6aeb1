"""What is written to the log: one line for each event that matters, never a token or a body.

gunicorn.conf.py names these formatters; it may be read before gevent patches, so this module
imports nothing but the standard library.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

REQUEST_ID_HEADER = "X-Request-ID"
# A path is at most this long in a line, and a stack this long in all.
MAX_TEXT = 200
MAX_STACK = 8000

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The driver appends the whole reply of the server, and with it what a request contained.
_SERVER_REPLY = re.compile(r", full error: .*")


def request_id(environ: MutableMapping[str, Any]) -> str:
    """Return the id of a WSGI request: the caller's where it is harmless, or one of its own."""
    found: str | None = environ.get("promo.request_id")
    if found is None:
        found = environ.get("HTTP_X_REQUEST_ID", "")
        if not _SANE_REQUEST_ID.fullmatch(found):
            # Not a secret, and several times cheaper than one; each worker has its own sequence.
            found = f"{random.getrandbits(64):016x}"
        environ["promo.request_id"] = found
    return found


def shown(text: str) -> str:
    """Return a text from outside as a log line may show it."""
    return _CONTROL.sub(_escaped, text[:MAX_TEXT])


class TextFormatter(logging.Formatter):
    """One line for people, and a traceback indented below it."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Write message and details, so that neither can forge another line."""
        details = "".join(f" {name}={value}" for name, value in _details(record).items())
        record.message = _CONTROL.sub(_escaped, record.message + details)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Indent the traceback: nothing in it can begin as a line of the log does."""
        return "\n".join(f"  {line}" for line in _stack(super().formatException(ei)).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: nothing in it can end the line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the fields that every line has, then the details of this one."""
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
            **_details(record),
        }
        if record.exc_info:
            line["stack"] = _stack(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def _details(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a call gave as `extra={"details": …}`."""
    details: dict[str, Any] = getattr(record, "details", {})
    return details


def _stack(text: str) -> str:
    return _SERVER_REPLY.sub("", text)[-MAX_STACK:]


def _time(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _escaped(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()
