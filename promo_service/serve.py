"""The whole service on one machine: database, migration, demo, gunicorn, and their orderly end."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote

from promo_service.database import connect
from promo_service.demo import load_demo
from promo_service.embedded import EmbeddedMongod, die_with_parent
from promo_service.errors import PromoServiceError, SettingsError
from promo_service.migrations import migrate
from promo_service.settings import Settings

Report = Callable[[str], None]

PROJECT = Path(__file__).parents[1]
# Beside whoever starts the service, and kept: the database survives a restart.
DATA = Path(".data/mongo")
DATABASE_TIMEOUT = 5.0
START_TIMEOUT = 60.0
# gunicorn gives its workers 8 s to finish their requests.
STOP_TIMEOUT = 12.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ORDER = {
    "userId": "507f1f77bcf86cd799439011",
    "orderAmount": 49.9,
    "orderType": "delivery",
    # With it the lines can be pasted again and again, in any order, and get the same answer.
    "orderId": "order-1001",
}


class ServeError(PromoServiceError):
    """Raised when the service cannot be started, or does not stay up."""


def serve(environ: Mapping[str, str], report: Report) -> None:
    """Start everything, say how to use it, and stop everything at Ctrl-C, SIGTERM or SIGHUP.

    Without MONGODB_URI the database is an embedded one, with demo data. Raises an error of the
    service when something cannot be started, or gunicorn ends by itself.
    """
    embedded = not environ.get("MONGODB_URI", "").strip()
    port = _whole_number(environ, "PORT", 8000, 65535)
    _whole_number(environ, "WEB_CONCURRENCY", 1, 256)
    _require_log_format(environ)
    # Everything that can be wrong is found out before anything is started.
    Settings.from_env({**environ, "MONGODB_URI": "mongodb://127.0.0.1/"} if embedded else environ)
    _require_free(port)
    with ExitStack() as running:
        running.enter_context(_until_told_to_stop())
        env = dict(environ)
        if embedded:
            report(f"starting mongod in {DATA}")
            env["MONGODB_URI"] = running.enter_context(EmbeddedMongod(DATA)).uri
        settings = Settings.from_env(env)
        code = _prepare(settings, report, demo=embedded)
        if embedded and not settings.admin_tokens:
            env["PROMO_ADMIN_TOKENS"] = secrets.token_urlsafe(16)
        gunicorn = running.enter_context(_gunicorn(env))
        _wait_until_ready(gunicorn, port)
        report(f"\nThe service answers at http://127.0.0.1:{port}; Ctrl-C stops it.")
        if embedded:
            report(f"Its database is at {env['MONGODB_URI']}")
            report(f"Admin tokens: {env['PROMO_ADMIN_TOKENS']}")
        report("Try:")
        for line in _examples(settings, port, code):
            report(line)
        status = gunicorn.wait()
        raise ServeError(f"gunicorn has ended by itself, with status {status}")


def _whole_number(environ: Mapping[str, str], name: str, default: int, high: int) -> int:
    # gunicorn.conf.py checks it too, but a database would be running by then.
    text = environ.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= high):
        raise SettingsError(f"{name} must be a whole number from 1 to {high}, not {text!r}")
    return int(text)


def _require_log_format(environ: Mapping[str, str]) -> None:
    text = environ.get("PROMO_LOG_FORMAT", "").strip()
    if text not in ("", "text", "json"):
        raise SettingsError(f"PROMO_LOG_FORMAT must be text or json, not {text!r}")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as gunicorn will
        except OSError as error:
            raise ServeError(
                f"port {port} cannot be used ({os.strerror(error.errno or 0)}): "
                "stop what uses it, or set PORT to another one"
            ) from error


@contextmanager
def _until_told_to_stop() -> Iterator[None]:
    """End the block quietly at a signal; nothing interrupts the cleaning up afterwards."""

    def stop(*_: object) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, stop) for each in SIGNALS}
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _prepare(settings: Settings, report: Report, *, demo: bool) -> str:
    """Bring the database up to date and return a code to show."""
    with connect(settings.mongodb_uri, pool_size=2, timeout=DATABASE_TIMEOUT) as client:
        client.admin.command("ping")
        database = client[settings.database]
        migrate(database, report)
        if demo and (codes := load_demo(database, datetime.now(UTC).replace(tzinfo=None))):
            report(f"loaded {codes} demo codes")
        active = database["promo_codes"].find_one(
            {"isActive": True}, {"code": 1}, sort=[("_id", 1)]
        )
    return str(active["code"]) if active else "WELCOME10"


@contextmanager
def _gunicorn(environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"],
        cwd=PROJECT,
        env=environ,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's Ctrl-C is not meant for it
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
    )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(gunicorn: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not _is_ready(port):
        if (status := gunicorn.poll()) is not None:
            raise ServeError(f"gunicorn did not start, and ended with status {status}")
        if time.monotonic() > deadline:
            raise ServeError(f"the service is not ready after {START_TIMEOUT:.0f} s")
        time.sleep(0.05)


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _examples(settings: Settings, port: int, code: str) -> Iterator[str]:
    api = f"http://127.0.0.1:{port}{settings.url_prefix}"
    body = shlex.quote(json.dumps({"code": code, **ORDER}))
    for path in (settings.path_validate, settings.path_apply):
        yield f"curl -s {api}{path} -H 'Content-Type: application/json' -d {body}"
    yield f"curl -s {shlex.quote(api + settings.path_read.replace('<code>', quote(code, safe='')))}"
