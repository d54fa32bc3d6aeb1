"""What it costs to observe a request: an empty endpoint without, with metrics, and with logs too.

In one process, without HTTP, and with the metrics in files, as gunicorn's workers have them: under
gunicorn, the difference is smaller than what two runs differ by. It is compared with the empty
endpoint as gunicorn's workers serve it. What PyMongo's events cost is measured by itself: they come
per command, and a batch shares its commands. `python -m evaluation.metrics_cost`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gevent import monkey

# The files are in memory, as in production.
MEMORY = "/dev/shm"  # noqa: S108 - not a fixed name
ROUNDS = 1000
CALLS = 200
# The share of an empty endpoint's CPU that metrics may cost.
BOUND = 0.05
CONNECTIONS = 64
SECONDS = 5


def main() -> None:
    """Print the cost in microseconds; the exit status is 1 when metrics cost too much."""
    monkey.patch_all()  # its locks are the workers'
    with TemporaryDirectory(dir=MEMORY) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        bare, counted, logged = _best(_endpoint(), _endpoint(1), _endpoint(2))
        (command,) = _best(_driver_events())
    empty = _empty_endpoint()
    share = (counted - bare) / empty
    sys.stdout.write(
        f"the empty endpoint under gunicorn: {empty:.0f} us of CPU a request\n"
        f"metrics: {counted - bare:.1f} us more, {share:.1%} of it\n"
        f"with logs too: {logged - bare:.1f} us more\n"
        f"each database command: {command:.1f} us more\n"
    )
    sys.exit(share >= BOUND)


def _empty_endpoint() -> float:
    """Return what gunicorn's workers need for a request to an endpoint that does nothing."""
    # What these import must not be imported before it is patched.
    from evaluation import load  # noqa: PLC0415
    from evaluation.empty import PREFIX  # noqa: PLC0415
    from evaluation.processes import VARIANTS, Service  # noqa: PLC0415

    body = {"code": "ANY", "userId": load.FRESH_USER, "orderAmount": 50, "orderId": "any"}
    with TemporaryDirectory() as folder:
        bodies = Path(folder, "bodies.txt")
        bodies.write_text(json.dumps(body) + "\n")
        with Service(VARIANTS["empty"], "mongodb://none", 1, Path(folder, "log")) as service:
            url = service.url(f"{PREFIX}/apply")
            load.run(url, bodies, CONNECTIONS, 1)
            before = service.cpu_seconds()
            seen = load.run(url, bodies, CONNECTIONS, SECONDS)
            return (service.cpu_seconds() - before) / seen.served * 1e6


def _endpoint(observers: int = 0) -> Callable[[], object]:
    # Imported late, here and below: the client chooses between files and memory at its import.
    from flask import Response  # noqa: PLC0415
    from werkzeug.test import create_environ  # noqa: PLC0415

    from promo_service.metrics import Metrics  # noqa: PLC0415
    from promo_service.observe import log_requests, measure_requests  # noqa: PLC0415
    from promo_service.settings import Settings  # noqa: PLC0415
    from promo_service.web import Service  # noqa: PLC0415

    app = Service("empty")
    app.add_url_rule("/apply", "promos.apply", lambda: Response(b"{}"), methods=["POST"])
    if observers > 0:
        measure_requests(app, Metrics())
    if observers > 1:
        log_requests(app, Settings("mongodb://none"))
    environ = create_environ("/apply", method="POST")

    def start(*_: Any) -> Callable[[bytes], object]:
        return len

    return lambda: app(dict(environ), start)


def _driver_events() -> Callable[[], object]:
    from pymongo.monitoring import _EventListeners  # noqa: PLC0415 - what a client calls

    from promo_service.metrics import Metrics  # noqa: PLC0415
    from promo_service.metrics.driver import DriverListener  # noqa: PLC0415

    listeners = _EventListeners([DriverListener(Metrics())])
    server, took = ("127.0.0.1", 27017), timedelta(microseconds=400)

    def command() -> None:
        listeners.publish_connection_check_out_started(server)
        listeners.publish_connection_checked_out(server, 1, 0.0)
        listeners.publish_command_start({"find": "a"}, "promo", 1, server, None)
        listeners.publish_command_success(took, {"ok": 1}, "find", 1, server, None)
        listeners.publish_connection_checked_in(server, 1)

    return command


def _best(*measured: Callable[[], object]) -> list[float]:
    """Return the least microseconds that a call of each took, in turns: others use the machine."""
    best = [float("inf")] * len(measured)
    for _ in range(ROUNDS):
        for index, call in enumerate(measured):
            started = time.thread_time()
            for _ in range(CALLS):
                call()
            best[index] = min(best[index], (time.thread_time() - started) / CALLS * 1e6)
    return best


if __name__ == "__main__":
    main()
