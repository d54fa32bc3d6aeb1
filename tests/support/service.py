"""The service as in production: a gunicorn of its own, on a free port of the loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from evaluation.processes import start_gunicorn
from promo_service.embedded import free_port
from tests.support.client import get

ROOT = Path(__file__).parents[2]
PREFIX = "/api/promo-codes"
ADMIN_TOKEN = "token-of-the-tests"  # noqa: S105 - it opens nothing but the services started here
# What the developer's shell sets must not reach the service under test.
OURS = ("GUNICORN", "MONGODB_", "PORT", "PROMETHEUS_", "PROMO_", "WEB_CONCURRENCY")


class Service:
    """One gunicorn master with its workers, on one database; started and stopped by `with`."""

    def __init__(
        self,
        uri: str,
        database: str,
        log: Path,
        *,
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = self.url + PREFIX
        self.log = log
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith(OURS)} | {
            "MONGODB_URI": uri,
            "PROMO_DATABASE": database,
            "PROMO_ADMIN_TOKENS": ADMIN_TOKEN,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(workers),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the gunicorn master."""
        assert self._process is not None, "the service was not started"
        return self._process.pid

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that live now."""
        return sorted(child.pid for child in psutil.Process(self.pid).children())

    def start(self) -> None:
        """Start gunicorn without waiting for it."""
        self._process = start_gunicorn("wsgi:app", self._environ, self.log)

    def wait_until_healthy(self, timeout: float = 30) -> None:
        """Return when /healthz answers 200; fail with the end of the log otherwise."""
        deadline = time.monotonic() + timeout
        while True:
            with suppress(OSError):
                if get(f"{self.url}/healthz", timeout=5).status == 200:
                    return
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"is not healthy after {timeout:.0f} s"
                raise AssertionError(f"the service {what}; its log ends with\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self, timeout: float = 15) -> int:
        """Stop gracefully, kill what has not ended after `timeout` s; return the exit status."""
        assert self._process is not None, "the service was not started"
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers end when they find their parent changed
            return self._process.wait(timeout)

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if error is not None:
            sys.stderr.write(f"--- the log of {self.url} ends with\n{self.log_tail()}\n")
