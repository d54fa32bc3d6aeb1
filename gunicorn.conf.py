"""How gunicorn runs the service. It is read before gevent patches: nothing of ours is imported."""

from __future__ import annotations

import atexit
import fcntl
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

# Heartbeats and metrics are files that are written all the time: in memory where there is some.
# Under a read-only root file system it is also the one place that can be written.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - not a fixed name


def _whole_number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise SystemExit(f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def _log_formatter() -> str:
    # Named, not imported: logging imports it in the master, which is not patched.
    formatters = {"text": "TextFormatter", "json": "JsonFormatter"}
    text = os.environ.get("PROMO_LOG_FORMAT", "").strip() or "text"
    if text not in formatters:
        raise SystemExit(f"PROMO_LOG_FORMAT must be text or json, not {text!r}")
    return f"promo_service.logs.{formatters[text]}"


bind = f"0.0.0.0:{_whole_number('PORT', 8000, 1, 65535)}"
workers = _whole_number("WEB_CONCURRENCY", len(os.sched_getaffinity(0)), 1, 256)
# On gevent's own WSGI server: gunicorn's HTTP parser, its limits and `keepalive` do not apply.
worker_class = "promo_service.worker.Worker"
# PyMongo's clients do not survive a fork: each worker builds its own.
preload_app = False

# Several times what a flash sale holds open; 20 KB each when idle.
worker_connections = 2048
# Room for a burst to connect at once; a SYN that is dropped comes back only after a second.
backlog = 2048
# The heartbeat of a worker, not a limit on requests: they have their own deadline.
timeout = 30
# Four times the default deadline of a request, and less than the 10 s after which Docker kills.
graceful_timeout = 8
# Workers do not leak; a restart every n requests would hide it if they did.
max_requests = 0
worker_tmp_dir = _MEMORY

# The balancer has an access log, and /metrics the numbers; here it costs CPU in every request.
accesslog = None
# One handler for gunicorn's lines and ours; gunicorn's own handler would write its lines twice.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": _log_formatter()}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True}},
}
# A second way in, with a thread of its own in the master, for what signals do already.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Prepare what the workers inherit; unlike this file, it does not run again at a reload."""
    _allow_connections()
    _prepare_metrics(reexecuted=bool(server.master_pid))


def child_exit(_server: Any, worker: Any) -> None:
    """Take a dead worker's gauges out of the metrics."""
    # Imported here because it looks at PROMETHEUS_MULTIPROC_DIR when it is imported.
    from prometheus_client import multiprocess  # noqa: PLC0415

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _allow_connections() -> None:
    # The usual soft limit is 1024 open files: connection 1025 would hang instead of being served.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = worker_connections + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _prepare_metrics(*, reexecuted: bool) -> None:
    given = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if given:
        folder = Path(given)
        folder.mkdir(parents=True, exist_ok=True)
        # After USR2 the old master still serves, and counts, in a folder that was given to both.
        for left_over in [] if reexecuted else folder.glob("*.db"):
            left_over.unlink()
        return
    folder = _folder_of_our_own()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    atexit.register(_remove, folder, os.getpid())


def _folder_of_our_own() -> Path:
    # A master that is killed removes nothing, and memory is what its folder takes.
    parent = Path(_MEMORY or tempfile.gettempdir())
    for left_over in parent.glob("promo-metrics-*"):
        if (lock := _lock(left_over)) is not None:
            shutil.rmtree(left_over, ignore_errors=True)
            os.close(lock)
    # It is locked before it has the name by which others look for it.
    unnamed = Path(tempfile.mkdtemp(prefix="promo-unnamed-", dir=parent))
    _lock(unnamed)
    return unnamed.rename(parent / unnamed.name.replace("unnamed", "metrics"))


def _lock(folder: Path) -> int | None:
    # Workers inherit the lock: it is free when the last process of a service has gone.
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None  # another user's, or removed meanwhile
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove(folder: Path, owner: int) -> None:
    # Workers inherit this exit handler with everything else.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
