"""The services that are measured, each under gunicorn as in production, and their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from promo_service.embedded import HOST, die_with_parent, free_port

ROOT = Path(__file__).parents[1]

LEGACY_DATABASE = "legacy"

START_SECONDS = 30
STOP_SECONDS = 15


class ServiceFailed(Exception):
    """Raised when a service does not start, or loses a process while it is measured."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A service to compare: what gunicorn runs, and what may be expected of it."""

    name: str
    app: str
    database: str = "promo"
    uses_database: bool = True
    validates: bool = True
    replays: bool = False
    # Whether `currentUses` is kept, so that it can be compared with the uses recorded.
    counts: bool = True
    has_metrics: bool = False


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("ours", "wsgi:app", replays=True, has_metrics=True),
        Variant("naive", "evaluation.naive:from_env()"),
        Variant("empty", "evaluation.empty:create_app()", uses_database=False, replays=True),
        Variant(
            "legacy",
            "evaluation.legacy.app:from_env()",
            database=LEGACY_DATABASE,
            validates=False,
            counts=False,
        ),
    )
}


class Service:
    """A running variant, kept on `cores` where some are given."""

    def __init__(
        self, variant: Variant, uri: str, workers: int, log: Path, cores: Collection[int] = ()
    ) -> None:
        self.variant = variant
        self._cores = cores
        self.port = free_port()
        self._log = log
        self._workers = workers
        self._environment = {
            **os.environ,
            "MONGODB_URI": uri,
            "PROMO_DATABASE": variant.database,
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(workers),
        }
        # Two services must not count into one folder.
        self._environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self._master: subprocess.Popen[bytes] | None = None
        self.processes: list[psutil.Process] = []

    def url(self, path: str) -> str:
        """Return the address of a path of the service."""
        return f"http://{HOST}:{self.port}{path}"

    def start(self) -> None:
        """Start gunicorn and wait for all of its workers."""
        self._master = start_gunicorn(self.variant.app, self._environment, self._log)
        try:
            self._wait_until_ready(time.monotonic() + START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._master is not None  # noqa: S101 - start() has just set it
        master = psutil.Process(self._master.pid)
        while self._master.poll() is None and time.monotonic() < deadline:
            workers = master.children()
            if len(workers) == self._workers and self._answers():
                self.processes = [master, *workers]
                if self._cores:
                    pin([process.pid for process in self.processes], self._cores)
                return
            time.sleep(0.05)
        raise ServiceFailed(f"{self.variant.name} did not start: {self._last_words()}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url("/readyz"), timeout=2):  # noqa: S310 - our own
                return True
        except urllib.error.HTTPError as answer:
            return answer.code == 404  # a yardstick has no such page, but it serves
        except OSError:
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def cpu_seconds(self) -> float:
        """Return the CPU time that all processes together have used so far.

        Raises ServiceFailed when one of them has gone: what it used is lost, and why it went
        matters more.
        """
        try:
            times = [process.cpu_times() for process in self.processes]
        except psutil.NoSuchProcess as error:
            words = self._last_words()
            raise ServiceFailed(f"{self.variant.name} lost a process: {words}") from error
        return float(sum(time.user + time.system for time in times))

    def restart(self) -> None:
        """Stop, whatever is under way, and start again."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Stop the master and its workers, and wait for them."""
        if self._master is None:
            return
        workers = _children(self._master.pid)
        self._master.send_signal(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):
            self._master.wait(STOP_SECONDS)
        for process in workers:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._master.kill()
        self._master.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_gunicorn(app: str, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start an application as in production, in a session of its own; it ends with this process."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", app],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it makes one system call
        )


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Keep processes, with all the threads that they have and will start, on these cores."""
    wanted = set(cores)
    for pid in pids:
        for thread in psutil.Process(pid).threads():
            with suppress(ProcessLookupError):  # a thread may end at any time
                os.sched_setaffinity(thread.id, wanted)
