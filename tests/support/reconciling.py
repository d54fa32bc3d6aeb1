"""Reconcile as a process of its own that goes on, and that Prometheus can ask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from promo_service.embedded import die_with_parent, free_port
from tests.support.service import OURS, ROOT


class ReconcileProcess:
    """Runs again every second, on one database, with deadlines of half a second."""

    def __init__(self, uri: str, database: str, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith(OURS)} | {
            "MONGODB_URI": uri,
            "PROMO_DATABASE": database,
            "PROMO_REQUEST_TIMEOUT_MS": "500",
        }

    def __enter__(self) -> Self:
        """Start it without waiting for it."""
        options = ["--every", "1", "--wait", "1", "--metrics-port", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "promo_service", "reconcile", *options],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
            )
        return self

    def stop(self) -> int:
        """Stop it as Ctrl-C does and return its exit status."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill it if it was not stopped."""
        self._process.kill()
        self._process.wait()
