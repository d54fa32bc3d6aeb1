"""nginx with the configuration that is deployed, before services on the loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from promo_service.embedded import HOST, free_port
from tests.support.client import get
from tests.support.service import PREFIX, ROOT

DEPLOYED = ROOT / "deploy" / "nginx"
NOBODY = 65534


def find_nginx() -> str:
    """Return the path of nginx; it is outside the PATH of ordinary users."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    assert found, "nginx is missing: install it from the system's packages (Debian: nginx-light)"
    return found


class Balancer:
    """An nginx before these `host:port` addresses, as an unprivileged process; use it by `with`.

    Only listen.conf and the addresses in servers.conf differ from what is deployed.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.api = self.url + PREFIX
        self._addresses = addresses
        self._folder = TemporaryDirectory(prefix="promo-nginx-")
        self._root = Path(self._folder.name)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What nginx prints: its access log, and its errors."""
        return self._root / "nginx.log"

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests of the access log so far, in the order in which they ended."""
        lines = self.log.read_text().splitlines(keepends=True)
        # The last line may be half written.
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def requests_to(self, path: str, count: int, timeout: float = 30) -> list[dict[str, Any]]:
        """Return the requests to a path when `count` of them, all that were sent, are in the log.

        nginx writes a request down after its client has got the answer.
        """
        deadline = time.monotonic() + timeout
        while len(found := [each for each in self.requests() if each["path"] == path]) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(found)} of {count} requests to {path} are in the log")
            time.sleep(0.02)
        return found

    def command(self, *more: str) -> list[str]:
        """Return the command line, with which nginx is nobody special and ends with its parent."""
        as_nobody = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        setpriv = ["setpriv", "--pdeathsig=TERM", *(as_nobody if os.geteuid() == 0 else [])]
        conf = str(self._root / "nginx.conf")
        nginx = [find_nginx(), "-p", str(self._root), "-c", conf, "-e", "stderr"]
        return [*setpriv, *nginx, *more]

    def write_configuration(self) -> None:
        """Copy what is deployed, with addresses of the loopback."""
        for each in DEPLOYED.glob("*.conf"):
            shutil.copy(each, self._root)
        (self._root / "listen.conf").write_text(f"listen {HOST}:{self.port};\n")
        servers, addresses = self._root / "servers.conf", iter(self._addresses)
        text, replaced = re.subn(
            r"(?<=^server )\S+", lambda _: next(addresses), servers.read_text(), flags=re.MULTILINE
        )
        assert replaced == len(self._addresses), "as many servers as are deployed"
        servers.write_text(text)
        self.log.touch()
        if os.geteuid() == 0:
            for path in (self._root, self.log):
                os.chown(path, NOBODY, NOBODY)

    def __enter__(self) -> Self:
        try:
            self.write_configuration()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command("-g", "daemon off;"),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_until_listening()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_listening(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with suppress(OSError):
                get(f"{self.url}/metrics")  # nginx answers this one by itself
                return
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"nginx does not answer:\n{self.log.read_text()}")
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(30)
        self._folder.cleanup()
